"""Publishing a run: its weights, configuration, scores and a model card, in a folder or on the Hugging Face hub."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from colotride.errors import ConfigurationError, ModelError
from colotride.hub.address import HubAddress, endpoint, hub_library, is_hub_address, reason_of
from colotride.io import new_folder, write_atomically
from colotride.leaderboard.records import Record, record_of, write_record
from colotride.markdown import escape
from colotride.templates import render
from colotride.training.runs import load_run, origin_of, save_published, start_of


@dataclass(frozen=True)
class Card:
    """What the card says beside the scores."""

    name: str
    licence: str
    """Identifier of the hub, such as "apache-2.0"."""
    authors: str = ""
    commit: str | None = None
    """Of the code that publishes, where it is a checkout."""


def write_files(run: Path, folder: Path, card: Card, *, address: str) -> Record:
    """Write what is published of a run into a folder: `model.safetensors`, `config.yaml`, `record.json`, `README.md`.

    Args:
        run: the run's folder, evaluated.
        folder: an empty one, made where it is missing.
        card: name, licence and authors.
        address: where it will be read from, for the card's example.

    Raises:
        CheckpointError: the folder holds no run, or the run was not evaluated.
    """
    record = record_of(run, model=card.name, authors=card.authors)
    config, model = load_run(run)
    folder.mkdir(exist_ok=True)
    # The paths of this machine are nobody else's; a file of start weights is overwritten by those of the end anyway.
    settings = config.model.untrained() if config.model.weights_sha256 is not None else config.model
    published = config.model_copy(update={"model": settings}).with_values({"data.root": "data"})
    origin = origin_of(run)
    save_published(published, model, folder, start=start_of(run, config), origin=origin)
    write_record(folder / "record.json", record)
    write_atomically(folder / "README.md", card_of(record, card, address, config.data.image_size, origin).encode())
    return record


def card_of(record: Record, card: Card, address: str, image_size: int, origin: str = "") -> str:
    """The model card: metadata that the hub reads, then what a reader wants to know.

    Args:
        record: the scores.
        card: name, licence and authors.
        address: where the model will be read from.
        image_size: side in pixels that the network sees.
        origin: of what the weights were made, where they were not trained.
    """
    scores = record.scores()
    metrics = [
        {"type": name, "name": name, "value": round(scores[name], 2)}
        for name in ("R@1", "mAP", "ERS", "ARS")
        if name in scores
    ]
    task = {"type": "image-feature-extraction", "name": "image retrieval"}
    source = {"type": record.dataset, "name": record.dataset}
    metadata = {
        "license": card.licence,
        "library_name": "colotride",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["image-retrieval", "adversarial-robustness", "metric-learning"],
        "model-index": [{"name": card.name, "results": [{"task": task, "dataset": source, "metrics": metrics}]}],
    }
    levels = record.epsilon * 255
    return render(
        "colotride.hub",
        "card.md.j2",
        filters={"text": escape},
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True),
        record=record,
        card=card,
        address=address,
        image_size=image_size,
        origin=origin,
        epsilon=f"{levels:.3g}/255" if record.norm == "linf" else f"{record.epsilon:.3g}",
        rows=[
            (name, f"{value:.2f}" if name in ("TMA", "ES:D") else f"{value:.1f}", _interval(record, name))
            for name, value in scores.items()
        ],
    )


def push(run: Path, to: str, card: Card, *, private: bool = False) -> str:
    """Publish a run.

    Args:
        run: the run's folder, evaluated.
        to: `hf://user/name`, which is made where it is missing, or a new folder on this machine.
        card: name, licence and authors.
        private: whether a new repository is for its owner alone.

    Returns:
        Where it is now: the folder, or the address of the commit.

    Raises:
        CheckpointError: no run, or not evaluated.
        ConfigurationError: no address, a folder that is there already, or huggingface_hub is not installed.
        ModelError: the hub refused; nothing was changed there but perhaps an empty repository made.
    """
    if not is_hub_address(to):
        if "://" in to:
            raise ConfigurationError(f"{to} is no place to publish to; give hf://USER/NAME or a folder")
        folder = Path(to)
        if folder.exists():
            raise ConfigurationError(f"{folder} is there already; give a new folder")
        with new_folder(folder) as made:
            write_files(run, made, card, address=str(folder))
        return str(folder)
    address = HubAddress.parse(to)
    if address.revision is not None:
        raise ConfigurationError(f"{to} names a revision; push makes one itself, so leave @{address.revision} out")
    hub = hub_library("publishing on the hub")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "files"
        write_files(run, folder, card, address=to)
        api = hub.HfApi(endpoint=endpoint())
        try:
            api.create_repo(address.repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=address.repository, folder_path=str(folder), commit_message=f"Publish {card.name}"
            )
        except Exception as error:
            # The library has errors of its own, of requests and of httpx.
            raise ModelError(f"{to} was not published: {reason_of(error)}") from None
    return str(getattr(commit, "commit_url", to))


def _interval(record: Record, name: str) -> str:
    found = record.intervals.get(name)
    digits = 2 if name in ("TMA", "ES:D") else 1
    return "" if found is None else f"{found[0]:.{digits}f} to {found[1]:.{digits}f}"
