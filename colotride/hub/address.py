"""`hf://user/name` as a model: fetched into the hub's own cache, and read as a run's folder."""

import importlib
import os
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from colotride.backbones import is_own
from colotride.documents import read_yaml
from colotride.errors import ConfigurationError, ModelError

SCHEME = "hf://"

PATTERN = re.compile(r"hf://([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")

FETCHED = ("config.yaml", "model.safetensors", "published.json", "record.json")
"""What is read of a repository: no code, and nothing pickled."""


@dataclass(frozen=True)
class HubAddress:
    """A repository, and one of its revisions."""

    repository: str
    revision: str | None

    @classmethod
    def parse(cls, text: str) -> "HubAddress":
        """Read `hf://user/name` or `hf://user/name@revision`.

        Raises:
            ConfigurationError: another form.
        """
        found = PATTERN.fullmatch(text)
        if found is None or ".." in text:
            raise ConfigurationError(
                f"{text} is no address on the hub; give hf://USER/NAME, or hf://USER/NAME@REVISION"
            )
        return cls(found[1], found[2])


def is_hub_address(spec: str | PathLike[str]) -> bool:
    """Whether a model is given as an address on the hub."""
    return os.fspath(spec).startswith(SCHEME)


def local_copy(spec: str | PathLike[str]) -> Path:
    """The folder of a run: as given, or fetched from the hub into its cache (`HF_HOME`).

    Args:
        spec: a folder, or `hf://user/name[@revision]`.

    Raises:
        ConfigurationError: no address, or huggingface_hub is not installed.
        ModelError: no such repository or revision, no access, no connection, or a repository that `colotride push` did
            not make.
    """
    if not is_hub_address(spec):
        return Path(spec)
    address = HubAddress.parse(os.fspath(spec))
    hub = hub_library("reading a model from the hub")
    try:
        folder = Path(
            hub.snapshot_download(
                address.repository, revision=address.revision, allow_patterns=list(FETCHED), endpoint=endpoint()
            )
        )
    except Exception as error:
        # The library has errors of its own, of requests and of httpx.
        raise ModelError(f"{spec} cannot be fetched: {reason_of(error)}") from None
    if not (folder / "published.json").is_file():
        raise ModelError(
            f"{spec} was not made by colotride push: it has no published.json; models of others are "
            "timm:hf-hub:USER/NAME and open_clip:hf-hub:USER/NAME"
        )
    _check_plain(folder, os.fspath(spec))
    return folder


def _check_plain(folder: Path, spec: str) -> None:
    """Refuse a configuration that would import a module: a stranger may have written it."""
    values = read_yaml(folder / "config.yaml", "configuration", ModelError)
    plugins = values.get("plugins") if isinstance(values, dict) else None
    model = values.get("model") if isinstance(values, dict) else None
    architecture = model.get("architecture") if isinstance(model, dict) else None
    if plugins or (isinstance(architecture, str) and is_own(architecture)):
        raise ModelError(
            f"{spec} would import {plugins or architecture} when it is loaded, which may be any code; fetch it with hf "
            "download, read it, and give its folder"
        )


def hub_library(what: str) -> Any:
    """The package huggingface_hub, which is an extra.

    Raises:
        ConfigurationError: it is not installed.
    """
    # Both write to the terminal on their own.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module("huggingface_hub")
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"{what} needs huggingface_hub, which is not installed: pip install 'colotride[hub]'"
        ) from None


def endpoint() -> str | None:
    """Address of another hub than the public one, as `HF_ENDPOINT` names it."""
    return os.environ.get("HF_ENDPOINT") or None


def reason_of(error: BaseException) -> str:
    """Why the hub refused, in one line."""
    kinds = {
        "RepositoryNotFoundError": "there is no such repository, or you may not read it; log in with hf auth login",
        "GatedRepoError": "its owner has to let you in; ask on its page, then log in with hf auth login",
        "RevisionNotFoundError": "it has no such revision",
        "LocalEntryNotFoundError": "the hub does not answer and there is no copy here; see to the connection",
        "ConnectError": "the hub does not answer; see to the connection",
        "ConnectionError": "the hub does not answer; see to the connection",
    }
    for kind in type(error).__mro__:
        if kind.__name__ in kinds:
            return kinds[kind.__name__]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "you may not do that; log in with hf auth login"
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
