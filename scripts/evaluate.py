"""Evaluate a trained run on the test part of its data set: benign metrics, ten attack scores, ERS and ARS.

Examples:
    python scripts/evaluate.py --model runs/first
    python scripts/evaluate.py --model runs/first --queries 500 --steps 32
    python scripts/evaluate.py --model runs/first --protocol published --json
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from colotride.atomic import write_atomically
from colotride.command_line import device_of, parse, run
from colotride.data.splits import load_splits
from colotride.errors import ConfigurationError
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.settings import EvaluationSettings
from colotride.evaluation.table import table_of
from colotride.presets import with_data_root
from colotride.runs import load_run
from colotride.tracking import RunRecord


@dataclass(frozen=True)
class Evaluate:
    """Attack a trained model and print its table; the result is also written as evaluation.json into the run."""

    model: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run's folder, as made by scripts/train.py (required)."""
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that holds the data sets (default: the run's)."""
    queries: int | None = None
    """Query budget: that many test images are attacked (default: the run's setting)."""
    steps: int | None = None
    """Step budget: PGD steps per attack (default: the run's setting)."""
    protocol: Literal["strict", "published"] | None = None
    """Attacks as defined (strict), or with the weaknesses of the code behind the papers' numbers (published)."""
    seed: int = 0
    """Which queries and targets are drawn."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    track: bool = True
    """Add the scores to the run's record in MLflow."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the result goes (default: evaluation.json in the run's folder)."""
    json: bool = False
    """Print the result as JSON instead of a table."""


def main(arguments: Sequence[str]) -> int:
    """Evaluate as the arguments say."""
    command = parse(Evaluate, arguments, Evaluate())
    if command.model is None:
        raise ConfigurationError("--model is missing: give the folder of a run that scripts/train.py made")
    config, model = load_run(command.model)
    config = with_data_root(config, command.data_root)
    images = load_splits(config.data).test
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("evaluation", total=1.0)
        device = device_of(command.device)
        result = evaluate(
            model.to(device),
            images,
            _settings(config.evaluation, command),
            image_size=config.data.image_size,
            seed=command.seed,
            device=device,
            progress=lambda what, share: progress.update(task, completed=share, description=what),
        )
    output = command.output or command.model / "evaluation.json"
    write_atomically(output, (json.dumps(result.to_dict(), indent=2) + "\n").encode())
    if command.track:
        record = RunRecord.existing(command.model)
        if record:
            record.evaluation(result.scores(), output)
    if command.json:
        print(json.dumps(result.to_dict()))
    else:
        Console().print(table_of({config.defense.name: result}, title=images.name))
        console.print(f"written to {output}")
    return 0


def _settings(settings: EvaluationSettings, command: Evaluate) -> EvaluationSettings:
    asked = {name: getattr(command, name) for name in ("queries", "steps", "protocol")}
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        return EvaluationSettings.model_validate(settings.model_dump() | given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"--{first['loc'][0]} {first['input']!r}: {first['msg']}") from None


if __name__ == "__main__":
    run(main)
