"""Certified R@1: how far a query may be perturbed, by whatever attack, before its smoothed first result changes.

Randomised smoothing (Cohen et al., ICML 2019) in the setting of RetrievalGuard (Wu et al., ICML 2022): the query is
perturbed within an l2 ball, the gallery is not. The smoothed search returns the class that the first result has most
often when Gaussian noise of standard deviation sigma is added to the query. If that class has probability p or more, no
perturbation shorter than sigma * Phi^-1(p) changes it. p is a lower Clopper-Pearson bound, so that a certificate is
wrong with probability alpha at most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from torch.nn import functional

from colotride.evaluation.attacks import AttackBatch
from colotride.evaluation.gallery import Gallery, checked
from colotride.evaluation.measurement import Figures, Measurement, mean
from colotride.evaluation.strength_settings import StrengthSettings
from colotride.pgd import frozen
from colotride.randomness import derive_seed, hashed_normal

ABSTAINS = -1

MEANING = (
    "Certified R@1 at a radius is the share of the queries whose smoothed first result is of their class whatever change of "
    "that l2 length, in pixel units, is made to the query. It holds for every attack; where the noisy answers are too "
    "divided, the search abstains. Higher is more robust."
)


@dataclass(frozen=True)
class Certificates:
    """Of each query, what smoothing can promise."""

    predicted: Int[Tensor, "queries"]
    """The class of the smoothed first result; `ABSTAINS` where no class has a majority with confidence."""
    radius: Float64[Tensor, "queries"]
    """l2 length below which no perturbation changes that class, in pixel units; 0 where the search abstains."""


def lower_bound(successes: Int[Tensor, "queries"], trials: int, alpha: float) -> Float64[Tensor, "queries"]:
    """One-sided Clopper-Pearson bound: the probability is below it with probability alpha at most.

    The alpha-quantile of Beta(k, n - k + 1); 0 where k is 0.
    """
    from scipy.stats import beta

    k = successes.cpu().numpy()
    bound = np.where(k > 0, beta.ppf(alpha, np.maximum(k, 1), trials - k + 1), 0.0)
    return torch.from_numpy(bound).to(successes.device)


def certificates(
    first: Int[Tensor, "queries"], hits: Int[Tensor, "queries"], samples: int, sigma: float, alpha: float
) -> Certificates:
    """What follows from counts of noisy answers.

    Args:
        first: the class that was most frequent in other samples than those counted.
        hits: how often it was the class of the first result.
        samples: of how many.
        sigma: standard deviation of the noise.
        alpha: probability with which a certificate may be wrong.
    """
    bound = lower_bound(hits, samples, alpha)
    sure = (bound > 0.5) & (first >= 0)
    radius = sigma * torch.special.ndtri(bound.clamp(0.5, 1))
    return Certificates(torch.where(sure, first, ABSTAINS), torch.where(sure, radius, 0.0))


def first_classes(
    gallery: Gallery, embeddings: Float[Tensor, "rows dim"], queries: Int[Tensor, "rows"]
) -> Int[Tensor, "rows"]:
    """Class of each row's first result, the query itself left out; `ABSTAINS` at a tie between classes.

    Args:
        gallery: clean embeddings.
        embeddings: of noisy queries.
        queries: their places in the gallery.
    """
    exact = gallery.exact
    asking, rows = exact.place(embeddings), torch.arange(len(embeddings), device=exact.labels.device)
    squares = exact.squares(asking)
    squares[rows, queries.to(exact.labels.device)] = torch.inf
    nearest = squares.min(dim=1)
    found = exact.labels[nearest.indices]
    rivals = squares.masked_fill_(exact.labels == found[:, None], torch.inf).amin(dim=1)
    return torch.where(rivals - nearest.values > exact.tolerance(asking)[:, 0], found, ABSTAINS).to(queries.device)


def certify(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    attacked: AttackBatch,
    *,
    sigma: float,
    samples: int,
    selection: int,
    alpha: float,
    seed: int,
    batch_size: int,
) -> Certificates:
    """Certify a batch of queries.

    Args:
        model: maps pixels to unit vectors; noisy pixels are not clipped to [0, 1], which the certificate needs.
        images: the queries.
        attacked: their places in the gallery; the targets play no part.
        sigma: standard deviation of the noise, in pixel units.
        samples: noisy images per query that are counted.
        selection: others, which choose the class that is counted.
        alpha: probability with which a certificate may be wrong.
        seed: of the noise, which depends on it and on the query's place alone.
        batch_size: images per pass through the network.

    Raises:
        ModelError: unusable embeddings of noisy images.
    """
    gallery, queries = attacked.gallery, attacked.moving
    classes, stream = int(gallery.labels.max()) + 1, derive_seed(seed, "evaluation", "smoothing")
    # The last column counts the ties.
    counts = torch.zeros(2, len(images), classes + 1, dtype=torch.int64, device=queries.device)
    each = max(1, batch_size // len(images))
    # A pass holds samples of one kind: those that choose the class, or those that are counted.
    passes = [*torch.arange(selection).split(each), *torch.arange(selection, selection + samples).split(each)]
    with frozen(model) as embed, torch.no_grad():
        for chosen in passes:
            sample = chosen.to(queries.device).repeat_interleave(len(images))
            asking = queries.repeat(len(chosen))
            noise = hashed_normal(stream, sample * len(gallery) + asking, images[0].numel())
            noisy = images.repeat(len(chosen), 1, 1, 1)
            noisy += sigma * noise.view_as(noisy).to(noisy)
            found = first_classes(gallery, checked(embed(noisy), len(noisy), noisy.device), asking) % (classes + 1)
            tally = functional.one_hot(found.view(len(chosen), len(images)), classes + 1).sum(dim=0)
            counts[int(chosen[0] >= selection)] += tally
    first = counts[0, :, :classes].argmax(dim=1)
    hits = counts[1].gather(1, first[:, None])[:, 0]
    return certificates(first, hits, samples, sigma, alpha)


def certified_values(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    attacked: AttackBatch,
    sigma: float,
    settings: StrengthSettings,
    seed: int,
    batch_size: int,
) -> dict[str, Tensor]:
    """The certificates of a batch of queries, on the CPU.

    Args:
        model: maps pixels to unit vectors.
        images: the queries.
        attacked: their places in the gallery.
        sigma: standard deviation of the noise, in pixel units.
        settings: how many noisy images choose the class and are counted, and how often a certificate may be wrong.
        seed: of the noise.
        batch_size: images per pass through the network.
    """
    found = certify(
        model,
        images,
        attacked,
        sigma=sigma,
        samples=settings.certify_samples,
        selection=settings.certify_selection,
        alpha=settings.certify_alpha,
        seed=seed,
        batch_size=batch_size,
    )
    values = {
        "match": found.predicted == attacked.gallery.labels[attacked.moving],
        "abstains": found.predicted == ABSTAINS,
        "radius": found.radius,
    }
    return {column: one.cpu() for column, one in values.items()}


def certified_table(
    values: Mapping[float, Mapping[str, Tensor]], settings: StrengthSettings, seconds: float
) -> Measurement:
    """The table of certified R@1, a row per sigma.

    Args:
        values: of all queries, by sigma; see `certified_values`.
        settings: with which they were made, and the radii at which R@1 is reported.
        seconds: that they took.
    """
    radii, samples, selection = settings.certify_radii, settings.certify_samples, settings.certify_selection
    rows = {
        f"sigma {sigma:g}": _figures(found["match"], found["radius"], found["abstains"], radii)
        for sigma, found in values.items()
    }
    calls = sum(len(found["match"]) for found in values.values()) * (samples + selection)
    chosen = {"radii": list(radii), "samples": samples, "selection": selection, "alpha": settings.certify_alpha}
    return Measurement("certified", "Certified R@1", MEANING, rows, chosen, calls, seconds)


def _figures(matches: Tensor, radius: Tensor, abstains: Tensor, radii: Sequence[float]) -> Figures:
    certified = {f"R@1 at {length:g}": mean(100 * (matches & (radius >= length)).double()) for length in radii}
    return {
        "abstains %": mean(100 * abstains.double()),
        **certified,
        "mean radius": mean(torch.where(matches, radius, 0.0)),
    }
