"""How scores, settings and data sets are called wherever runs are compared: the same in every run, trial and verdict."""

import hashlib
from collections.abc import Mapping
from typing import Any

from colotride.config import RunConfig
from colotride.evaluation.scores import HEADLINE_SCORES
from colotride.training.records import EpochRecord

FINAL = HEADLINE_SCORES
"""Scores that stand under their plain names in every run that has them, so that Compare puts them side by side."""


def metric_name(name: str) -> str:
    """A score's name in letters that MLflow allows: `R@1` becomes `R_at_1`, `CA+` `CA_plus`, `ES:D` `ES_D`."""
    spelled = name.replace("@", "_at_").replace("+", "_plus").replace(":", "_").replace(" ", "_")
    return spelled[:-1] + "_minus" if spelled.endswith("-") else spelled


def final_metrics(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores by which runs are compared: `R_at_1`, `mAP`, `ERS`, `ARS`; of the test side where it was evaluated."""
    return {metric_name(name): scores[name] for name in FINAL if name in scores}


def epoch_metrics(record: EpochRecord) -> dict[str, float]:
    """One epoch's curves: `train/loss`, `train/collapseness`, ..., `validation/ARS`, ..., its seconds and its cost."""
    train = {f"train/{metric_name(name)}": value for name, value in record.diagnostics.items()}
    validation = {f"validation/{metric_name(name)}": value for name, value in record.validation.items()}
    return {**train, **validation, "seconds_per_epoch": record.seconds, "passes_per_epoch": float(record.passes)}


def test_metrics(scores: Mapping[str, float]) -> dict[str, float]:
    """Final scores on the test side: `test/ERS`, `test/ARS`, `test/R_at_1`, ..."""
    return {f"test/{metric_name(name)}": value for name, value in scores.items()}


def flat_parameters(config: RunConfig) -> dict[str, str]:
    """Every setting of a run under its dotted name ("pgd.steps"), as text."""
    flat: dict[str, str] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{path}.{name}" if path else name)
        else:
            flat[path] = short(value)

    walk(config.model_dump(mode="json"), "")
    return flat


def short(value: Any) -> str:
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
