"""What an evaluation may spend, and by which protocol it attacks."""

from typing import Literal

from pydantic import Field

from colotride.settings import Fraction, Settings

Protocol = Literal["strict", "published"]


class EvaluationSettings(Settings):
    """Protocol, budgets and the perturbation's size."""

    protocol: Protocol = "strict"
    """Attacks as they are defined (strict), or with the weaknesses of the code behind the papers' numbers (published)."""
    queries: int | None = Field(default=None, ge=1)
    """Query budget: that many images, drawn at random, are attacked; null for every image."""
    steps: int = Field(default=32, ge=1)
    """Step budget: PGD steps per attack."""
    epsilon: Fraction = Field(default=8 / 255, ge=0, le=1)
    """Radius of the perturbation, in pixel units."""
    step_size: Fraction = Field(default=3 / 255, gt=0, le=1)
    """PGD step size, in pixel units."""
    batch_size: int = Field(default=128, ge=1)
    """Images per pass through the network; changes nothing but time and memory."""
    bootstrap: int = Field(default=1000, ge=0)
    """Resamples behind the confidence intervals; 0 for none."""
    recall_at: tuple[int, ...] = Field(default=(1, 2), min_length=1)
    """The k of the reported recall@k."""
