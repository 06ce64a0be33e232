"""What an evaluation may spend, and by which protocol it attacks."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from colotride.errors import ConfigurationError
from colotride.evaluation.scores import ATTACK_NAMES
from colotride.pgd_settings import Budget, Norm, check_sizes
from colotride.registry import ATTACKS
from colotride.settings import Fraction, Settings, fraction

Protocol = Literal["strict", "published", "strong"]


class EvaluationSettings(Settings):
    """Protocol, budgets and the perturbation's size."""

    protocol: Protocol = "strict"
    """Attacks as they are defined (strict), with the weaknesses of the code behind the papers' numbers (published), or as
    strong as twice the passes allow (strong)."""
    queries: int | None = Field(default=None, ge=1)
    """Query budget: that many images, drawn at random, are attacked; null for every image."""
    steps: int = Field(default=32, ge=1)
    """Step budget: PGD steps per attack."""
    epsilon: Fraction = Field(default=8 / 255, ge=0)
    """Radius of the perturbation, in pixel units; a list of radii draws a robustness curve, and the scores are those of
    the largest."""
    radii: tuple[Fraction, ...] = ()
    """All radii of the curve, in increasing order; empty where there is one radius."""
    norm: Norm = "linf"
    """How the radius is measured: linf (the largest change of a value) or l2 (the length over all pixels)."""
    step_size: Fraction = Field(default=3 / 255, gt=0)
    """PGD step size at the largest radius, in pixel units and in the norm of the radius; the strong protocol chooses its
    own."""
    batch_size: int = Field(default=128, ge=1)
    """Images per pass through the network; changes nothing but time and memory."""
    bootstrap: int = Field(default=1000, ge=0)
    """Resamples behind the confidence intervals; 0 for none."""
    recall_at: tuple[int, ...] = Field(default=(1, 2), min_length=1)
    """The k of the reported recall@k."""
    clusterings: int = Field(default=5, ge=1)
    """Starts of the k-means behind NMI, which is the mean over them."""
    extra_attacks: tuple[str, ...] = ()
    """Registered attacks to run besides the nine; their numbers are reported, and count in no score."""

    @model_validator(mode="before")
    @classmethod
    def _radii_from_a_list(cls, values: Any) -> Any:
        given = values.get("epsilon") if isinstance(values, dict) else None
        if not isinstance(given, list | tuple):
            return values
        if not given:
            raise ValueError("epsilon is an empty list; give one radius or several, as in 8/255")
        radii = tuple(sorted({fraction(one) if isinstance(one, str) else float(one) for one in given}))
        if radii[0] < 0:
            raise ValueError(f"epsilon {radii[0]:g} is below 0; a radius is 0 or more, as in 8/255")
        return values | {"epsilon": radii[-1], "radii": radii if len(radii) > 1 else ()}

    @model_validator(mode="after")
    def _sizes_are_possible(self) -> "EvaluationSettings":
        check_sizes(self.norm, epsilon=self.epsilon, step_size=self.step_size)
        if self.norm == "l2" and min(self.all_radii) == 0:
            raise ValueError("epsilon 0 in the l2 norm leaves nothing to attack; give a radius such as 0.5")
        if self.radii and (self.radii[0] < 0 or tuple(sorted(set(self.radii))) != self.radii):
            raise ValueError(f"radii {list(self.radii)} must increase from 0 or more; give them as a list to epsilon")
        if self.radii and self.radii[-1] != self.epsilon:
            raise ValueError(f"radii end at {self.radii[-1]:g}, epsilon is {self.epsilon:g}; give the list to epsilon")
        return self

    def with_values(self, asked: Mapping[str, Any]) -> "EvaluationSettings":
        """These settings with other values; another radius without a step size changes the step size in proportion.

        Args:
            asked: by the name of the field; `epsilon` may be a list of radii.

        Raises:
            ConfigurationError: another norm without a radius: that of these settings means something else in it.
            ValidationError: an unknown field, or a value out of range.
        """
        if asked.get("norm", self.norm) != self.norm and "epsilon" not in asked:
            usual = {"l2": "0.5", "linf": "8/255"}[asked["norm"]]
            raise ConfigurationError(
                f"norm {asked['norm']} needs a radius of its own, for {self.epsilon:g} was one of {self.norm}; "
                f"give epsilon too, such as {usual}"
            )
        values = self.model_dump() | ({"radii": ()} if "epsilon" in asked else {}) | dict(asked)
        if "epsilon" in asked and "step_size" not in asked:
            # Checked with a step size that suits either norm: only the radius is wanted.
            radius = EvaluationSettings.model_validate(values | {"step_size": 1.0}).epsilon
            share = radius / self.epsilon if self.epsilon and radius else 1.0
            step_size = self.step_size * share
            values["step_size"] = min(1.0, step_size) if values["norm"] == "linf" else step_size
        return EvaluationSettings.model_validate(values)

    @field_validator("extra_attacks")
    @classmethod
    def _attacks_are_registered(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if ATTACKS.check(name) in ATTACK_NAMES:
                raise ValueError(f"attack {name!r} is one of the nine that always run; name only attacks beside them")
        return names

    @property
    def all_radii(self) -> tuple[float, ...]:
        """Every radius at which the queries are attacked; the last one is `epsilon`."""
        return self.radii or (self.epsilon,)

    def budget(self, epsilon: float) -> Budget:
        """What each attack may spend at one radius.

        The step size belongs to the largest radius, and is in proportion at smaller ones. In `published` a single step
        is as long as the radius (FGSM).
        """
        one_step = self.protocol == "published" and self.steps == 1
        share = epsilon / self.epsilon if self.epsilon else 1.0
        return Budget(epsilon, epsilon if one_step else self.step_size * share, self.steps, self.norm)
