"""Evaluate anybody's model: benign metrics, ten attack scores, ERS and ARS, with intervals and a report.

Examples:
    colotride evaluate --model runs/first
    colotride evaluate --model runs/first --queries 500 --steps 32 --sanity
    colotride evaluate --model net.pt --dataset cub --data-root ~/data --workers 4 --gpus-per-worker 1
    colotride evaluate --model mypackage.models:net --dataset folder --data-root ~/photos
    colotride evaluate --model runs/first --protocol published --json
"""

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from torch import nn

from colotride.backbones import PRETRAINED, record_size
from colotride.cli.options.evaluate import Evaluate
from colotride.cli.records import existing_record
from colotride.config import RunConfig
from colotride.data.base import ImageSet
from colotride.data.settings import absolute_root
from colotride.data.splits import load_test
from colotride.devices import device_of
from colotride.disk import check_file, check_writable
from colotride.distributed.launch import evaluation_executor
from colotride.errors import ColoTrideError, ConfigurationError
from colotride.evaluation import leaderboard
from colotride.evaluation.evaluator import CleanEvaluation, evaluate_attacks, evaluate_clean
from colotride.evaluation.examples import retrieval_examples
from colotride.evaluation.probe import probe
from colotride.evaluation.report import write_report
from colotride.evaluation.results import Evaluation, save_evaluation
from colotride.evaluation.sanity import Check, sanity_checks, sanity_context
from colotride.evaluation.strength import check_strength, check_surrogate, measure_strength
from colotride.evaluation.strength_settings import StrengthSettings
from colotride.evaluation.table import measurement_table, table_of
from colotride.external_models import ExternalModel, is_name, load_external_model
from colotride.hub.address import is_hub_address, local_copy
from colotride.locking import owned
from colotride.models import ModelSettings, build_model
from colotride.names import LONGEST
from colotride.presets import preset, with_data_root
from colotride.registry import DATASETS, load_plugin
from colotride.reproduction.paper import paper_rows
from colotride.terminal import Terminal
from colotride.training.runs import load_run, origin_of

URI = re.compile(r"^(models|runs|mlflow-artifacts|s3|gs|dbfs|file):/")


@dataclass(frozen=True)
class Subject:
    """What is evaluated on what."""

    spec: str
    run: Path | None
    """The run's folder, where the model is one that lies here."""
    config: RunConfig
    """Data and evaluation settings."""
    name: str
    home: Path
    """Where its results go unless the command says otherwise."""
    own_data: bool = True
    """Whether a run is evaluated on the pictures that it was trained for."""
    plugins: tuple[str, ...] = ()
    trust: bool = False
    weights: str = PRETRAINED
    """Of a model by name."""

    def load(self) -> tuple[nn.Module, ImageSet]:
        """The model, on the CPU, and the images; called again by every worker."""
        for module in self.plugins:
            load_plugin(module)
        model = load_model(self.spec, self.weights, self.config.data.image_size, trust=self.trust)
        return model, load_test(self.config.data)


def main(command: Evaluate) -> int:
    """Evaluate as the arguments say."""
    subject = subject_of(command)
    output = command.output or subject.home
    with owned(output, "evaluation"):
        check_writable(output)
        if command.leaderboard:
            check_file(command.leaderboard)
        return _evaluated(command, subject, output)


