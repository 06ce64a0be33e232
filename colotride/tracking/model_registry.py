"""Models in MLflow: registered with everything that belongs to them, and loaded again."""

import contextlib
import logging
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import mlflow.pytorch
import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from torch import nn

from colotride.data.augmentation import evaluation_view
from colotride.data.splits import load_splits
from colotride.errors import ModelError
from colotride.external_models import untrusted
from colotride.registry import modules_of_working_directory
from colotride.tracking.names import CONFIG_FILE, metric_name
from colotride.training.runs import load_run

EXAMPLES = 2
"""Images of the input example."""


OF_STORE = re.compile(r"(models|runs):/(?!/)")
"""Begins the addresses of models in the store that is in use; any other address names its own place."""

HOSTED = ("databricks", "databricks-uc", "uc")
"""Stores without an address."""

CHAMPION = "champion"
"""Alias of the version with the highest ARS on the test side: `models:/NAME@champion`."""


def register(
    client: MlflowClient,
    uri: str,
    run: str,
    directory: Path,
    name: str,
    scores: Mapping[str, float],
    description: str = "",
) -> None:
    """Log the model of a run's directory with signature, input example and configuration, and register it.

    A model that this run registered already is left as it is.

    Args:
        client: of the store.
        uri: of the store.
        run: MLflow's id of the run that the model belongs to.
        directory: of the run, as the trainer left it.
        name: of the registered model; created where it is new.
        scores: become tags of its version; the one with the highest ARS is the champion.
        description: of the version.

    Raises:
        ColoTrideError: the directory holds no run, or its images cannot be read.
    """
    known = client.search_model_versions(f"run_id = '{run}'")
    if known:
        return
    config, model = load_run(directory)
    pixels = load_splits(config.data).test.pixels(torch.arange(EXAMPLES))
    example = evaluation_view(pixels, config.data.image_size)
    with torch.no_grad():
        embeddings = model(example)
    mlflow.set_tracking_uri(uri)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings(), mlflow.start_run(run_id=run, log_system_metrics=False):
        warnings.simplefilter("ignore")
        mlflow.log_artifact(str(directory / CONFIG_FILE))
        logged = mlflow.pytorch.log_model(
            model,
            name="model",
            signature=infer_signature(example.numpy(), embeddings.numpy()),
            input_example=example.numpy().astype(np.float32),
            # Inferring them would start a process that imports everything once more.
            pip_requirements=["colotride", f"torch=={torch.__version__.partition('+')[0]}"],
            serialization_format="pickle",
        )
    with contextlib.suppress(MlflowException):
        client.create_registered_model(
            name,
            description=f"Embeds images of {config.data.name} for retrieval; trained against adversarial queries and "
            f"galleries by ColoTride. `models:/{name}@{CHAMPION}` is the version with the highest ARS on the test side.",
        )
    tags = {metric_name(score): f"{value:.4g}" for score, value in scores.items()}
    # MLflow's own function prints to the terminal, in the middle of whatever is drawn there.
    version = client.create_model_version(
        name,
        source=f"models:/{logged.model_id}",
        run_id=run,
        model_id=logged.model_id,
        tags={**tags, "defense": config.defense.name, "dataset": config.data.name},
        description=description,
    )
    if scores.get("ARS", 0.0) >= _champion_ars(client, name):
        client.set_registered_model_alias(name, CHAMPION, version.version)


def _champion_ars(client: MlflowClient, name: str) -> float:
    try:
        return float(client.get_model_version_by_alias(name, CHAMPION).tags.get("ARS", "-inf"))
    except MlflowException:
        return -math.inf


def load_registered(uri: str, tracking_uri: str, *, trust: bool = False) -> nn.Module:
    """The PyTorch model behind an MLflow URI, on the CPU.

    Models in MLflow are pickles. Those of a store on this machine are loaded as they are; any other one has to be
    trusted.

    Args:
        uri: `models:/name/version`, `runs:/id/path`, or another place that MLflow reads models from.
        tracking_uri: of the store.
        trust: whether a model from elsewhere may run code while it is loaded.

    Raises:
        ModelError: MLflow finds no such model, cannot load it as a PyTorch one, or it is not trusted.
    """
    if not trust and not (OF_STORE.match(uri) and is_on_this_machine(tracking_uri)):
        raise untrusted(uri, "is a pickle that does not come from an MLflow store on this machine")
    mlflow.set_tracking_uri(tracking_uri)
    try:
        with modules_of_working_directory(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: nn.Module = mlflow.pytorch.load_model(uri, map_location="cpu")
    except Exception as error:
        # A pickle may raise anything, and so may MLflow's many kinds of stores.
        reason = " ".join(str(error).split())
        raise ModelError(f"model {uri} cannot be loaded from MLflow ({reason}); see it with make ui") from None
    return model


def is_on_this_machine(tracking_uri: str) -> bool:
    """Whether a store is a file, or a server that listens on the loopback address."""
    address = urlsplit(tracking_uri)
    if address.scheme in ("http", "https"):
        return address.hostname in ("localhost", "127.0.0.1", "::1")
    # MLflow takes the one word without a scheme for Databricks' servers, any other for a folder.
    return address.scheme in ("", "file", "sqlite") and not address.netloc and tracking_uri not in HOSTED
