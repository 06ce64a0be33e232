"""A record: one evaluated model, with everything that says which other numbers it may stand beside."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from colotride.config import RunConfig
from colotride.documents import read_json
from colotride.embedder import Embedder
from colotride.errors import CheckpointError, DataError
from colotride.evaluation.record import EvaluationRecord
from colotride.evaluation.results import RESULT
from colotride.evaluation.scores import ATTACK_COLUMNS, RESISTANCE_COLUMNS, Resistance
from colotride.evaluation.settings import Protocol
from colotride.io import write_atomically
from colotride.models import EmbeddingModel
from colotride.pgd_settings import Norm
from colotride.training.runs import load_run, origin_of

SUFFIX = ".json"

Text = Annotated[str, Field(min_length=1, max_length=300)]
Score = Annotated[FiniteFloat, Field(ge=-200, le=200)]
"""A percentage or a rank; TMA is a cosine and ES:D a distance. A resistance of the `published` protocol, which is not
clipped, leaves 0..100 where an attack moved ranks the wrong way."""


class Record(BaseModel):
    """One model and its scores. Only records of one `group` are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["colotride record 1"] = "colotride record 1"
    model: Text
    """What to call it."""
    network: Text
    dataset: Text
    norm: Norm
    epsilon: Annotated[FiniteFloat, Field(ge=0)]
    protocol: Protocol
    resistance_definition: Resistance
    steps: Annotated[int, Field(ge=1)]
    step_size: Annotated[FiniteFloat, Field(ge=0)]
    queries: Annotated[int, Field(ge=1)] | None
    """Images attacked by each attack; None where a paper does not say."""
    seed: int | None
    """Of the queries and targets; None for published numbers."""
    benign: dict[str, Score]
    attacked: dict[str, Score]
    resistance: dict[str, Score]
    """Parts of ARS."""
    ERS: Score | None
    ARS: Score | None
    intervals: dict[str, tuple[FiniteFloat, FiniteFloat]] = {}
    """95 % intervals by the name of the score."""
    origin: Literal["measured", "published"]
    provenance: Text
    """Of published numbers, the table; of measured ones, how the model was trained."""
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Of the weights and the preprocessing, SHA-256; every measured record has one."""
    version: Text | None = None
    """Of ColoTride that measured it."""
    authors: Annotated[str, Field(max_length=300)] = ""
    link: Annotated[str, Field(max_length=300, pattern="^(https?://[^\\s]+)?$")] = ""
    """Where the checkpoint and its licence are."""

    @model_validator(mode="after")
    def _can_be_checked(self) -> "Record":
        if self.origin == "measured" and (self.digest is None or self.seed is None or self.queries is None):
            raise ValueError("a measured record needs digest, seed and queries, so that it can be checked")
        return self

    @property
    def group(self) -> tuple[str, str, float, str, str]:
        """Data set, norm, epsilon, protocol and definition of ARS: what must agree."""
        return (self.dataset, self.norm, round(self.epsilon, 6), self.protocol, self.resistance_definition)

    def scores(self) -> dict[str, float]:
        """Every score by its name in the paper's tables; resistances are named `ARS CA+`, ..."""
        totals = {name: value for name, value in (("ERS", self.ERS), ("ARS", self.ARS)) if value is not None}
        return {
            **self.benign,
            **self.attacked,
            **{f"ARS {name}": one for name, one in self.resistance.items()},
            **totals,
        }


def record_of(run: Path, *, model: str, provenance: str | None = None, authors: str = "", link: str = "") -> Record:
    """The record of a run that was evaluated: what a submission sends in. Extra attacks are left out.

    Args:
        run: the run's folder, with the results that `colotride evaluate` wrote there.
        model: what to call it.
        provenance: how it was trained; None for the defense, the epochs and the seed.
        authors: whose it is.
        link: where the checkpoint can be fetched.

    Raises:
        CheckpointError: the folder holds no run, or no evaluation.
        DataError: the evaluation cannot be read, or is not one that can be compared.
    """
    config, network = load_run(run)
    path = run / "evaluation" / RESULT
    if not path.is_file():
        raise CheckpointError(f"{run} was not evaluated yet; do so with colotride evaluate --model {run}")
    try:
        found = EvaluationRecord.from_dict(read_json(path, "evaluation", DataError))
    except (TypeError, KeyError, AttributeError):
        raise DataError(f"evaluation {path} is not one of this version; evaluate the run again") from None
    trained = f"{config.defense.name}, {config.training.epochs} epochs, seed {config.seed}"
    made = origin_of(run)
    values = {
        "model": model,
        "network": config.model.architecture,
        "dataset": config.data.name,
        "norm": found.norm,
        "epsilon": found.epsilon,
        "protocol": found.protocol,
        "resistance_definition": found.resistance_definition,
        "steps": found.steps,
        "step_size": found.step_size,
        "queries": found.queries,
        "seed": found.seed,
        "benign": found.benign,
        "attacked": {name: found.attacked[name] for name in ATTACK_COLUMNS},
        "resistance": {name: found.resistance[name] for name in RESISTANCE_COLUMNS},
        "ERS": found.ERS,
        "ARS": found.ARS,
        "intervals": found.intervals,
        "origin": "measured",
        "provenance": provenance or (f"{made}; the second by {trained}" if made else trained),
        "digest": digest_of(config, network),
        "version": version("colotride"),
        "authors": authors,
        "link": link,
    }
    return _checked(values, path)


def digest_of(config: RunConfig, network: EmbeddingModel) -> str:
    """Digest of a run's weights and preprocessing; see `Embedder.digest`."""
    data = config.data
    return Embedder(
        network,
        image_size=data.image_size,
        stored_size=data.stored_size,
        channels=network.channels,
        device=torch.device("cpu"),
    ).digest()


def read_record(path: Path) -> Record:
    """Read a record from a file.

    Raises:
        DataError: the file cannot be read, or is not a record; the message names file and field.
    """
    return _checked(read_json(path, "record", DataError), path)


def read_records(folder: Path) -> list[Record]:
    """The records of a folder and its subfolders, by path.

    Raises:
        DataError: no such folder, no record in it, or one that is not a record.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; give one that holds records, which colotride leaderboard record makes"
        )
    paths = sorted(path for path in folder.rglob(f"*{SUFFIX}") if path.is_file())
    if not paths:
        raise DataError(f"{folder} holds no records (*{SUFFIX}); make one with colotride leaderboard record RUN")
    return [read_record(path) for path in paths]


def write_record(path: Path, record: Record) -> None:
    """Write a record, atomically."""
    write_atomically(path, (record.model_dump_json(indent=2) + "\n").encode())


def _checked(values: object, path: Path) -> Record:
    try:
        return Record.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise DataError(
            f"record {path}: {f'{where}: ' if where else ''}{message}; see docs/how-to/leaderboard.md"
        ) from None
