"""Which runs each table and figure of the paper needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from colotride.config import RunConfig
from colotride.errors import ConfigurationError
from colotride.presets import with_defense


@dataclass(frozen=True)
class Row:
    """One trained model of a table or one curve of a figure."""

    label: str
    """As the paper calls it."""
    defense: str
    """Name of the defense; it comes with its authors' settings."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted path that make the row."""

    @property
    def slug(self) -> str:
        """The label as part of a folder's name."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.label.lower()).strip("-")

    def configure(self, base: RunConfig, seed: int) -> RunConfig:
        """The run of this row, from the preset of a data set."""
        return with_defense(base, self.defense).with_values({**self.changes, "seed": seed})


NATURAL = Row("natural", "natural")
ACT = Row("ACT", "act")
HM = Row("HM", "hm")
NAIVE_SIP = Row("naive SIP", "naive")
NAIVE_CAP = Row("naive CAP", "naive-tride", {"defense.phases": "candidates"})
NAIVE_ANP = Row("naive ANP", "naive-tride", {"defense.phases": "anchor"})
NAIVE_TRIDE = Row("naive TRIDE", "naive-tride")
COLO_CAP = Row("COLO-CAP", "colo-tride", {"defense.phases": "candidates"})
COLO_ANP = Row("COLO-ANP", "colo-tride", {"defense.phases": "anchor"})
COLO_TRIDE = Row("COLO-TRIDE", "colo-tride")
COLO_TRIDE_FAR = Row("COLO-TRIDE far", "colo-tride", {"collapseness.weighting": "far"})
RELATIVE = Row("COLO-TRIDE, relative distances", "colo-tride-relative")
ASSIST_PART = Row("assist-part", "assist", {"defense.when": "collapsing"})
ASSIST_FULL = Row("assist-full", "assist", {"defense.when": "always"})
NOT_DISABLED = Row("COLO-TRIDE without early disabling", "colo-tride", {"defense.assist_disabled_fraction": 0.0})


def _readings() -> tuple[Row, ...]:
    """COLO-TRIDE under every reading of its weights, with and without the stop at C = 0, other lambdas, no ramp."""
    rows = [
        Row(
            f"{weighting}, {gradient}, {'stop' if stop else 'no stop'}",
            "colo-tride",
            {
                "collapseness.weighting": weighting,
                "collapseness.weight_gradient": gradient,
                "defense.stop_at": 0.0 if stop else None,
            },
        )
        for weighting in ("near", "far")
        for gradient in ("detached", "through")
        for stop in (True, False)
    ]
    rows += [
        Row(
            f"{weighting}, lambda {factor:g}",
            "colo-tride",
            {"collapseness.weighting": weighting, "collapseness.attention_factor": factor},
        )
        for factor in (0.0, 2.0, 30.0)
        for weighting in ("near", "far")
        if factor or weighting == "near"
    ]
    rows += [
        Row("near, full strength from the start", "colo-tride", {"pgd.ramp": "constant"}),
        Row(
            "far, full strength from the start", "colo-tride", {"pgd.ramp": "constant", "collapseness.weighting": "far"}
        ),
        Row("naive TRIDE, full strength from the start", "naive-tride", {"pgd.ramp": "constant"}),
    ]
    return tuple(rows)


AVERAGED = {"training.weight_average": 0.99}
COSINE = {"training.schedule": "cosine"}
FULL_STRENGTH = {"pgd.ramp": "constant"}

IMPROVEMENTS = (
    ACT,
    Row("ACT, averaged weights", "act", AVERAGED),
    Row("ACT, relative distances", "act", {"training.loss": "relative-triplet", "training.margin": 0.4}),
    COLO_TRIDE,
    RELATIVE,
    Row("COLO-TRIDE, clean weight 0.3", "colo-tride", {"training.clean_weight": 0.3}),
    Row("COLO-TRIDE, attention to hard triplets", "colo-tride", {"collapseness.weighting": "hard"}),
    Row("COLO-TRIDE, averaged weights", "colo-tride", AVERAGED),
    Row("COLO-TRIDE, cosine schedule", "colo-tride", COSINE),
    Row("COLO-TRIDE, full strength from the start", "colo-tride", FULL_STRENGTH),
    Row("COLO-TRIDE, no stop", "colo-tride", {"defense.stop_at": None}),
    Row("COLO-TRIDE, released top-ranked term", "colo-tride", {"defense.anchor_hardness_term": "released"}),
    Row("COLO-TRIDE, full strength, averaged", "colo-tride", {**FULL_STRENGTH, **AVERAGED}),
    Row("COLO-TRIDE, full strength, averaged, no stop", "colo-tride",
        {**FULL_STRENGTH, **AVERAGED, "defense.stop_at": None}),
)  # fmt: skip
"""What might make COLO-TRIDE more robust, one by one and together; ACT with the same averaging beside it."""

EXPERIMENTS: Mapping[str, tuple[Row, ...]] = {
    "table1": (NATURAL, ACT, HM, COLO_TRIDE),
    "table2": (NATURAL, ACT, HM, COLO_TRIDE),
    "table3": (NAIVE_CAP, NAIVE_ANP, NAIVE_TRIDE, COLO_ANP, COLO_CAP, COLO_TRIDE),
    "table4": (NATURAL, ASSIST_PART, ASSIST_FULL, NOT_DISABLED, COLO_TRIDE),
    "figure3": (NATURAL, NAIVE_SIP, COLO_CAP, COLO_ANP),
    "figure4": (NAIVE_SIP, COLO_CAP, COLO_ANP),
    "evidence": (
        NATURAL, ACT, HM, NAIVE_SIP, NAIVE_CAP, COLO_CAP, COLO_ANP, COLO_TRIDE, COLO_TRIDE_FAR, RELATIVE
    ),
    "readings": _readings(),
    "improvements": IMPROVEMENTS,
}  # fmt: skip
"""Rows by the name of the table or figure; `evidence` puts all kinds of defenses into one table, `readings` compares the
readings of COLO-TRIDE's disputed formulas, `improvements` what might make it more robust."""


def rows_of(what: str) -> tuple[Row, ...]:
    """The rows of a table or figure.

    Raises:
        ConfigurationError: no such table or figure.
    """
    if what not in EXPERIMENTS:
        raise ConfigurationError(f"nothing is called {what!r}; there are {', '.join(EXPERIMENTS)} and appendix-a")
    return EXPERIMENTS[what]
