"""A tabular benchmark of searches: configurations that were trained once, so that searches can be replayed on them.

Every configuration is drawn uniformly from a search's space, trained as a trial of that search would be, with its
validation after every epoch, and then as the verdict would: on all training classes, evaluated on the test classes. A
replayed search reads these numbers in milliseconds instead of training for minutes, as HPOBench (Eggensperger et al.,
2021) and LCBench (Zimmer et al., 2021) do for other models.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
from optuna.samplers import BaseSampler, RandomSampler

from colotride.config import RunConfig
from colotride.data.base import ImageSet, subset_of
from colotride.data.splits import load_splits
from colotride.errors import ColoTrideError, SearchError
from colotride.evaluation.evaluator import evaluate
from colotride.io import write_atomically
from colotride.presets import preset, with_data_root
from colotride.randomness import derive_seed
from colotride.training.run_directory import config_digest
from colotride.training.trainer import Trainer
from colotride.tune.plan import new_plan
from colotride.tune.records import LOST, SHOWN_SCORES
from scripts.benchmarks.resumable import measure_missing

VERSION = 1
"""Of the table's columns and of how its rows are measured."""

TABLES = Path(__file__).parent / "tables"
"""The tables that come with the project, `digits.parquet` among them."""

WIDE_EVERY = 3
"""Every third configuration is drawn over all groups too, the others over the space that is searched by default."""

TEST_QUERIES = {"digits": 256, "fashion-mnist": 64}
"""Images of the test classes that are attacked, by data set: most of a run's time goes into them."""

GALLERY_SHARES = {"fashion-mnist": 8}
"""One image in so many is searched in validations and tests, by data set: a gallery of 10,000 takes a run's whole time."""

SMALLER: Mapping[str, Mapping[str, Any]] = {
    "digits": {},
    "fashion-mnist": {
        "data.pairs_per_batch": 32,
        "data.pairs_per_epoch": 128,
        "pgd.steps": 8,
        "pgd.step_size": 6 / 255,
        "training.epochs": 8,
        "validation.queries": 24,
        "evaluation.steps": 16,
        "evaluation.step_size": 6 / 255,
    },
}
"""Settings with which a run of a data set takes seconds; its whole training set would take hours."""

DEFAULT_SEEDS = 5
"""The default configuration, with which every winner is compared, has this many times the seeds of the others."""

GROUPS = ("margins", "learning-rate", "weighting", "readings", "phases", "mining")
"""The groups that vary the method and its training; the two that train in other ways (robust-training and
cheap-perturbation) have measurements of their own."""

TEST, VALIDATION = "test ", "validation "
"""Begin the names of the columns with scores."""


@dataclass(frozen=True)
class Configuration:
    """One configuration of the table."""

    number: int
    """0 is the default configuration."""
    space: str
    """default or all: whether it was drawn from the space that is searched by default or over all groups."""
    values: dict[str, Any]
    config: RunConfig


def base_of(dataset: str) -> RunConfig:
    """The run whose configurations a data set's table holds."""
    return preset(dataset).with_values(SMALLER[dataset])


def configurations(dataset: str, count: int, data_root: str | None = None) -> list[Configuration]:
    """The first configurations of a data set's table, always the same ones.

    Args:
        dataset: one with a preset.
        count: how many, the default included.
        data_root: folder of the data sets.
    """
    base = with_data_root(base_of(dataset), data_root)
    plans = {"default": new_plan(base), "all": new_plan(base, groups=GROUPS)}
    found = []
    for number in range(count):
        name = "all" if number % WIDE_EVERY == WIDE_EVERY - 1 else "default"
        plan = plans[name]
        if number == 0:
            values = plan.initial_points[0]
        else:
            sampler = RandomSampler(seed=derive_seed(0, "table", number) % 2**32)
            values = plan.space.suggest(_study(sampler).ask())
        found.append(Configuration(number, name, values, plan.space.configure(plan.base, values)))
    return found


def _study(sampler: BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=sampler)


def measure(one: Configuration, seed: int) -> list[dict[str, Any]]:
    """Train and test one configuration; returns a row for each of its epochs.

    Args:
        one: the configuration.
        seed: of both trainings and of the attacks.

    Raises:
        SearchError: with the configuration and what went wrong.
    """
    try:
        return _measure(one, seed)
    except ColoTrideError as error:
        raise SearchError(f"configuration {one.number}, seed {seed}: {error}") from None


def _measure(one: Configuration, seed: int) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    config, device = one.config.with_values({"seed": seed}), torch.device("cpu")
    splits = load_splits(config.data)
    validation = None if splits.validation is None else thinned(splits.validation, config.data.name)
    outcome = Trainer(config, splits.train, validation, device=device).run()
    whole = config.with_values({"data.hold_out_validation": False})
    splits = load_splits(whole.data)
    trainer = Trainer(whole, splits.train, None, device=device)
    status, tested = trainer.run().status, dict.fromkeys(SHOWN_SCORES, 0.0)
    if status not in ("nan", "diverged"):
        size = whole.data.image_size
        settings = whole.evaluation.with_values({"queries": TEST_QUERIES[whole.data.name], "bootstrap": 0})
        test = thinned(splits.test, whole.data.name)
        result = evaluate(trainer.model, test, settings, image_size=size, seed=seed, device=device)
        tested = {name: result.scores()[name] for name in SHOWN_SCORES}
    known = {"configuration": one.number, "space": one.space, "seed": seed, "status": outcome.status, **one.values}
    return [
        {
            **known,
            "epoch": record.epoch,
            "passes": record.passes,
            "seconds": round(record.seconds, 3),
            **{VALIDATION + name: round(record.validation.get(name, 0.0), 4) for name in SHOWN_SCORES},
            **{TEST + name: round(value, 4) for name, value in tested.items()},
        }
        for record in outcome.history
    ]


