"""The trainer: epochs of batches, validation, health checks, and exact resume. Pure PyTorch."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from colotride.atomic import write_atomically
from colotride.checkpoint import Checkpoint, load_newest, save_checkpoint
from colotride.config import RunConfig, save_config
from colotride.data.augmentation import training_view
from colotride.data.base import ImageSet
from colotride.data.prefetch import prefetched
from colotride.data.sampling import pair_batches
from colotride.defenses import Batch, Moment, Recipe, build_defense
from colotride.errors import CheckpointError
from colotride.evaluation.evaluator import evaluate
from colotride.health import Ailment, ailment
from colotride.models import build_model
from colotride.optimisation import build_optimizer
from colotride.randomness import derive_seed, generator

Status = Ailment | Literal["finished", "interrupted"]


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch showed."""

    epoch: int
    """Epochs completed, this one included: the first record says 1."""
    step: int
    """Batches trained so far."""
    seconds: float
    """Wall time of training and validation in this epoch."""
    diagnostics: dict[str, float]
    """Means over the epoch's batches (Figures 3 and 4); `gradient_norm` is the largest."""
    validation: dict[str, float] = field(default_factory=dict)
    """Scores on the held-out part; empty in epochs without validation."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    reason: str
    """Why, with the figures, where the run did not finish."""
    history: list[EpochRecord]
    """One record per completed epoch."""

    @property
    def collapsed_at(self) -> int | None:
        """The epoch in which the model collapsed, counted from 1, or None."""
        return self.history[-1].epoch if self.status == "collapsed" else None


@dataclass
class _RunningMeans:
    """Sums of the diagnostics of the running epoch, on the device: reading them would make every batch wait."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    largest_norm: Tensor | None = None

    def add(self, diagnostics: dict[str, Tensor], gradient_norm: Tensor) -> None:
        for name, value in diagnostics.items():
            value = value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        norm = gradient_norm.detach()
        # torch.maximum hands a NaN on, which is wanted: it must end the run.
        self.largest_norm = norm if self.largest_norm is None else torch.maximum(self.largest_norm, norm)

    def means(self) -> dict[str, float]:
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        return means if self.largest_norm is None else means | {"gradient_norm": float(self.largest_norm)}


