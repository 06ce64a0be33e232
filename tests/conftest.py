import os
import sys
from collections import Counter

import jaxtyping
import pytest
import torch

from colotride.registry import ATTACKS, DATASETS, DEFENSES, LOSSES, MINERS

REGISTRIES = (ATTACKS, DATASETS, DEFENSES, LOSSES, MINERS)

# Ray's workers would give way to every other process, the other tests among them, until what waits for them gives up.
os.environ.setdefault("RAY_worker_niceness", "0")

WHOLE_RUNS = frozenset({"training", "tune", "tracking", "reproduction", "cli", "docs", "benchmarks", "scripts"})
"""Directories of tests that run the same mathematics over and over; its shapes and types are checked in the others."""


def pytest_collection_modifyitems(items):
    # Files with many slow tests come first; otherwise the last of them runs alone while the other processes idle.
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def _one_thread():
    # Two cores are shared with Ray's workers in some tests, and sums must not depend on how many threads were free.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _types_and_shapes_are_checked(request):
    # Every call is compared with its annotations, which doubles the time of a training.
    jaxtyping.config.update("jaxtyping_disable", request.path.parent.name in WHOLE_RUNS)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _no_plugin_is_left():
    # What a test's plugin registered must not be known to the next test in this process.
    before = {registry: registry.names() for registry in REGISTRIES}
    yield
    for registry, names in before.items():
        for name in set(registry.names()) - set(names):
            del registry._members[name]


@pytest.fixture(scope="module", autouse=True)
def _no_ray_is_left():
    # Ray that one test file started must not stay for the next one in this process.
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.fixture(scope="module", autouse=True)
def _no_module_is_left(tmp_path_factory):
    # A module that one test file wrote must not be taken for another one's of the same name.
    yield
    written = str(tmp_path_factory.getbasetemp())
    for name, module in sys.modules.copy().items():
        if str(getattr(module, "__file__", None)).startswith(written):
            del sys.modules[name]
