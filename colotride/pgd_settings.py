"""The settings of projected gradient descent: the radius, the steps, and how they grow over the epochs of a training."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, model_validator

from colotride.settings import Fraction, Settings

Norm = Literal["linf", "l2"]
"""How a perturbation is measured: by its largest change of a value, or by its Euclidean length over all pixels."""


@dataclass(frozen=True)
class Budget:
    """What one attack may spend: epsilon and step size in pixel units (pixels lie in [0, 1]), and its steps."""

    epsilon: float
    step_size: float
    steps: int
    norm: Norm = "linf"
    project: bool = True
    """Whether images stay within epsilon; without it only the pixel range bounds them."""
    step_back: int = 0
    """How often the last step is halved where it went beyond the stop of the objective."""

    def refined(self, times: int) -> "Budget":
        """Twice as many steps of half the size, a number of times: the same way, followed more closely."""
        return replace(self, steps=self.steps << times, step_size=self.step_size / (1 << times))


class PGDSettings(Settings):
    """The PGD schedule: radius, steps, step size and how the step size grows over the epochs (Appendix C)."""

    epsilon: Fraction = Field(default=8 / 255, ge=0)
    """Radius of the ball, in pixel units."""
    norm: Norm = "linf"
    """How the radius is measured: linf (the largest change of a value) or l2 (the length over all pixels)."""
    step_size: Fraction = Field(default=1 / 255, gt=0)
    """Step size alpha at full strength, in pixel units and in the norm of the radius."""
    steps: int = Field(default=16, ge=1, le=1000)
    """Steps per perturbation."""
    ramp: Literal["constant", "linear", "cosine"] = "linear"
    """Shape of the growth of the perturbation over the epochs."""
    ramp_length: Fraction = Field(default=1.0, gt=0, le=1)
    """Share of the epochs after which the perturbation is at full strength."""

    ramp_from_zero: bool = False
    """Grow by e / E from no perturbation in the first epoch (the released code), instead of by (e + 1) / E."""
    growth: Literal["step-size", "steps"] = "step-size"
    """What grows over the epochs: the step size (Appendix C), or the number of steps, which costs half as much in a
    linear ramp."""
    random_start: Fraction = Field(default=0.0, ge=0, le=4)
    """Start from noise of this share of epsilon, uniform in every pixel (linf) or of a uniform length (l2). 1 with a single
    step of 1.25 epsilon is FGSM-RS (Wong et al., 2020)."""
    project: bool = True
    """Keep images within epsilon. Without it noise and steps add up, as in N-FGSM (de Jorge et al., 2022): a random start
    of 2 and a single step of epsilon."""
    step_back: int = Field(default=0, ge=0, le=16)
    """How often the last step is halved, by forward passes, where it went beyond the stop at C = 0 of COLO-TRIDE's
    candidates. It makes a single large step usable: 3."""
    adaptive_steps: bool = False
    """Compare what the perturbation reaches on a few triplets after every epoch with what 16 small steps reach. When it is
    less than half (catastrophic overfitting), take twice as many steps of half the size from then on."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> "PGDSettings":
        check_sizes(self.norm, epsilon=self.epsilon, step_size=self.step_size)
        if self.random_start > 1 and self.project:
            raise ValueError(
                f"random_start {self.random_start:g} is outside the ball: noise above epsilon would be cut off; "
                "give at most 1, or project: false"
            )
        return self

    def budget(self, epoch: int, epochs: int) -> Budget:
        """The budget of one epoch: alpha_e = alpha ramp(e / E) (Appendix C), or as large a share of the steps.

        Args:
            epoch: counted from 0; the ramp sees e + 1, so that the first epoch is perturbed too, unless it starts from
                zero.
            epochs: E, the whole run's.
        """
        done = epoch if self.ramp_from_zero else epoch + 1
        progress = min(1.0, done / (epochs * self.ramp_length))
        strength = {
            "constant": 1.0,
            "linear": progress,
            "cosine": (1 - math.cos(math.pi * progress)) / 2,
        }[self.ramp]
        if self.growth == "steps":
            steps = math.ceil(self.steps * strength - 1e-9)
            return replace(self.full, steps=steps)
        return replace(self.full, step_size=self.step_size * strength)

    @property
    def full(self) -> Budget:
        """The budget at full strength."""
        return Budget(self.epsilon, self.step_size, self.steps, self.norm, self.project, self.step_back)


def check_sizes(norm: Norm, **sizes: float) -> None:
    """Refuse sizes that no image can have in a norm.

    Raises:
        ValueError: a linf size above 1, the range of a pixel.
    """
    for name, size in sizes.items():
        if norm == "linf" and size > 1:
            raise ValueError(f"{name} {size:g} is above 1, the range of a pixel; give it in pixel units, as in 8/255")
