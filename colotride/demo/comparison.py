"""Models side by side under the same attack: what a query finds before and after it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.data.base import ImageSet, class_name, subset_of
from colotride.data.splits import load_test
from colotride.embedder import Embedder
from colotride.errors import ConfigurationError, DataError
from colotride.evaluation.attacks import AttackBatch, attack_named, embedded
from colotride.evaluation.examples import first_results, visible_change
from colotride.evaluation.gallery import Gallery, embed_gallery, read_views
from colotride.pgd import perturb
from colotride.pgd_settings import Budget
from colotride.presets import with_data_root
from colotride.training.runs import load_run

RESULTS = 8
"""Pictures in a list of results."""

ATTACKS: Mapping[str, str] = {
    "ES": "push its embedding away (ES)",
    "LTM": "lose the pictures of its class (LTM)",
    "GTM": "meet the nearest picture of another class (GTM)",
    "TMA": "meet a random picture (TMA)",
}
"""The attacks on a query that can be chosen, by name, and what each wants."""

AIMED = ("GTM", "TMA")
"""Those that lead to one picture of the gallery."""

STEP_SHARE = 0.25
"""Step size, as a share of epsilon."""

TARGET_SEED = 0


@dataclass(frozen=True)
class ComparedModel:
    """A model, the pictures that it searches, and their embeddings."""

    name: str
    embedder: Embedder
    images: ImageSet
    gallery: Gallery


@dataclass(frozen=True)
class Result:
    """One picture in a list of results."""

    place: int
    """In the gallery."""
    class_name: str
    correct: bool
    """Whether it is of the query's class."""


@dataclass(frozen=True)
class Answer:
    """What one model finds for a query before and after the attack."""

    model: str
    before: list[Result]
    after: list[Result]
    shift: float
    """Distance between the embeddings before and after, in [0, 2]."""
    target: int | None
    """Place of the picture that the attack leads to, where there is one."""
    view: Float[Tensor, "channels size size"]
    """The query as the model sees it, pixels in [0, 1]."""
    perturbed: Float[Tensor, "channels size size"]
    perturbation: Float[Tensor, "channels size size"]
    """Amplified: epsilon fills the range, and 0.5 is no change."""


class Comparison:
    """Answers queries with every model; made by `open_runs`."""

    def __init__(self, models: Sequence[ComparedModel], epsilon: float) -> None:
        """Compare models of the same pictures.

        Args:
            models: one or more.
            epsilon: the radius in the linf norm with which the first was trained, in pixel units.
        """
        self.models, self.epsilon = list(models), epsilon
        self.images = self.models[0].images

    @property
    def labels(self) -> list[int]:
        """Class of every picture of the gallery, which is the same for all models."""
        return [int(label) for label in self.images.labels]

    def class_names(self) -> dict[int, str]:
        """Name of every class of the gallery, in order."""
        return {label: class_name(self.images, label) for label in sorted(set(self.labels))}

    def suggestions(self, count: int) -> list[int]:
        """Places of pictures to begin with: one of each class in turn."""
        by_class: dict[int, list[int]] = {}
        for place, label in enumerate(self.labels):
            by_class.setdefault(label, []).append(place)
        queues, found = [by_class[label] for label in sorted(by_class)], []
        for turn in range(max(map(len, queues))):
            found += [queue[turn] for queue in queues if turn < len(queue)]
        return found[:count]

    def answer(
        self, query: int | Path, *, attack: str, epsilon: float, steps: int, label: int | None = None
    ) -> list[Answer]:
        """Attack a query with every model's own gradient, and search before and after.

        Args:
            query: place of a picture in the gallery, or an image file.
            attack: one of `ATTACKS`.
            epsilon: radius in the linf norm, in pixel units; 0 leaves the query as it is.
            steps: of PGD, each a quarter of epsilon long.
            label: class of an image file; None takes that of its first result before the attack. Classes of pictures of
                the gallery are known.

        Raises:
            ConfigurationError: an unknown attack or class, no such place, or numbers out of range.
            DataError: the image file cannot be decoded.
        """
        if attack not in ATTACKS:
            raise ConfigurationError(f"attack {attack!r} is none of {', '.join(ATTACKS)}")
        if not 0 <= epsilon <= 1 or steps < 1:
            raise ConfigurationError(f"epsilon {epsilon:g} with {steps} steps is no budget; give 0 to 1, and 1 or more")
        if isinstance(query, int) and not 0 <= query < len(self.images):
            raise ConfigurationError(f"picture {query} is not there; give 0 to {len(self.images) - 1}")
        if label is not None and isinstance(query, int):
            raise ConfigurationError(f"picture {query} has a class of its own; leave the class out")
        if label is not None and label not in self.labels:
            raise ConfigurationError(f"class {label} is not in the gallery")
        budget = Budget(epsilon, STEP_SHARE * epsilon, steps)
        return [self._answer(model, query, attack, budget, label) for model in self.models]

    def _answer(
        self, model: ComparedModel, query: int | Path, attack: str, budget: Budget, label: int | None
    ) -> Answer:
        network, device = model.embedder.module, model.embedder.device
        if isinstance(query, Path):
            view = model.embedder.prepare(query).to(device)
            gallery, own = _with(model.gallery, embedded(network, view), label), len(model.gallery)
        else:
            view = read_views(model.images, torch.tensor([query]), model.embedder.image_size, network, device)
            gallery, own = model.gallery, query
        moving = torch.tensor([own], device=device)
        chosen = attack_named(attack, "strict")
        target = chosen.draw(gallery, moving, torch.Generator().manual_seed(TARGET_SEED)).to(device)
        batch = AttackBatch(gallery, moving, target)
        moved = perturb(network, view, chosen.objective(batch), budget) if budget.epsilon else view
        start, end = embedded(network, view), embedded(network, moved)
        own_label = int(gallery.labels[own])

        def results(embedding: Tensor) -> list[Result]:
            places = first_results(gallery, embedding, moving, RESULTS)[0].tolist()
            labels = [int(gallery.labels[place]) for place in places]
            return [
                Result(place, class_name(model.images, one), one == own_label)
                for place, one in zip(places, labels, strict=True)
            ]

        return Answer(
            model.name,
            results(start),
            results(end),
            float((end - start).norm()),
            int(target) if attack in AIMED else None,
            view[0].float().cpu(),
            moved[0].float().cpu(),
            visible_change(moved[0] - view[0], budget.epsilon).float().cpu(),
        )


