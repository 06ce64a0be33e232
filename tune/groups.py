"""What a search knows how to vary: the paper's open values, and groups of others that are switched on by name.

Conditions are given by dotted path; `build_space` holds them against the run and against what else is varied.
"""

from collections.abc import Mapping
from typing import get_args

from colotride.config import RunConfig
from colotride.defenses import DEFENSES
from colotride.defenses.anchor import HardnessTerm
from colotride.defenses.colo_tride import Phases
from colotride.geometry import WeightGradient, Weighting
from colotride.registry import MINERS
from colotride.tune.parameters import Above, AnyParameter, Choice, Condition, Continuous, Integer

PERTURBS: dict[str, Condition] = {"defense.name": tuple(name for name in DEFENSES if name != "natural")}
"""The defenses for which a PGD schedule means something."""

GUIDED: dict[str, Condition] = {"defense.name": ("colo-tride", "assist"), "defense.when": ("collapsing",)}
"""The defenses that follow collapseness; for the others it is a diagnostic."""

ANCHOR_MOVES: dict[str, Condition] = {"defense.phases": ("alternate", "anchor")}
"""The top-ranked triplet belongs to ANP batches (Eq. 9)."""

WEIGHTED: dict[str, Condition] = GUIDED | {"collapseness.attention_factor": Above(above=0)}
"""At lambda = 0 all weights are equal, whichever end they favour."""


def default_parameters() -> tuple[AnyParameter, ...]:
    """The paper's open values: attention factor, top-ranked coefficient, early disabling, and the PGD schedule."""
    return (
        Continuous(
            name="attention_factor",
            label="λ",
            path="collapseness.attention_factor",
            low=0.5,
            high=50.0,
            log=True,
            only_if=GUIDED,
        ),
        Continuous(
            name="top_ranked_coefficient",
            label="η",
            path="defense.top_ranked_coefficient",
            low=0.0,
            high=1.5,
            only_if=ANCHOR_MOVES,
        ),
        Continuous(
            name="assist_disabled_fraction", label="off", path="defense.assist_disabled_fraction", low=0.0, high=1.0
        ),
        Integer(name="pgd_steps", label="steps", path="pgd.steps", low=2, high=32, log=True, only_if=PERTURBS),
        Continuous(
            name="step_size_over_epsilon",
            label="α/ε",
            path="pgd.step_size",
            relative_to="pgd.epsilon",
            low=0.02,
            high=0.5,
            log=True,
            only_if=PERTURBS,
        ),
        Choice(name="ramp", label="ramp", path="pgd.ramp", values=("linear", "cosine", "constant"), only_if=PERTURBS),
        Continuous(
            name="ramp_length",
            label="len",
            path="pgd.ramp_length",
            low=0.1,
            high=1.0,
            only_if=PERTURBS | {"pgd.ramp": ("linear", "cosine")},
        ),
    )


def optional_groups(base: RunConfig) -> Mapping[str, tuple[AnyParameter, ...]]:
    """Groups that are switched on by name.

    Args:
        base: of the search; the learning rate is varied around its own.
    """
    rate = base.training.learning_rate
    return {
        "margins": (
            Continuous(name="margin", label="margin", path="training.margin", low=0.05, high=0.5, log=True),
            Continuous(
                name="top_ranked_margin",
                label="margin_top",
                path="defense.top_ranked_margin",
                low=0.0,
                high=0.2,
                only_if=ANCHOR_MOVES | {"defense.top_ranked_coefficient": Above(above=0)},
            ),
        ),
        "learning-rate": (
            Continuous(
                name="learning_rate",
                label="lr",
                path="training.learning_rate",
                low=rate / 10,
                high=rate * 10,
                log=True,
            ),
        ),
        "weighting": (
            Choice(
                name="weighting",
                label="weights",
                path="collapseness.weighting",
                values=get_args(Weighting),
                only_if=WEIGHTED,
            ),
        ),
        "readings": (
            Choice(
                name="weight_gradient",
                label="gradient",
                path="collapseness.weight_gradient",
                values=get_args(WeightGradient),
                only_if=WEIGHTED,
            ),
            Choice(
                name="anchor_hardness_term",
                label="term",
                path="defense.anchor_hardness_term",
                values=get_args(HardnessTerm),
                only_if=ANCHOR_MOVES,
            ),
        ),
        "phases": (Choice(name="phases", label="phases", path="defense.phases", values=get_args(Phases)),),
        "mining": (Choice(name="miner", label="miner", path="training.miner", values=MINERS.names()),),
        "intra-class": (
            Continuous(
                name="intra_class_coefficient",
                label="λ_ics",
                path="defense.intra_class_coefficient",
                low=0.0,
                high=1.5,
            ),
        ),
    }
