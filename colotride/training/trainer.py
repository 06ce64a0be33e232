"""The trainer: epochs of batches, validation, health checks, and exact resume. Pure PyTorch."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from colotride.config import RunConfig
from colotride.data.augmentation import TrainingCrops
from colotride.data.base import ImageSet
from colotride.data.prefetch import prefetched
from colotride.data.sampling import pair_batches
from colotride.defenses import Batch, DefenseContext, StepInfo, build_defense
from colotride.distributed.shards import SINGLE_PROCESS, ProcessGroup, Shard
from colotride.errors import ConfigurationError
from colotride.evaluation.chunks import in_group
from colotride.evaluation.evaluator import evaluate
from colotride.models import build_model
from colotride.randomness import derive_seed, generator
from colotride.training.adaptive_steps import AdaptiveSteps
from colotride.training.averaging import WeightAverage
from colotride.training.checkpoint import Checkpoint
from colotride.training.health import FailureKind, failure_of
from colotride.training.optimizer import build_optimizer, learning_rate_factor
from colotride.training.records import EpochRecord, Outcome, RunningMeans, Status
from colotride.training.run_directory import CheckpointPolicy, RunDirectory, config_digest

ONCE_PER_EPOCH = CheckpointPolicy()


def check_group(config: RunConfig, processes: int) -> None:
    """Refuse more processes than a batch has pairs.

    Raises:
        ConfigurationError: with both numbers.
    """
    pairs = min(config.data.pairs_per_batch, config.data.pairs_per_epoch or config.data.pairs_per_batch)
    if pairs < processes:
        raise ConfigurationError(
            f"{processes} workers cannot share a batch of {pairs} pairs; use fewer, or raise data.pairs_per_batch"
        )


class Trainer:
    """One run: its model, optimiser and defense, and its progress.

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
        checkpoint_policy: CheckpointPolicy = ONCE_PER_EPOCH,
        group: ProcessGroup = SINGLE_PROCESS,
        backbone: nn.Module | None = None,
    ) -> None:
        """Build a run, and continue from its newest whole checkpoint where there is one.

        Args:
            config: everything that decides the numbers.
            train: images to train on.
            validation: held-out images, evaluated while training, or None.
            device: where to compute.
            directory: the run's folder; None keeps nothing. Only the process of rank 0 of a group reads and writes it.
            checkpoint_policy: how often it is written.
            group: the processes that train together, each of which builds the same run.
            backbone: the network itself, where `config.model.architecture` only names its class.

        Raises:
            CheckpointError: the folder belongs to another configuration, or none of its checkpoints is whole.
            ConfigurationError: a batch has fewer pairs than the group has processes.
            ModelError, DataError: the model or the batches cannot be built.
        """
        check_group(config, group.size)
        self.config, self.device, self._group = config, device, group
        self._train, self._validation = train, validation
        self._directory = (
            None if directory is None or group.rank > 0 else RunDirectory(directory, config, checkpoint_policy)
        )
        checkpoint = group.broadcast(None if self._directory is None else self._directory.open())
        # A checkpoint overwrites every weight: starting from downloaded ones would need the network for nothing.
        start = config.model if checkpoint is None else config.model.untrained()
        self.model = build_model(
            start,
            channels=train.pixels(torch.zeros(1, dtype=torch.int64)).shape[1],
            image_size=config.data.image_size,
            seed=derive_seed(config.seed, "model"),
            backbone=backbone,
        ).to(device)
        self._optimizer = build_optimizer(self.model, config.training)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        decay = config.training.weight_average
        self._average = WeightAverage(self.model, decay) if decay else None
        self._defense = build_defense(config.defense, defense_context(config))
        self._steps = AdaptiveSteps(self._defense, config.pgd, config.seed)
        self.epoch, self.step, self.history = 0, 0, list[EpochRecord]()
        self._steps_into_epoch, self._running = 0, RunningMeans()
        if checkpoint is not None:
            self._resume(checkpoint)

    def run(
        self,
        on_epoch: Callable[[EpochRecord], None] | None = None,
        on_step: Callable[[int, int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        should_save: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Train until the last epoch, until the model has failed, or until the run is asked to stop.

        A checkpoint is written after every epoch and when asked to stop; the batch that comes next is the same as
        if the run had never stopped.

        Args:
            on_epoch: called with the record of every completed epoch.
            on_step: called with (epoch, batches done, batches) after every batch; the first epoch is 1.
            should_stop: called before every batch; true ends the run.
            should_save: called before every batch, in every process of a group; true writes a checkpoint.
        """
        config = self.config
        failure = self._failure()
        while failure is None and self.epoch < config.training.epochs:
            started = time.perf_counter()
            if not self._train_epoch(on_step, should_stop, should_save):
                self._save()
                return self._end("interrupted", f"stopped in epoch {self.epoch + 1}")
            self.epoch += 1
            diagnostics = self._running.means() | self._steps.diagnostics
            passes = sum(self._group.all_gather(self._running.passes))
            self._steps_into_epoch, self._running = 0, RunningMeans()
            failure = self._failure(diagnostics)
            validation = {} if failure else self._validate()
            seconds = time.perf_counter() - started
            record = EpochRecord(self.epoch, self.step, seconds, diagnostics, validation, passes)
            self.history.append(record)
            self._save()
            if on_epoch:
                on_epoch(record)
        return self._end(*(failure or ("finished", "")))

    def _end(self, status: Status, reason: str) -> Outcome:
        if self._average is not None and status != "interrupted":
            self._average.adopt()
        outcome = Outcome(status, reason, self.history)
        if self._directory is not None:
            self._directory.finish(outcome)
        return outcome

    def _train_epoch(
        self,
        on_step: Callable[[int, int, int], None] | None,
        should_stop: Callable[[], bool] | None,
        should_save: Callable[[], bool] | None,
    ) -> bool:
        config, data = self.config, self.config.data
        batches = pair_batches(self._train.labels, data.pairs_per_batch, data.pairs_per_epoch, config.seed, self.epoch)
        self.model.train()
        cuda = [self.device] if self.device.type == "cuda" else []
        remaining = batches[self._steps_into_epoch :]
        own = [pairs[Shard(len(pairs), self._group).own].T.flatten() for pairs in remaining]
        pixels = prefetched(self._train, own, self.device)
        with torch.random.fork_rng(devices=cuda), closing(pixels):
            for pairs in remaining:
                if self._group.any(should_stop is not None and should_stop(), self.device):
                    return False
                asked = should_save is not None and should_save()
                if asked or (self._directory is not None and self._directory.due()):
                    self._save()
                position = (self.epoch, self._steps_into_epoch)
                # Layers that draw from torch's global generator (dropout) must draw the same after a resume.
                torch.manual_seed(derive_seed(config.seed, "network", *position))
                done = (self.epoch + self._steps_into_epoch / len(batches)) / config.training.epochs
                self._set_learning_rate(learning_rate_factor(config.training.schedule, done))
                batch = self._batch(next(pixels), pairs, position)
                self._train_batch(batch, position)
                self._steps_into_epoch += 1
                self.step += 1
                if self._average is not None:
                    self._average.update(self.step)
                if on_step:
                    on_step(self.epoch + 1, self._steps_into_epoch, len(batches))
            passes_before = self.model.passes
            self._steps.end_epoch(self.model, batch, self._info())
            self._running.passes += self.model.passes - passes_before
        return True

    def _info(self) -> StepInfo:
        return StepInfo(self.epoch, self.config.training.epochs, self.step, self._steps.refinement)

    def _batch(self, pixels: Tensor, pairs: Tensor, position: tuple[int, int]) -> Batch:
        """The pairs of this process, and a way to read the other images that its triplets turn out to need."""
        data, indices = self.config.data, pairs.T.flatten()
        augmentation = generator(self.config.seed, "augmentation", *position)
        crops = TrainingCrops.draw(len(indices), data.image_size, data.flip, augmentation)
        own = torch.arange(len(pairs))[Shard(len(pairs), self._group).own]
        anchor, positive = crops(pixels, torch.cat([own, len(pairs) + own])).chunk(2)

        def read(places: Tensor) -> Tensor:
            return crops(self._train.pixels(indices[places]).to(self.device), places)

        labels = self._train.labels[pairs[:, 0]]
        return Batch(anchor, positive, labels, self._group, read if self._group.size > 1 else None)

    def _train_batch(self, batch: Batch, position: tuple[int, int]) -> None:
        passes_before = self.model.passes
        random = generator(self.config.seed, "mining", *position)
        loss, diagnostics = self._defense.batch_loss(self.model, batch, self._info(), random)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self._group.all_reduce_sum(gradients)
        norm = get_total_norm(gradients)
        self._optimizer.step()
        self._share_statistics()
        self._running.add({"loss": loss, **diagnostics}, norm, self.model.passes - passes_before)

    def _set_learning_rate(self, factor: float) -> None:
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def _share_statistics(self) -> None:
        """Make BatchNorm's running statistics the mean over the processes, where they are not frozen."""
        if self._group.size > 1 and not self.config.model.freeze_batchnorm:
            statistics = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
            self._group.all_reduce_sum(statistics)
            for buffer in statistics:
                buffer.div_(self._group.size)

    def _validate(self) -> dict[str, float]:
        config, budget = self.config, self.config.validation
        last = self.epoch == config.training.epochs
        if self._validation is None or (self.epoch % budget.every and not last):
            return {}
        queries, steps = budget.at(self.epoch, config.training.epochs, len(self._validation))
        settings = config.evaluation.model_copy(update={"queries": queries, "steps": steps, "bootstrap": 0})
        with self._averaged():
            result = evaluate(
                self.model,
                self._validation,
                settings,
                image_size=config.data.image_size,
                seed=config.seed,
                device=self.device,
                executor=None if self._group.size == 1 else in_group(self._group, self.model, self._validation),
            )
        return result.scores()

    def _averaged(self) -> AbstractContextManager[None]:
        """The weights that are validated and saved, during the block."""
        return nullcontext() if self._average is None else self._average.applied()

    def _failure(self, *latest: dict[str, float]) -> tuple[FailureKind, str] | None:
        epochs = [*(record.diagnostics for record in self.history), *latest]
        return failure_of(self.config.health, epochs, self.config.training.margin) if epochs else None

    def _save(self) -> None:
        if self._directory is None:
            return
        progress: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "steps_into_epoch": self._steps_into_epoch,
            "running": asdict(self._running),
            "refinement": self._steps.refinement,
            "history": [asdict(record) for record in self.history],
        }
        if self._average is not None:
            progress["live_weights"] = self._average.live_weights()
        with self._averaged():
            checkpoint = Checkpoint(
                weights=self.model.state_dict(),
                optimizer=self._optimizer.state_dict(),
                defense=self._defense.state_dict(),
                progress=progress,
                config_digest=config_digest(self.config),
            )
            self._directory.save(checkpoint, self.history)

    def _resume(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.weights)
        if self._average is not None:
            self._average.load(checkpoint.progress["live_weights"])
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._defense.load_state_dict(checkpoint.defense)
        progress = checkpoint.progress
        self.epoch, self.step = progress["epoch"], progress["step"]
        self._steps_into_epoch = progress["steps_into_epoch"]
        self._running = RunningMeans(**progress["running"]).to(self.device)
        self._steps.refinement = progress["refinement"]
        self.history = [EpochRecord(**record) for record in progress["history"]]


def defense_context(config: RunConfig) -> DefenseContext:
    """What a defense needs of a run's configuration."""
    training = config.training
    return DefenseContext(
        pgd=config.pgd,
        margin=training.margin,
        miner=training.miner,
        collapseness=config.collapseness,
        metric=training.metric,
        loss=training.loss,
        clean_weight=training.clean_weight,
        weight_perturbation=training.weight_perturbation,
    )
