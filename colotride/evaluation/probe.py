"""A few images through somebody's model, forward and backward, before anything that takes long is begun."""

import torch
from torch import Tensor, nn

from colotride.data.base import ImageSet
from colotride.errors import ColoTrideError, ModelError
from colotride.evaluation.gallery import checked, read_views
from colotride.pgd import frozen

IMAGES = 4
"""In the probe's batch."""


def probe(model: nn.Module, images: ImageSet, *, image_size: int, device: torch.device) -> None:
    """Refuse a model that cannot be attacked: on some images, and on one of them alone.

    Args:
        model: maps pixels in [0, 1] to unit vectors.
        images: that it will be evaluated on; the probe's are spread over them.
        image_size: side of the central crop.
        device: where the model is.

    Raises:
        ModelError: what it returns are not embeddings, they are the same for different images, they change their number
            with the batch, or they have no gradient.
        DataError: an image that cannot be read.
    """
    indices = torch.linspace(0, len(images) - 1, min(IMAGES, len(images))).long()
    view = read_views(images, indices, image_size, model, device)
    with frozen(model) as embed, torch.enable_grad():
        leaf = view.clone().requires_grad_(True)
        embeddings = embed(leaf)
        checked(embeddings.detach() if isinstance(embeddings, Tensor) else embeddings, len(view), device)
        gradient = _gradient(embeddings, leaf)
    with frozen(model) as embed, torch.no_grad():
        alone = checked(embed(view[:1]), 1, device)
    if alone.shape[1] != embeddings.shape[1]:
        raise ModelError(
            f"the model returned {embeddings.shape[1]} dimensions for {len(view)} images and {alone.shape[1]} for one of "
            "them; it must embed every image by itself"
        )
    if (view != view[:1]).any() and bool((embeddings == embeddings[:1]).all()):
        raise ModelError(
            f"the model returned the same embedding for {len(view)} different images; train it again, or check that it "
            "takes pixels in [0, 1]"
        )
    if not bool(torch.isfinite(gradient).all()):
        raise ModelError(
            "the model has NaN or infinite gradients with respect to its images; the attacks follow them: look for a "
            "square root or a division at 0"
        )


def _gradient(embeddings: Tensor, images: Tensor) -> Tensor:
    gradient = None
    if embeddings.requires_grad:
        weights = torch.linspace(-1, 1, embeddings.numel(), device=embeddings.device).view_as(embeddings)
        try:
            (gradient,) = torch.autograd.grad((embeddings * weights).sum(), images, allow_unused=True)
        except ColoTrideError:
            raise
        except Exception as error:
            # A backward pass of the user's own may raise anything.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(
                f"the gradient of the model's embeddings cannot be computed ({reason}); the attacks follow it"
            ) from error
    if gradient is None:
        raise ModelError(
            "the model's embeddings have no gradient with respect to its images; the attacks follow it: leave out "
            "no_grad, inference_mode, detach and numpy"
        )
    return gradient
