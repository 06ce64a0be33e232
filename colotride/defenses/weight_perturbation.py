"""Adversarial weight perturbation: the loss is taken at weights that were moved to raise it (Wu et al., 2020).

Perturbed images make a model robust on the images that it has seen; weights that may be moved as well, as far as a small
share of their length, leave a flatter loss, which generalises better (arXiv:2004.05884, for classifiers).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from colotride.distributed.shards import ProcessGroup


def at_perturbed_weights(
    model: nn.Module, loss: Float[Tensor, ""], size: float, group: ProcessGroup
) -> Callable[[Tensor], Tensor]:
    """The model with its weight tensors moved along the loss's gradient by a share of their own length.

    v = size ||w|| g / ||g|| for each tensor of two or more dimensions that is trained, in one step. Biases and
    normalisation layers stay, as in the authors' code. The model itself is not changed: not its weights, and not its
    running statistics, which follow the weights as they are.

    Args:
        model: whose weights are trained.
        loss: of this process's share, with its graph, which is used up.
        size: gamma, such as 0.005.
        group: the processes whose losses add up.

    Returns:
        A function of images whose gradient goes to the model's own weights, v being constant; the model itself where
        no such tensor is trained.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad and weight.ndim > 1}
    if not weights:
        return model
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(weights.values(), found, strict=True)]
    group.all_reduce_sum(gradients)
    lengths, heights = torch._foreach_norm([w.detach() for w in weights.values()]), torch._foreach_norm(gradients)
    moved = {
        name: weight + gradient * (size * length / height.clamp_min(1e-12))
        for (name, weight), gradient, length, height in zip(weights.items(), gradients, lengths, heights, strict=True)
    }

    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def embed(images: Tensor) -> Tensor:
        embeddings: Tensor = functional_call(model, moved | statistics, (images,))
        return embeddings

    return embed
