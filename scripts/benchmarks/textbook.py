"""Training steps as the released code of the papers structures them: what the engine is measured against.

Every PGD step embeds all parts of the triplets and the clean copies again, and goes back to the weights too. Written
from that structure with this project's formulas, so that the perturbed images are the same.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from colotride.mining import mine
from colotride.models import EmbeddingModel
from colotride.pgd_settings import Budget

Kind = Literal["NT", "ACT", "HM", "CAP", "ANP"]
MINERS: dict[Kind, str] = {
    "NT": "semi-hard",
    "ACT": "random",
    "HM": "random",
    "CAP": "semi-hard",
    "ANP": "semi-hard",
}
"""HM's own softhard triplets are hard before they are perturbed on random weights: nothing would move."""

ATTENTION_FACTOR, MARGIN, TOP_COEFFICIENT, TOP_MARGIN, INTRA_CLASS = 10.0, 0.2, 0.5, 0.04, 0.5


class PlainModel(nn.Module):
    """The same network and weights as an `EmbeddingModel`, with no optimisation for speed."""

    def __init__(self, model: EmbeddingModel) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(model.backbone).to(memory_format=torch.contiguous_format)
        self.mean, self.std = model.mean.clone(), model.std.clone()
        self.freeze_batchnorm = model.freeze_batchnorm

    def forward(self, images: Tensor) -> Tensor:
        """Unit vectors."""
        return functional.normalize(self.backbone((images - self.mean) / self.std), dim=1)

    def train(self, mode: bool = True) -> "PlainModel":
        """Frozen BatchNorm stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if self.freeze_batchnorm and isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class TextbookStep:
    """One step of training: mine, perturb, train."""

    def __init__(self, kind: Kind, model: PlainModel, budget: Budget) -> None:
        self.kind, self.model, self.budget = kind, model, budget
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, weight_decay=4e-4)

    def __call__(self, anchor: Tensor, positive: Tensor, labels: Tensor) -> None:
        """Train on one batch of pairs."""
        images = torch.cat([anchor, positive])
        natural = self.kind == "NT"
        self.model.train(natural)
        with torch.set_grad_enabled(natural):
            embeddings = self.model(images)
        random = torch.Generator().manual_seed(0)
        first, second = embeddings.detach().chunk(2)
        mined = mine(MINERS[self.kind], first, second, labels, MARGIN, random)
        if natural:
            ea, ep, en = embeddings[: len(anchor)], embeddings[mined.positives], embeddings[mined.negatives]
            loss = triplet_loss(ea, ep, en)
        else:
            parts = (anchor, images[mined.positives], images[mined.negatives])
            perturbed = self.perturbed(*parts)
            self.model.train()
            loss = self._loss(*perturbed, parts)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _loss(self, a: Tensor, p: Tensor, n: Tensor, clean: tuple[Tensor, ...]) -> Tensor:
        model = self.model
        if self.kind in ("CAP", "ACT"):
            ep, en = model(torch.cat([p, n])).chunk(2)
            return triplet_loss(model(a), ep, en)
        if self.kind == "ANP":
            ea, ep, en = model(a), model(p), model(n)
            top = top_mean(distance(ea, ep)) - top_mean(distance(ea, en)) + TOP_MARGIN
            return triplet_loss(ea, ep, en) + TOP_COEFFICIENT * top.relu()
        ea, ep, en = model(torch.cat([a, p, n])).chunk(3)
        ca, cp = model(clean[0]), model(clean[1])
        return triplet_loss(ea, ep, en) + INTRA_CLASS * (distance(ca, ea) - distance(ca, cp)).relu().mean()

    def perturbed(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The triplets after PGD."""
        model, budget = self.model, self.budget
        names = {"CAP": (1, 2), "ACT": (1, 2), "ANP": (0,), "HM": (0, 1, 2)}[self.kind]
        parts = [anchor, positive, negative]
        clean = torch.cat([parts[index] for index in names])
        moving = clean.clone()
        model.eval()
        with torch.no_grad():
            a, n = model(anchor), model(negative)
            nearest = distance(a, n).argsort()[: len(a) // 2]
        for _ in range(budget.steps):
            moving.requires_grad_(True)
            model.zero_grad()
            embedded = list(model(moving).chunk(len(names)))
            # COLO-TRIDE's code embeds the parts that do not move, and the clean copies, at every step.
            colo = self.kind in ("CAP", "ANP")
            shown = [
                embedded[names.index(part)] if part in names else model(parts[part]) if colo else a for part in range(3)
            ]
            start = model(clean) if colo else embedded[0]
            loss = self._objective(shown, start, nearest)
            loss.backward()
            assert moving.grad is not None
            moving = moving.detach() - budget.step_size * moving.grad.sign()
            moving = torch.min(moving, clean + budget.epsilon)
            moving = torch.max(moving, clean - budget.epsilon)
            moving = torch.clamp(moving, 0, 1)
        for index, part in zip(names, moving.chunk(len(names)), strict=True):
            parts[index] = part
        return parts[0], parts[1], parts[2]

    def _objective(self, shown: list[Tensor], start: Tensor, nearest: Tensor) -> Tensor:
        a, p, n = shown
        if self.kind == "ACT":
            return distance(p, n).mean()
        ap, an = distance(a, p), distance(a, n)
        if self.kind == "HM":
            return (an - ap).relu().square().mean()
        gap = near_mean(an) - near_mean(ap)
        if self.kind == "CAP":
            return gap.relu()
        pull = (an[nearest].mean() - functional.pairwise_distance(a, start).mean()).relu()
        return gap.relu() + torch.exp(-gap.relu()).detach() * pull


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of matching rows; the gradient at distance 0 is 0."""
    return torch.linalg.vector_norm(a - b, dim=1)


def near_mean(values: Tensor) -> Tensor:
    """The weighted mean of Eq. 5-6, weights detached."""
    weights = torch.exp(-ATTENTION_FACTOR * (values - values.min())).detach()
    return (weights * values).sum() / weights.sum()


def top_mean(values: Tensor) -> Tensor:
    """Mean of the nearest half."""
    return values.sort().values[: len(values) // 2].mean()


def triplet_loss(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
    """Eq. 1."""
    return (distance(a, p) - distance(a, n) + MARGIN).relu().mean()
