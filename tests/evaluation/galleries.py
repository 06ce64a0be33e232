"""A tiny gallery and its brute-force answers: plain loops over queries, written from evaluation.md."""

import numpy as np
import torch
from torch.nn import functional

from colotride.data.base import InMemoryImages
from colotride.evaluation.gallery import Gallery

IMAGES, CLASSES = 30, 4


def toy_images(seed=0, count=IMAGES):
    """8-bit images of 3 x 2 x 2 pixels in four classes of different sizes, shuffled."""
    random = torch.Generator().manual_seed(seed)
    labels = (torch.arange(count) % 7 % CLASSES)[torch.randperm(count, generator=random)]
    pixels = torch.randint(0, 256, (count, 3, 2, 2), generator=random, dtype=torch.uint8)
    return InMemoryImages("toy", pixels, labels)


def toy_gallery(seed=0, dim=4):
    """Random unit vectors in four classes."""
    random = torch.Generator().manual_seed(seed)
    embeddings = functional.normalize(torch.randn(IMAGES, dim, generator=random), dim=1)
    return Gallery(embeddings, toy_images(seed).labels)


def shaken(gallery, chosen, seed=1, size=0.5):
    """Other unit vectors near the gallery's own, as if their images had been perturbed."""
    random = torch.Generator().manual_seed(seed)
    noise = size * torch.randn(len(chosen), gallery.embeddings.shape[1], generator=random)
    return functional.normalize(gallery.embeddings[chosen] + noise, dim=1)


def d(a, b):
    """Distance of two vectors in double precision."""
    return float(np.linalg.norm(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)))


def others(gallery, *left_out):
    return [index for index in range(len(gallery)) if index not in left_out]


def ranked(gallery, query, embedding=None):
    """Result list of a query, nearest first, itself left out."""
    embedding = gallery.embeddings[query] if embedding is None else embedding
    return sorted(others(gallery, query), key=lambda j: d(embedding, gallery.embeddings[j]))