def _evaluated(command: Evaluate, subject: Subject, output: Path) -> int:
    executor = evaluation_executor(subject.load, command.workers, gpus=command.gpus_per_worker)
    device = device_of("cpu" if command.workers > 1 and not command.gpus_per_worker else command.device)
    model, images = subject.load()
    if command.queries is not None and command.queries > len(images):
        raise ConfigurationError(f"--queries {command.queries} is more than the {len(images)} images of {images.name}")
    model.to(device)
    settings = subject.config.evaluation
    surrogate = load_surrogate = None
    if command.surrogate is not None:
        size = subject.config.data.image_size
        path = Path(command.surrogate)
        spec = str(path.absolute()) if path.exists() else command.surrogate
        load_surrogate = partial(load_model, spec, image_size=size, trust=command.trust)
        surrogate = load_surrogate().to(device)
    for external in (model, surrogate):
        if isinstance(external, ExternalModel):
            probe(external, images, image_size=subject.config.data.image_size, device=device)
    console = Terminal(stderr=True)
    with _progress(console) as report:
        clean = evaluate_clean(
            model,
            images,
            settings,
            image_size=subject.config.data.image_size,
            seed=command.seed,
            device=device,
            progress=report,
        )
        strength = _strength(command, len(clean.plan.queries), len(images))
        if surrogate is not None:
            check_surrogate(surrogate, images, clean.plan)
        partial_results = output / "partial"
        try:
            result = evaluate_attacks(
                clean,
                model,
                images,
                progress=report,
                partial_results=partial_results,
                resume=command.resume,
                executor=executor,
            )
            measured = measure_strength(
                model,
                images,
                clean.plan,
                strength,
                surrogate,
                lambda what: report(what, 1.0),
                partial_results,
                resume=command.resume,
                executor=executor,
                load_surrogate=load_surrogate,
            )
        except ColoTrideError as error:
            raise type(error)(f"{error}; what is finished is kept: correct this and add --resume") from error
        result = dataclasses.replace(result, measurements=result.measurements + measured)
        checks = _sanity(command, clean, model, images, surrogate, report) if command.sanity else []
        examples = (
            retrieval_examples(model, images, clean.plan, command.example_queries) if command.example_queries else []
        )
    written = save_evaluation(result, output)
    others = paper_rows(subject.config.data.name)
    title = command.name or subject.name
    write_report(
        output / "report.html",
        result,
        title=title,
        dataset=images.name,
        others=others,
        examples=examples,
        checks=checks,
    )
    shutil.rmtree(partial_results, ignore_errors=True)
    if command.leaderboard:
        leaderboard.append(command.leaderboard, result, model=title, dataset=images.name)
    _print(command, result, checks, title, images.name)
    console.print(
        f"written: {written}, attacked.parquet, benign.parquet, classes.parquet, report.html",
        soft_wrap=True,
    )
    # Last, so that nothing that MLflow's journal suffers can cost the evaluation.
    if command.track and subject.run and subject.own_data and (record := existing_record(subject.run, console)):
        record.evaluation(result.scores(), written, output / "report.html")
    return 0


def subject_of(command: Evaluate) -> Subject:
    """The model's kind, and the settings of its evaluation.

    Raises:
        ConfigurationError: no model, no data set for a model that brings none, or a value out of range.
    """
    for module in command.plugin:
        load_plugin(module)
    path = local_copy(command.model)
    is_run = path.is_dir() and not (path / "MLmodel").is_file()
    own_data = True
    if is_run:
        config = load_run(path)[0]
        own_data = command.dataset in (None, config.data.name)
        if command.dataset is not None and not own_data:
            config = config.model_copy(update={"data": preset(command.dataset).data})
    elif command.dataset is not None:
        config = preset(command.dataset)
    else:
        raise ConfigurationError(
            f"--dataset is missing: {command.model} does not say what it was trained for; "
            f"give one of {', '.join(DATASETS)}"
        )
    config = with_data_root(config, command.data_root)
    data: dict[str, Any] = {"root": absolute_root(config.data.root)}
    by_name = not is_run and is_name(command.model)
    if command.weights is not None and not by_name:
        raise ConfigurationError(f"--weights belongs to a model by name such as timm:NAME, and {command.model} is none")
    image_size = command.image_size or (record_size(command.model) if by_name else None)
    if image_size is not None:
        stored = config.data.stored_size if DATASETS[config.data.name].fixed_size else image_size
        data |= {"image_size": image_size, "stored_size": stored}
    asked = {name: getattr(command, name) for name in ("queries", "steps", "protocol", "epsilon", "norm", "step_size")}
    asked |= {"batch_size": command.batch_size, "extra_attacks": command.extra_attacks}
    given = {name: value for name, value in asked.items() if value not in (None, ())}
    try:
        settings = config.evaluation.with_values(given)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise ConfigurationError(f"--{message}") from None
        option = str(first["loc"][0]).replace("_", "-")
        raise ConfigurationError(f"--{option} {first['input']!r}: {message}") from None
    config = config.with_values({f"data.{name}": value for name, value in data.items()})
    config = config.model_copy(update={"evaluation": settings})
    name = (origin_of(path) or config.defense.name) if is_run else command.model
    run = path if is_run and not is_hub_address(command.model) else None
    if run is None:
        home = Path("runs/evaluation") / _slug(command.model if is_run else name) / config.data.name
    else:
        # Results on other pictures must not take the place of those on the run's own.
        home = run / ("evaluation" if own_data else f"evaluation-{config.data.name}")
    return Subject(
        str(path.absolute()) if path.exists() else command.model,
        run,
        config,
        name,
        home,
        own_data,
        command.plugin,
        command.trust,
        command.weights or PRETRAINED,
    )