class Trainer:
    """One run: its model, optimiser and defense, and where it stands.

    Attributes:
        model: the embedding model, on the device.
        epoch: epochs completed.
        step: batches trained.
        history: one record per completed epoch.
    """

    def __init__(
        self,
        config: RunConfig,
        train: ImageSet,
        validation: ImageSet | None,
        *,
        device: torch.device,
        directory: Path | None = None,
    ) -> None:
        """Build a run, and continue from its newest whole checkpoint where there is one.

        Args:
            config: everything that decides the numbers.
            train: images to train on.
            validation: held-out images, evaluated while training, or None.
            device: where to compute.
            directory: the run's folder; None keeps nothing.

        Raises:
            CheckpointError: the folder belongs to another configuration, or none of its checkpoints is whole.
            ModelError, DataError: the model or the batches cannot be built.
        """
        self.config, self.device, self.directory = config, device, directory
        self._train, self._validation = train, validation
        checkpoint = _checkpoint_of(config, directory)
        # A checkpoint overwrites every weight: starting from downloaded ones would only ask for the network.
        start = config.model if checkpoint is None else config.model.model_copy(update={"weights": "none"})
        self.model = build_model(
            start,
            channels=train.pixels(torch.zeros(1, dtype=torch.int64)).shape[1],
            image_size=config.data.image_size,
            seed=derive_seed(config.seed, "model"),
        ).to(device)
        self._optimizer = build_optimizer(self.model, config.optimisation)
        self._defense = build_defense(config.defense, recipe_of(config))
        self.epoch, self.step, self.history = 0, 0, list[EpochRecord]()
        self._steps_into_epoch, self._running = 0, _RunningMeans()
        if checkpoint is not None:
            self._resume(checkpoint)
        elif directory is not None:
            save_config(config, directory / "config.yaml")

    def run(
        self,
        on_epoch: Callable[[EpochRecord], None] | None = None,
        on_step: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Train until the last epoch, until the model is lost, or until asked to stop.

        A checkpoint is written after every epoch and when asked to stop; the batch that comes next is the same as
        if the run had never stopped.

        Args:
            on_epoch: told of every completed epoch.
            on_step: told (batches done, batches) within the running epoch.
            should_stop: asked before every batch.
        """
        config = self.config
        lost = self._ailment()
        while lost is None and self.epoch < config.optimisation.epochs:
            started = time.perf_counter()
            if not self._train_epoch(on_step, should_stop):
                self._save()
                return self._end("interrupted", f"stopped in epoch {self.epoch + 1}")
            self.epoch += 1
            diagnostics = self._running.means()
            self._steps_into_epoch, self._running = 0, _RunningMeans()
            lost = self._ailment(diagnostics)
            validation = {} if lost else self._validate()
            record = EpochRecord(self.epoch, self.step, time.perf_counter() - started, diagnostics, validation)
            self.history.append(record)
            self._save()
            if on_epoch:
                on_epoch(record)
        return self._end(*(lost or ("finished", "")))

    def _end(self, status: Status, reason: str) -> Outcome:
        outcome = Outcome(status, reason, self.history)
        if self.directory is not None:
            save_summary(outcome, self.directory)
        return outcome

    def _train_epoch(self, on_step: Callable[[int, int], None] | None, should_stop: Callable[[], bool] | None) -> bool:
        config, data = self.config, self.config.data
        batches = pair_batches(self._train.labels, data.pairs_per_batch, data.pairs_per_epoch, config.seed, self.epoch)
        self.model.train()
        cuda = [self.device] if self.device.type == "cuda" else []
        coming = batches[self._steps_into_epoch :]
        pixels = prefetched(self._train, [pairs.T.flatten() for pairs in coming], self.device)
        with torch.random.fork_rng(devices=cuda), closing(pixels):
            for pairs in coming:
                if should_stop and should_stop():
                    return False
                position = (self.epoch, self._steps_into_epoch)
                # Layers that draw from torch's global generator (dropout) must draw the same after a resume.
                torch.manual_seed(derive_seed(config.seed, "network", *position))
                self._train_batch(next(pixels), self._train.labels[pairs[:, 0]], position)
                self._steps_into_epoch += 1
                self.step += 1
                if on_step:
                    on_step(self._steps_into_epoch, len(batches))
        return True

    def _train_batch(self, pixels: Tensor, labels: Tensor, position: tuple[int, int]) -> None:
        seed, data = self.config.seed, self.config.data
        augmentation = generator(seed, "augmentation", *position)
        images = training_view(pixels, data.image_size, data.flip, augmentation)
        anchor, positive = images.chunk(2)
        batch = Batch(anchor, positive, labels)
        moment = Moment(self.epoch, self.config.optimisation.epochs, self.step)
        loss, diagnostics = self._defense(self.model, batch, moment, generator(seed, "mining", *position))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self._optimizer.step()
        self._running.add({"loss": loss, **diagnostics}, norm)

    def _validate(self) -> dict[str, float]:
        config, budget = self.config, self.config.validation
        last = self.epoch == config.optimisation.epochs
        if self._validation is None or (self.epoch % budget.every and not last):
            return {}
        settings = config.evaluation.model_copy(
            update={"queries": budget.queries, "steps": budget.steps, "bootstrap": 0}
        )
        result = evaluate(
            self.model,
            self._validation,
            settings,
            image_size=config.data.image_size,
            seed=config.seed,
            device=self.device,
        )
        return result.scores()

    def _ailment(self, *latest: dict[str, float]) -> tuple[Ailment, str] | None:
        epochs = [*(record.diagnostics for record in self.history), *latest]
        return ailment(self.config.health, epochs, self.config.optimisation.margin) if epochs else None

    def _save(self) -> None:
        if self.directory is None:
            return
        progress: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "steps_into_epoch": self._steps_into_epoch,
            "running": asdict(self._running),
            "history": [asdict(record) for record in self.history],
        }
        checkpoint = Checkpoint(
            weights=self.model.state_dict(),
            optimizer=self._optimizer.state_dict(),
            defense=self._defense.state_dict(),
            progress=progress,
            config_digest=config_digest(self.config),
        )
        save_checkpoint(checkpoint, self.directory / "checkpoints")
        lines = "".join(json.dumps(asdict(record)) + "\n" for record in self.history)
        write_atomically(self.directory / "history.jsonl", lines.encode())

    def _resume(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.weights)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._defense.load_state_dict(checkpoint.defense)
        progress = checkpoint.progress
        self.epoch, self.step = progress["epoch"], progress["step"]
        self._steps_into_epoch = progress["steps_into_epoch"]
        self._running = _RunningMeans(**_to_device(progress["running"], self.device))
        self.history = [EpochRecord(**record) for record in progress["history"]]


def _checkpoint_of(config: RunConfig, directory: Path | None) -> Checkpoint | None:
    checkpoint = None if directory is None else load_newest(directory / "checkpoints")
    if checkpoint is not None and checkpoint.config_digest != config_digest(config):
        raise CheckpointError(
            f"run {directory} was made with another configuration; resume it with --config {directory}/config.yaml, "
            "or choose another folder"
        )
    return checkpoint


def recipe_of(config: RunConfig) -> Recipe:
    """What a defense needs of a run's configuration."""
    optimisation = config.optimisation
    return Recipe(
        pgd=config.pgd,
        margin=optimisation.margin,
        miner=optimisation.miner,
        collapseness=config.collapseness,
        metric=optimisation.metric,
        loss=optimisation.loss,
    )


def config_digest(config: RunConfig) -> str:
    """Digest of what decides a run's numbers: the configuration, except the folder in which the data lies."""
    text = config.model_dump_json(exclude={"data": {"root"}})
    return hashlib.sha256(text.encode()).hexdigest()


def save_summary(outcome: Outcome, directory: Path) -> None:
    """Write how a run ended as `summary.json` into its folder, atomically."""
    summary = {
        "status": outcome.status,
        "reason": outcome.reason,
        "epochs": len(outcome.history),
        "collapsed_at": outcome.collapsed_at,
        "seconds": sum(record.seconds for record in outcome.history),
        "last": asdict(outcome.history[-1]) if outcome.history else None,
    }
    write_atomically(directory / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _to_device(item, device) for name, item in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value