def open_runs(
    runs: Mapping[str, Path],
    *,
    data_root: str | None = None,
    most: int,
    device: torch.device,
    progress: Callable[[str, float], None] | None = None,
) -> Comparison:
    """Load runs, and embed the pictures of their test classes with each.

    Args:
        runs: folders by the name to show.
        data_root: where the pictures are; None for where the runs found them.
        most: pictures to search at most; classes are taken whole, in order.
        device: where the models compute.
        progress: called with what is being done and its share that is done.

    Raises:
        CheckpointError: a folder holds no run.
        ConfigurationError: the runs are of different data sets.
        DataError: the pictures are not there, or a class has only one.
    """
    models: list[ComparedModel] = []
    epsilon = 0.0
    for name, folder in runs.items():
        config, network = load_run(folder)
        config = with_data_root(config, data_root)
        embedder = Embedder(
            network,
            image_size=config.data.image_size,
            stored_size=config.data.stored_size,
            channels=network.channels,
            device=device,
        )
        images = _whole_classes(load_test(config.data), most)
        if models and not torch.equal(images.labels, models[0].images.labels):
            raise ConfigurationError(
                f"{folder} was not trained on the pictures of the run before it ({config.data.name}); "
                "compare runs of one data set"
            )
        epsilon = epsilon or (config.pgd.epsilon if config.pgd.norm == "linf" else 8 / 255)
        gallery = embed_gallery(
            embedder.module,
            images,
            image_size=config.data.image_size,
            batch_size=config.evaluation.batch_size,
            device=device,
            progress=None if progress is None else _named(progress, f"embedding the pictures with {name}"),
        )
        models.append(ComparedModel(name, embedder, images, gallery))
    return Comparison(models, epsilon)


def _named(progress: Callable[[str, float], None], what: str) -> Callable[[float], None]:
    return lambda share: progress(what, share)


def _whole_classes(images: ImageSet, most: int) -> ImageSet:
    labels = images.labels
    if len(labels) <= most:
        return images
    classes, counts = labels.unique(return_counts=True)
    fitting = int((counts.cumsum(0) <= most).sum())
    if fitting < 2:
        raise DataError(f"{most} pictures are fewer than two classes of {images.name} have; ask for more")
    return subset_of(images, torch.isin(labels, classes[:fitting]).nonzero()[:, 0], images.name)


def _with(gallery: Gallery, embedding: Float[Tensor, "1 dim"], label: int | None) -> Gallery:
    """A gallery in which a picture from elsewhere stands last."""
    if label is None:
        squares = gallery.exact.squares(gallery.exact.place(embedding))
        label = int(gallery.labels[int(squares.argmin())])
    labels = torch.cat([gallery.labels, gallery.labels.new_tensor([label])])
    return Gallery(torch.cat([gallery.embeddings, embedding.to(gallery.embeddings)]), labels)
