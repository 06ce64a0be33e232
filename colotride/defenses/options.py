"""A defense from single options, for training loops outside ColoTride."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from colotride.defenses.triplets import CollapsenessSettings, DefenseContext, DefenseSettings
from colotride.errors import ConfigurationError
from colotride.pgd_settings import PGDSettings
from colotride.settings import Settings
from colotride.training.optimizer import TrainingSettings

S = TypeVar("S", bound=DefenseSettings)
Section = TypeVar("Section", bound=Settings)

FROM_TRAINING = ("margin", "miner", "metric", "loss", "clean_weight", "weight_perturbation")
"""The fields of `TrainingSettings` that a defense uses; the others are the training loop's."""


def parts_from_options(kind: type[S], options: Mapping[str, Any]) -> tuple[S, DefenseContext]:
    """Settings and context of a defense from flat options, on top of what its authors recommend.

    Args:
        kind: the defense's settings.
        options: by the names of the fields, each of which belongs to one section only.

    Raises:
        ConfigurationError: an unknown option, or values out of range, in one line.
    """
    sections: dict[str, dict[str, Any]] = {"defense": {}, "pgd": {}, "collapseness": {}, "training": {}}
    fields = {name: "defense" for name in kind.model_fields if name != "name"}
    fields |= dict.fromkeys(PGDSettings.model_fields, "pgd")
    fields |= dict.fromkeys(CollapsenessSettings.model_fields, "collapseness")
    fields |= dict.fromkeys(FROM_TRAINING, "training")
    for path, value in kind.recommended.items():
        section, _, name = path.partition(".")
        if fields.get(name) == section:
            sections[section][name] = value
    for name, value in options.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigurationError(f"unknown option {name}{meant}; there are {', '.join(fields)}")
        sections[fields[name]][name] = value
    training = _section(TrainingSettings, sections["training"])
    context = DefenseContext(
        pgd=_section(PGDSettings, sections["pgd"]),
        margin=training.margin,
        miner=training.miner,
        collapseness=_section(CollapsenessSettings, sections["collapseness"]),
        metric=training.metric,
        loss=training.loss,
        clean_weight=training.clean_weight,
        weight_perturbation=training.weight_perturbation,
    )
    return _section(kind, sections["defense"]), context


def _section(kind: type[Section], values: Mapping[str, Any]) -> Section:
    try:
        return kind(**values)
    except ValidationError as error:
        lines = (f"{one['loc'][0]} = {one['input']!r}: {one['msg']}" for one in error.errors(include_url=False))
        raise ConfigurationError("; ".join(lines)) from None
