"""COLO: the direction of the perturbation follows the state of the model (Eq. 8)."""

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.defenses.triplets import StepInfo


def assist_enabled(info: StepInfo, disabled_fraction: float) -> bool:
    """Whether the assist direction is available yet: not during the first fraction of the epochs (Appendix C)."""
    return info.epoch >= disabled_fraction * info.epochs


def direction(collapseness: Float[Tensor, ""], *, assist: bool) -> Float[Tensor, ""]:
    """Direction sigma of Eq. 8: +1 raises the hardness (attack), -1 lowers it (assist).

    It stays on the device: branching on it in Python would make every batch wait for the device.

    Args:
        collapseness: C of the clean batch; the model counts as collapsing where C > 0.
        assist: whether assisting is allowed; where it is not, the batch is attacked whatever C says.
    """
    attack = torch.ones_like(collapseness)
    return torch.where(collapseness > 0, -attack, attack) if assist else attack
