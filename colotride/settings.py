"""The base of every configuration section.

Each layer keeps its own section beside the code that uses it (`PGDSettings` in `pgd.py`, ...); `config.py` puts the
sections together into one `RunConfig`.
"""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Settings(BaseModel):
    """Frozen, validated values; unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


def parse_fraction(value: object) -> object:
    """Turn "8/255" into 8 / 255; leave everything else to pydantic.

    Raises:
        ValueError: a text with a slash that is not one number divided by another one that is not 0.
    """
    if not isinstance(value, str) or "/" not in value:
        return value
    numerator, _, denominator = value.partition("/")
    try:
        return float(numerator) / float(denominator)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{value!r} is not a fraction such as 8/255") from error


Fraction = Annotated[float, BeforeValidator(parse_fraction)]
"""A number that may be written as a fraction, as the field writes perturbation sizes: 8/255."""