def run_file(folder: Path, one: Configuration, seed: int) -> Path:
    """Where a run's rows are kept; runs of other settings, queries or galleries have other names and do not mix."""
    name = one.config.data.name
    text = f"{config_digest(one.config)} {TEST_QUERIES[name]} {GALLERY_SHARES.get(name, 1)}"
    return folder / f"{one.number:04d}-{seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"


def thinned(images: ImageSet, dataset: str) -> ImageSet:
    """Every eighth image of Fashion-MNIST, of other data sets all; see `GALLERY_SHARES`.

    Images of all classes follow each other in no order there, so that each class keeps its share.
    """
    share = GALLERY_SHARES.get(dataset, 1)
    return images if share == 1 else subset_of(images, torch.arange(0, len(images), share), images.name)


def measure_table(
    dataset: str,
    count: int,
    seeds: int,
    folder: Path,
    *,
    data_root: str | None = None,
    known: pd.DataFrame | None = None,
    processes: int = 1,
    on_run: Callable[[str], None] = lambda _: None,
) -> pd.DataFrame:
    """Measure what is missing of a table, and return the whole.

    Every run is a file of its own, so that an interrupted measurement goes on where it was.

    Args:
        dataset: one with a preset.
        count: configurations, the default included.
        seeds: how many, of each configuration; the default has `DEFAULT_SEEDS` times as many.
        folder: keeps the runs.
        data_root: folder of the data sets.
        known: a table whose runs are not measured again.
        processes: runs side by side, of one thread each.
        on_run: called with a line about how far it is.
    """
    there = set() if known is None else set(zip(known["configuration"], known["seed"], strict=True))
    drawn = configurations(dataset, count, data_root)
    wanted = {
        run_file(folder, one, seed): (one, seed)
        for one in drawn
        for seed in range(seeds * DEFAULT_SEEDS if one.number == 0 else seeds)
        if (one.number, seed) not in there
    }
    rows = pd.DataFrame([row for run in measure_missing(wanted, measure, processes, on_run) for row in run])
    parts = [part for part in (known, rows) if part is not None and len(part)]
    return pd.concat(parts).sort_values(["configuration", "seed", "epoch"], ignore_index=True)


def save_table(table: pd.DataFrame, dataset: str, path: Path) -> None:
    """Write a table as Parquet, with its version, its data set and the command that makes what it holds."""
    seeds = table.groupby("configuration")["seed"].nunique()
    command = (
        f"colotride benchmark table --dataset {dataset} --configurations {len(seeds)} --seeds {usual_seeds(table)}"
    )
    table = table.copy()
    table.attrs = {"version": VERSION, "dataset": dataset, "command": command}
    write_atomically(path, table.to_parquet(compression="zstd"))


def usual_seeds(table: pd.DataFrame) -> int:
    """With how many seeds most configurations were measured, the default left out."""
    seeds = table[table["configuration"] > 0].groupby("configuration")["seed"].nunique()
    return int(seeds.mode().max())


def load_table(path: Path, dataset: str) -> pd.DataFrame:
    """Read a table.

    Args:
        path: of the Parquet file.
        dataset: that it has to be of.

    Raises:
        SearchError: there is none, or it is of another version or data set.
    """
    again = f"`colotride benchmark table --dataset {dataset}`, which says where it puts it, and name it with --table"
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise SearchError(f"there is no table {path}; make one with {again}") from None
    except Exception as error:
        raise SearchError(f"{path} is no table ({' '.join(str(error).split())[:120]}); make one with {again}") from None
    version = table.attrs.get("version")
    if version != VERSION:
        raise SearchError(f"table {path} is of version {version}, not {VERSION}; make one with {again}")
    if table.attrs.get("dataset") != dataset:
        raise SearchError(f"table {path} is of {table.attrs.get('dataset')}, not {dataset}; give --dataset or --table")
    return table


def describe(table: pd.DataFrame) -> list[dict[str, Any]]:
    """How many configurations, runs and lost models there are, and the spread of the scores, by space."""
    last = table.groupby(["configuration", "seed"]).tail(1)
    rows = []
    for name, part in last.groupby("space"):
        by_configuration = part.groupby("configuration")
        rows.append(
            {
                "space": name,
                "configs": part["configuration"].nunique(),
                "runs": len(part),
                "lost": int(part["status"].isin(LOST).sum()),
                **{
                    f"{side} {what}": float(value)
                    for side, column in (("val", VALIDATION + "ARS"), ("test", TEST + "ARS"))
                    for what, value in (
                        ("median", by_configuration[column].mean().median()),
                        ("best", by_configuration[column].mean().max()),
                        ("noise", by_configuration[column].std().median()),
                    )
                },
            }
        )
    return rows
