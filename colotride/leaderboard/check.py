"""Whether a record can be reproduced from its checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from colotride.data.splits import load_test
from colotride.errors import ConfigurationError
from colotride.evaluation.evaluator import evaluate
from colotride.leaderboard.records import Record, digest_of
from colotride.presets import with_data_root
from colotride.training.runs import load_run

TOLERANCE, SMALL_TOLERANCE = 0.5, 0.01
"""Points by which a score may differ on another machine; TMA and ES:D are in 0..1 and 0..2."""

SMALL = ("TMA", "ES:D")


@dataclass(frozen=True)
class Difference:
    """A score that came out otherwise."""

    name: str
    recorded: float
    found: float | None
    """None where the evaluation has no such score."""


def differences(
    record: Record,
    run: Path,
    *,
    data_root: str | None,
    device: torch.device,
    progress: Callable[[str, float], None] | None = None,
) -> list[Difference]:
    """Evaluate a run as a record says, and compare every score.

    Args:
        record: a measured one.
        run: folder of the run that it is about.
        data_root: where the pictures are; None for where the run found them.
        device: to compute on.
        progress: called with what is being done and the share that is done.

    Returns:
        The scores that differ by more than the tolerance; none where the record is reproduced.

    Raises:
        ConfigurationError: the record was published elsewhere, or is of other weights or pictures than the run.
        CheckpointError: the folder holds no run.
    """
    if record.digest is None or record.seed is None:
        raise ConfigurationError(
            f"the record of {record.model} was published without a checkpoint; it cannot be checked"
        )
    config, model = load_run(run)
    if digest_of(config, model) != record.digest:
        raise ConfigurationError(f"the record of {record.model} is of other weights than those in {run}; give its run")
    if config.data.name != record.dataset:
        raise ConfigurationError(f"the record is of {record.dataset}, and {run} of {config.data.name}")
    config = with_data_root(config, data_root)
    settings = config.evaluation.with_values(
        {
            "protocol": record.protocol,
            "norm": record.norm,
            "epsilon": record.epsilon,
            "steps": record.steps,
            "step_size": record.step_size,
            "queries": record.queries,
            "bootstrap": 0,
        }
    )
    found = evaluate(
        model.to(device),
        load_test(config.data),
        settings,
        image_size=config.data.image_size,
        seed=record.seed,
        device=device,
        progress=progress,
    ).scores()
    return [
        Difference(name, recorded, found.get(name))
        for name, recorded in record.scores().items()
        if name not in found or abs(found[name] - recorded) > (SMALL_TOLERANCE if name in SMALL else TOLERANCE)
    ]