def load_model(
    spec: str, weights: str = PRETRAINED, image_size: int | None = None, *, trust: bool = False
) -> nn.Module:
    """Load a model of any kind, on the CPU.

    Args:
        spec: as `--model` is given.
        weights: of a model by name.
        image_size: side in pixels that a model by name will see.
        trust: whether it may run code while it is loaded.

    Raises:
        ModelError, CheckpointError: it cannot be loaded, or would run code without being trusted.
    """
    path = local_copy(spec)
    if URI.match(spec) or (path / "MLmodel").is_file():
        # MLflow is an extra, and only its own addresses need it.
        from colotride.tracking.export import default_uri
        from colotride.tracking.model_registry import load_registered

        return ExternalModel(load_registered(spec, default_uri(), trust=trust), spec)
    if path.is_dir():
        return load_run(path)[1]
    return load_external_model(spec, weights=weights, image_size=image_size, trust=trust)


def _sanity(
    command: Evaluate,
    clean: CleanEvaluation,
    model: nn.Module,
    images: ImageSet,
    surrogate: nn.Module | None,
    report: "_Report",
) -> list[Check]:
    plan = clean.plan
    settings, device = plan.settings, plan.gallery.embeddings.device
    few = plan.queries[torch.linspace(0, len(plan.queries) - 1, min(64, len(plan.queries))).round().long()]
    context = sanity_context(model, images, plan.gallery, few, plan.image_size, settings.budget(settings.epsilon))
    channels = context.images.shape[1]
    architecture = "resnet18" if channels == 3 else "two-convolutions"
    if surrogate is None:
        surrogate = build_model(
            ModelSettings(architecture=architecture, weights="none"),
            channels=channels,
            image_size=plan.image_size,
            seed=command.seed,
        )
    return sanity_checks(context, surrogate.to(device), command.seed, lambda name: report(f"sanity: {name}", 1.0))


def _strength(command: Evaluate, queries: int, images: int) -> StrengthSettings:
    """What the options ask for beside the ten attacks, checked before anything runs."""
    strength = StrengthSettings.model_validate(
        {name: getattr(command, name) for name in StrengthSettings.model_fields if hasattr(command, name)}
    )
    check_strength(strength, queries, images, surrogate=command.surrogate is not None)
    return strength


class _Report:
    def __init__(self, progress: Progress) -> None:
        self._progress, self._task = progress, progress.add_task("evaluation", total=1.0)

    def __call__(self, what: str, share: float) -> None:
        self._progress.update(self._task, completed=share, description=what)


@contextmanager
def _progress(console: Console) -> Iterator[_Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Report(progress)


def _print(command: Evaluate, result: Evaluation, checks: Sequence[Check], title: str, dataset: str) -> None:
    if command.as_json:
        print(json.dumps(result.to_dict() | {"sanity": [dataclasses.asdict(check) for check in checks]}))
        return
    console = Terminal()
    console.print(table_of({title: result}, title=dataset))
    for one in result.measurements:
        console.print(measurement_table(one))
    if not checks:
        return
    table = Table("check", "verdict", "figures", title="Can the attacks be trusted?")
    for check in checks:
        figures = ", ".join(f"{name} {value:.3g}" for name, value in check.figures.items())
        table.add_row(check.name, "passed" if check.passed else Text("FAILED", style="bold red"), figures)
    console.print(table)
    for check in checks:
        if not check.passed:
            line = f'GRADIENT MASKING SUSPECTED: "{check.name}" fails, {check.meaning}'
            console.print(line, style="bold red", soft_wrap=True)


def _slug(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
    return slug if len(slug) <= LONGEST else f"{slug[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
