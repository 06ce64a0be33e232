"""When a cheap perturbation has become too weak to train with, and more steps are needed."""

from dataclasses import replace

from torch import nn

from colotride.defenses import Batch, Defense, StepInfo
from colotride.defenses.step import TripletDefense
from colotride.defenses.strength import REFERENCE_STEPS, perturbation_strength
from colotride.errors import ConfigurationError
from colotride.pgd_settings import PGDSettings
from colotride.randomness import generator

PROBE_PAIRS = 8
"""Pairs of a batch that are perturbed for the comparison."""

OVERFITTED = 0.5
"""Strength below which the steps are refined."""


def is_weak(strength: float, steps: int) -> bool:
    """Whether a perturbation of so many steps calls for more of them."""
    return strength < OVERFITTED and steps < REFERENCE_STEPS


class AdaptiveSteps:
    """Follows a run: compares its perturbation with many small steps after every epoch, and refines it when it is weak.

    Attributes:
        refinement: how often the steps were doubled and their size halved.
        diagnostics: the strength after the last epoch, and the steps that were trained with in it.
    """

    def __init__(self, defense: Defense, pgd: PGDSettings, seed: int) -> None:
        """Begin without refinement.

        Raises:
            ConfigurationError: the defense has no perturbation that could be compared.
        """
        if pgd.adaptive_steps and not isinstance(defense, TripletDefense):
            raise ConfigurationError(
                f"pgd.adaptive_steps needs a defense derived from TripletDefense, {type(defense).__name__} is none; "
                "set it to false"
            )
        self._defense, self._pgd, self._seed = defense, pgd, seed
        self.refinement = 0
        self.diagnostics: dict[str, float] = {}

    @property
    def steps(self) -> int:
        """Steps of the perturbation at full strength, as it is now."""
        return self._pgd.full.refined(self.refinement).steps

    def end_epoch(self, model: nn.Module, batch: Batch, info: StepInfo) -> None:
        """Refine the steps of the following epochs where the perturbation reaches less than half of what it could.

        Args:
            model: after the epoch.
            batch: its last one.
            info: of that batch.
        """
        if not self._pgd.adaptive_steps or not isinstance(self._defense, TripletDefense):
            return
        few = _first_pairs(batch)
        # CAP and ANP alternate: both are tried.
        infos = {self._defense.perturbed_parts(one): one for one in (info, replace(info, step=info.step + 1))}
        strength = min(
            perturbation_strength(
                self._defense, model, few, one, generator(self._seed, "strength", one.epoch, one.step)
            )
            for one in infos.values()
        )
        self.diagnostics = {"perturbation_strength": strength, "pgd_steps": float(self.steps)}
        if is_weak(strength, self.steps):
            self.refinement += 1


def _first_pairs(batch: Batch) -> Batch:
    few = batch.first_pairs(-(-PROBE_PAIRS // batch.group.size))
    return few if len(few.labels.unique()) > 1 else batch
