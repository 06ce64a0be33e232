"""The base of every configuration section.

Each layer keeps its own section beside the code that uses it (`PGDSettings` in `pgd.py`, ...); `config.py` puts the
sections together into one `RunConfig`.
"""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Settings(BaseModel):
    """Frozen, validated values; unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )


def fraction(text: str) -> float:
    """The number that a text such as "8/255" or "0.03" stands for.

    Raises:
        ValueError: neither a number nor a number divided by another one that is not 0.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is neither a number nor a fraction such as 8/255") from None


def _parsed(value: object) -> object:
    return fraction(value) if isinstance(value, str) and "/" in value else value


Fraction = Annotated[float, BeforeValidator(_parsed)]
"""A number that may be written as a fraction, as the field writes perturbation sizes: 8/255."""
