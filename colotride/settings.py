"""The base of every configuration section.

Each layer keeps its own section beside the code that uses it (`PGDSettings` in `pgd.py`, ...); `config.py` puts the
sections together into one `RunConfig`.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict


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


def number_range(text: str) -> tuple[int, int]:
    """The whole numbers that a text such as "3" or "3:12" stands for, both at least 1.

    Raises:
        ValueError: neither a number nor a range that goes up.
    """
    least, colon, most = text.partition(":")
    if not (least.isdecimal() and (most.isdecimal() or not colon)):
        raise ValueError("should be a number such as 3, or a range such as 3:12")
    low, high = int(least), int(most or least)
    if low < 1:
        raise ValueError("should be greater than or equal to 1")
    if high < low:
        raise ValueError(f"should be a range that goes up, such as {high}:{low}")
    return low, high


def _checked_range(text: str) -> str:
    number_range(text)
    return text


NumberRange = Annotated[
    str, BeforeValidator(lambda given: str(given) if isinstance(given, int) else given), AfterValidator(_checked_range)
]
"""A whole number above 0, or a range of them: 3, or 3:12."""
