"""A run's folder while it trains: configuration, checkpoints, history and summary, and when they are written."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from colotride.config import RunConfig, save_config
from colotride.errors import CheckpointError, ConfigurationError
from colotride.io import write_atomically
from colotride.training.checkpoint import CHECKPOINTS, Checkpoint, load_newest, save_checkpoint
from colotride.training.records import EpochRecord, Outcome
from colotride.training.remote_copy import RemoteCopy

CONFIG, HISTORY, SUMMARY = "config.yaml", "history.jsonl", "summary.json"

PUBLISHED = "published.json"
"""Marks the folder of a published run, which has the weights of its end beside it instead of checkpoints."""


@dataclass(frozen=True)
class CheckpointPolicy:
    """How checkpoints are kept; none of this changes a run's numbers."""

    minutes: float | None = None
    """Minutes after which a checkpoint is due within an epoch; None writes one per epoch only."""
    checkpoints: int = 2
    """How many of the newest remain, at least 1."""
    storage: str | None = None
    """URI of a second copy of the folder; see `RemoteCopy`."""

    def __post_init__(self) -> None:
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigurationError(
                f"--checkpoint-minutes {self.minutes:g} is not above 0; leave it out for one per epoch"
            )
        if self.checkpoints < 1:
            raise ConfigurationError(
                f"--keep-checkpoints {self.checkpoints} keeps nothing to resume from; give 1 or more"
            )


class RunDirectory:
    """Reads and writes one run's folder, and its second copy where there is one."""

    def __init__(self, path: Path, config: RunConfig, checkpoint_policy: CheckpointPolicy) -> None:
        """Manage a folder; nothing is written yet.

        Raises:
            ConfigurationError: the URI of the second copy is not valid.
        """
        self.path, self._config, self._policy = path, config, checkpoint_policy
        self._remote = None if checkpoint_policy.storage is None else RemoteCopy(checkpoint_policy.storage)
        self._written = time.monotonic()

    def open(self) -> Checkpoint | None:
        """The newest whole checkpoint of a run that has begun; otherwise begin one and return None.

        Raises:
            CheckpointError: the folder belongs to another configuration or holds a published model, or none of its
                checkpoints is whole.
        """
        if self._remote is not None:
            self._remote.pull(self.path)
        checkpoint = load_newest(self.path / CHECKPOINTS)
        if checkpoint is None and (self.path / PUBLISHED).is_file():
            raise CheckpointError(
                f"{self.path} holds a finished model, whose training cannot go on; choose another folder"
            )
        if checkpoint is None:
            save_config(self._config, self.path / CONFIG)
        elif checkpoint.config_digest != config_digest(self._config):
            raise CheckpointError(
                f"run {self.path} was made with another configuration; resume it with --config {self.path}/{CONFIG}, "
                "or choose another folder"
            )
        return checkpoint

    def due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch."""
        minutes = self._policy.minutes
        return minutes is not None and time.monotonic() - self._written >= 60 * minutes

    def save(self, checkpoint: Checkpoint, history: Sequence[EpochRecord]) -> None:
        """Write a checkpoint and the history so far.

        Raises:
            StorageError: the disk is full; older checkpoints are untouched.
            CheckpointError: the second copy is out of reach.
        """
        save_checkpoint(checkpoint, self.path / CHECKPOINTS, self._policy.checkpoints)
        lines = "".join(json.dumps(asdict(record)) + "\n" for record in history)
        write_atomically(self.path / HISTORY, lines.encode())
        if self._remote is not None:
            self._remote.push(self.path, (CONFIG, HISTORY))
        self._written = time.monotonic()

    def finish(self, outcome: Outcome) -> None:
        """Write how the run ended."""
        save_summary(outcome, self.path)
        if self._remote is not None:
            self._remote.push(self.path, (CONFIG, HISTORY, SUMMARY))


def config_digest(config: RunConfig) -> str:
    """Digest of what decides a run's numbers: the configuration, except where data and weights lie.

    A file of weights is known by its own digest. Settings that have their defaults do not count, so that a later version
    with a new setting still knows the run; one whose default has changed does not.
    """
    named_by_content = {"weights"} if config.model.weights_sha256 is not None else set[str]()
    changed = config.model_dump_json(exclude={"data": {"root"}, "model": named_by_content}, exclude_defaults=True)
    # The names belong to the defaults of their own sections.
    text = f"{config.data.name} {config.defense.name} {changed}"
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
    write_atomically(directory / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
