"""What scores, settings and data sets are called in MLflow: the same in every run, trial and verdict."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from colotride.config import RunConfig
from colotride.errors import ConfigurationError
from colotride.presets import preset
from colotride.training.records import EpochRecord

EXPERIMENT = "colotride"

DESCRIPTION_TAG = "mlflow.note.content"
"""What MLflow shows as the description of an experiment or a run."""

CONFIG_FILE = "config.yaml"
"""The artifact that holds a run's whole configuration."""

ALL_RUNS = "scores"
"""The saved view of the experiment that shows the scores of all runs; part of its address."""

SUMMARY = ("ARS", "ERS", "R@1", "mAP")
"""Scores by which runs are compared. MLflow's page of a comparison begins with the first metric that was recorded."""

DESCRIPTION = """\
Runs of ColoTride. The whole configuration of each is its artifact `config.yaml`; parameters are what sets it apart.

| metric | what it is |
|---|---|
| `test/ARS`, `test/ERS`, `test/R_at_1`, ... | scores on the test classes |
| `val/ARS`, ... | scores of a run that was trained to its end, on classes held out from training |
| `val_epoch/ARS`, ... | the same after every epoch; early ones may be measured with fewer queries and steps |
| `train/loss`, ... | means over the batches of every epoch |
"""


def metric_name(name: str) -> str:
    """A score's name in letters that MLflow allows: `R@1` becomes `R_at_1`, `CA+` `CA_plus`, `ES:D` `ES_D`."""
    spelled = name.replace("@", "_at_").replace("+", "_plus").replace(":", "_").replace(" ", "_")
    return spelled[:-1] + "_minus" if spelled.endswith("-") else spelled


def val_metrics(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores on the held-out classes at the end of training: `val/ARS`, `val/ERS`, `val/R_at_1`, `val/mAP`."""
    return {f"val/{metric_name(name)}": scores[name] for name in SUMMARY if name in scores}


def test_metrics(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores on the test side: `test/ARS`, `test/ERS`, `test/R_at_1`, ..."""
    return {f"test/{metric_name(name)}": scores[name] for name in _summary_first(scores)}


def epoch_metrics(record: EpochRecord) -> dict[str, float]:
    """One epoch's curves: `val_epoch/ARS`, ..., `train/loss`, `train/collapseness`, ..., its seconds and its cost."""
    scores = {f"val_epoch/{metric_name(name)}": record.validation[name] for name in _summary_first(record.validation)}
    train = {f"train/{metric_name(name)}": value for name, value in record.diagnostics.items()}
    return {**scores, **train, "seconds_per_epoch": record.seconds, "passes_per_epoch": float(record.passes)}


def _summary_first(scores: Mapping[str, float]) -> list[str]:
    return [*(name for name in SUMMARY if name in scores), *(name for name in scores if name not in SUMMARY)]


def run_parameters(config: RunConfig) -> dict[str, str]:
    """What sets a run apart: data set, defense, seed, and every setting that is not the preset's of its data set."""
    try:
        usual = preset(config.data.name)
    except ConfigurationError:
        # A user's own data set has no preset.
        usual = preset("folder")
    if usual.defense.name != config.defense.name:
        usual = usual.model_copy(update={"defense": type(config.defense).model_construct()})
    before = flat_settings(usual)
    apart = {name: value for name, value in flat_settings(config).items() if before.get(name) != value}
    for name in ("data.name", "data.root", "defense.name", "seed"):
        apart.pop(name, None)
    return {"dataset": config.data.name, "defense": config.defense.name, "seed": str(config.seed), **apart}


def flat_settings(config: RunConfig) -> dict[str, str]:
    """Every setting of a run under its dotted name ("pgd.steps"), as text."""
    flat: dict[str, str] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{path}.{name}" if path else name)
        else:
            flat[path] = parameter_text(value)

    walk(config.model_dump(mode="json"), "")
    return flat


def parameter_text(value: Any) -> str:
    """One value of a parameter, as text."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def run_tags(config: RunConfig, kind: str) -> dict[str, str]:
    """What runs are filtered by: data set, defense, seed, and what kind of run it is."""
    return {"dataset": config.data.name, "defense": config.defense.name, "seed": str(config.seed), "kind": kind}


def dataset_of(config: RunConfig) -> dict[str, Any]:
    """The data set of a run: its digest is that of the settings which decide the images and their parts."""
    settings = config.data.model_dump_json(exclude={"root"})
    return {
        "name": config.data.name,
        "digest": hashlib.sha256(settings.encode()).hexdigest()[:16],
        "source": str(config.data.root),
        "profile": config.data.model_dump(mode="json", include={"stored_size", "image_size", "hold_out_validation"}),
    }


def experiment_tags(milliseconds: int) -> dict[str, str]:
    """The experiment's description, its kind, and a saved view of all runs with the scores as columns.

    Args:
        milliseconds: since 1970, the time of creation.
    """
    return {
        DESCRIPTION_TAG: DESCRIPTION,
        "mlflow.experimentKind": "custom_model_development",
        **view_tag(ALL_RUNS, "ARS, ERS and R@1", "", milliseconds),
    }


def view_tag(view: str, name: str, wanted: str, milliseconds: int) -> dict[str, str]:
    """The tag of an experiment that holds a saved view of MLflow's pages: some runs, the best first, their scores as columns.

    Args:
        view: identifies it in addresses; see `page_of`.
        name: for people.
        wanted: which runs, in MLflow's language of filters; empty for all.
        milliseconds: since 1970, the time of creation.
    """
    names = [metric_name(name) for name in SUMMARY[:3]]
    columns = [f"metrics.`{side}/{name}`" for side in ("val", "test") for name in names]
    state = {
        "orderByKey": f"metrics.`val/{names[0]}`", "orderByAsc": False, "searchFilter": wanted, "startTime": "ALL",
        "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
        "selectedColumns": [*columns, "tags.`status`", "tags.`dataset`", "tags.`defense`"],
    }  # fmt: skip
    return {
        f"mlflow.sharedViewState.{view}": json.dumps(
            {"name": name, "createdAt": milliseconds, "state": json.dumps(state)}
        )
    }


def page_of(address: str, experiment: str, view: str = ALL_RUNS) -> str:
    """The address at which MLflow's pages show runs with their scores.

    MLflow 3 opens its pages for generative models unless the address asks for those of model training.

    Args:
        address: of the server, such as http://127.0.0.1:5000.
        experiment: MLflow's id of the experiment.
        view: which saved view.
    """
    return f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={view}"
