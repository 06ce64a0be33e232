"""What may be measured beside the ten attacks, and what it may cost; without torch, so that `--help` appears at once."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from colotride.settings import Fraction, Settings

BlackBoxAttack = Literal["square", "nes", "qair", "transfer"]
Sigma = Annotated[Fraction, Field(gt=0)]
Radius = Annotated[Fraction, Field(ge=0)]


class StrengthSettings(Settings):
    """Which measurements are made beside the ten attacks, and what they may spend; none unless asked for."""

    black_box: tuple[BlackBoxAttack, ...] = ()
    """Attacks without gradients: square, nes, qair, or transfer, which needs a surrogate."""
    calls: int = Field(default=1000, ge=3)
    """Images per query that an attack without gradients may show to the model."""
    universal: bool = False
    """Whether to train one perturbation for all images."""
    poison: int | None = Field(default=None, ge=1)
    """Images inserted into the gallery; null for none."""
    certify: tuple[Sigma, ...] = ()
    """Standard deviations of the noise, in pixel units, for which R@1 is certified by randomised smoothing."""
    certify_radii: tuple[Radius, ...] = Field(default=(0.0, 0.1, 0.25, 0.5), min_length=1)
    """l2 lengths, in pixel units, at which certified R@1 is reported."""
    certify_samples: int = Field(default=1000, ge=1)
    """Noisy images per query that are counted; the cost of a certificate."""
    certify_selection: int = Field(default=100, ge=1)
    """Noisy images per query that choose the class to be counted."""
    certify_alpha: float = Field(default=0.001, gt=0, lt=0.5)
    """Probability with which the certificate of a query may be wrong."""

    @field_validator("black_box", "certify", "certify_radii", mode="before")
    @classmethod
    def _one_is_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str | float | int) else value

    @model_validator(mode="after")
    def _attacks_are_named_once(self) -> "StrengthSettings":
        if len(set(self.black_box)) < len(self.black_box):
            raise ValueError(f"black_box names an attack twice in {' '.join(self.black_box)}; name each once")
        return self

    @property
    def anything(self) -> bool:
        """Whether any measurement is asked for."""
        return bool(self.black_box or self.universal or self.poison or self.certify)
