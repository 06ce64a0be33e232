"""ColoTride: collapse-oriented adversarial training with triplet decoupling for robust image retrieval.

    import colotride as ct

    run = ct.train("digits", directory="runs/first")
    result = ct.evaluate(run, queries=200)

Names are imported when they are used, so that `import colotride` itself takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colotride.api import Budget, Index, Run, evaluate, interpolate, load, perturb, search, tournament, train
    from colotride.config import RunConfig, load_config, save_config
    from colotride.defenses import DefenseSettings, Perturbation, TripletDefense
    from colotride.defenses.act import Act
    from colotride.defenses.assist import Assist
    from colotride.defenses.colo_tride import ColoTride, RelativeColoTride
    from colotride.defenses.est import Est
    from colotride.defenses.hardness_manipulation import HardnessManipulation
    from colotride.defenses.naive import Naive, NaiveTride
    from colotride.defenses.natural import Natural
    from colotride.embedder import Embedder
    from colotride.errors import ColoTrideError
    from colotride.evaluation.results import Evaluation
    from colotride.presets import preset
    from colotride.registry import (
        load_plugin,
        register_attack,
        register_dataset,
        register_defense,
        register_loss,
        register_miner,
    )

__version__ = "0.1.0"

_HOMES = {
    "colotride.api": (
        "Budget",
        "Index",
        "Run",
        "evaluate",
        "interpolate",
        "load",
        "perturb",
        "search",
        "tournament",
        "train",
    ),
    "colotride.config": ("RunConfig", "load_config", "save_config"),
    "colotride.defenses": ("DefenseSettings", "Perturbation", "TripletDefense"),
    "colotride.defenses.act": ("Act",),
    "colotride.defenses.assist": ("Assist",),
    "colotride.defenses.colo_tride": ("ColoTride", "RelativeColoTride"),
    "colotride.defenses.est": ("Est",),
    "colotride.defenses.hardness_manipulation": ("HardnessManipulation",),
    "colotride.defenses.naive": ("Naive", "NaiveTride"),
    "colotride.defenses.natural": ("Natural",),
    "colotride.embedder": ("Embedder",),
    "colotride.errors": ("ColoTrideError",),
    "colotride.evaluation.results": ("Evaluation",),
    "colotride.presets": ("preset",),
    "colotride.registry": (
        "load_plugin",
        "register_attack",
        "register_dataset",
        "register_defense",
        "register_loss",
        "register_miner",
    ),
}

__all__ = [
    "Act",
    "Assist",
    "Budget",
    "ColoTride",
    "ColoTrideError",
    "DefenseSettings",
    "Embedder",
    "Est",
    "Evaluation",
    "HardnessManipulation",
    "Index",
    "Naive",
    "NaiveTride",
    "Natural",
    "Perturbation",
    "RelativeColoTride",
    "Run",
    "RunConfig",
    "TripletDefense",
    "__version__",
    "evaluate",
    "interpolate",
    "load",
    "load_config",
    "load_plugin",
    "perturb",
    "preset",
    "register_attack",
    "register_dataset",
    "register_defense",
    "register_loss",
    "register_miner",
    "save_config",
    "search",
    "tournament",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'colotride' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
