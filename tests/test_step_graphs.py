"""Recorded steps, without a GPU: a tape that replays the same operations on the same memory, as a CUDA graph does.

What a tape cannot show is CUDA itself. What it does show is that a step may be recorded: replayed without the host, it
gives bitwise what the host would have asked for. Tensors that are brought from the host leave no trace on a CPU.
"""

import copy
import inspect
import pickle
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from colotride.defenses import DEFENSES, Batch, StepInfo, build_defense
from colotride.models import ModelSettings, build_model
from colotride.pgd import FixedSteps, perturb
from colotride.pgd_settings import Budget
from colotride.presets import with_defense
from colotride.step_graphs import CudaGraphs
from colotride.training.runs import load_run
from colotride.training.trainer import Trainer, defense_context
from tests.defenses.scenes import draw
from tests.toys import random_images
from tests.training.test_trainer import images as images_of_classes
from tests.training.test_trainer import small

MADE_ON_THE_HOST = {"lift_fresh", "_local_scalar_dense"}


class Tape(TorchDispatchMode):
    """Operations in order, with the tensors that they read and write; a replay writes into the same ones."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.operations.append((operation, *tree_map_only(Tensor, Tensor.detach, (args, kwargs or {}, result))))
        return result

    @torch.no_grad()
    def replay(self):
        for operation, args, kwargs, result in self.operations:
            again = operation(*args, **kwargs)
            if operation.is_view or operation._schema.is_mutable:
                continue
            held = [result] if isinstance(result, Tensor) else list(result)
            made = [again] if isinstance(again, Tensor) else list(again)
            for old, new in zip(held, made, strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Tapes:
    """A recorder for CPUs."""

    def __init__(self):
        self.replayed = 0
        self.names = set()

    def serves(self, device):
        return True

    def record(self, step, device):
        with Tape() as tape:
            step()
        self.names |= {operation.overloadpacket.__name__ for operation, *_ in tape.operations}

        def replay():
            self.replayed += 1
            tape.replay()

        return replay


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    """Nobody asks whether anything can still move."""
    monkeypatch.setattr(FixedSteps, "can_move", lambda rule, gradient: True)


def network(recorder=None, architecture="two-convolutions", channels=1, **values):
    settings = ModelSettings(architecture=architecture, embedding_dim=16, weights="none", **values)
    model = build_model(settings, channels=channels, image_size=32 if channels == 3 else 8, seed=0)
    model.recorder = recorder
    return model


def trained_on(name, changes, step, recorder):
    """Loss, gradient, diagnostics and passes of one batch."""
    config = with_defense(small(), name).with_values({"pgd.steps": 5} | changes)
    model = network(recorder).train()
    defense = build_defense(config.defense, defense_context(config))
    batch = Batch(random_images(8, (1, 8, 8)), random_images(8, (1, 8, 8), seed=1), torch.arange(8) % 4)
    loss, diagnostics = defense.batch_loss(model, batch, StepInfo(2, 4, step), draw())
    loss.backward()
    return [loss.detach(), *diagnostics.values(), *(p.grad for p in model.parameters())], model.passes


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((name, {}) for name in DEFENSES),
        ("colo-tride", {"pgd.step_back": 2}),
        ("colo-tride-relative", {"collapseness.weight_gradient": "through", "training.metric": "cosine"}),
        ("act", {"pgd.norm": "l2", "pgd.random_start": 1.0}),
    ],
)
def test_a_replayed_step_of_every_defense_is_the_step_itself_bit_by_bit(name, changes, step):
    recorder = Tapes()
    expected, passes = trained_on(name, changes, step, None)
    got, counted = trained_on(name, changes, step, recorder)
    assert counted == passes
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert recorder.replayed == (0 if name == "natural" else 4)
    # A number that is made on the host would stay what it was in every batch to come, or stop the recording.
    assert not recorder.names & MADE_ON_THE_HOST


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_with_folded_batchnorm_in_either_precision_can_be_recorded(precision):
    images, budget = random_images(4, (3, 32, 32)), Budget(0.1, 0.02, 4)
    recorder = Tapes()
    got, expected = (
        perturb(
            network(one, "resnet18", 3, precision=precision).eval(), images, lambda e: e[:, 0], budget, recorded=True
        )
        for one in (recorder, None)
    )
    assert recorder.replayed == 3
    assert torch.equal(got, expected)


def test_a_step_that_decides_on_the_host_would_be_seen():
    """The objective changes sides with every call, which a replay cannot know."""

    def there_and_back():
        signs = iter([1, -1] * 10)
        return lambda embeddings: next(signs) * embeddings[:, 0]

    images, budget = random_images(4, (1, 8, 8)), Budget(0.2, 0.05, 4)
    got, expected = (
        perturb(network(recorder).eval(), images, there_and_back(), budget, recorded=True)
        for recorder in (Tapes(), None)
    )
    assert not torch.equal(got, expected)


def test_neither_few_steps_nor_those_of_an_evaluation_are_recorded():
    """What an evaluation minimises may watch its own course in Python."""
    recorder, images = Tapes(), random_images(4, (1, 8, 8))
    perturb(network(recorder).eval(), images, lambda e: e[:, 0], Budget(0.1, 0.05, 2), recorded=True)
    perturb(network(recorder).eval(), images, lambda e: e[:, 0], Budget(0.1, 0.05, 9))
    assert recorder.replayed == 0


def test_the_setting_makes_a_recorder_for_gpus_which_a_loaded_run_does_not_need(tmp_path):
    config = small(**{"model.cuda_graphs": True, "training.epochs": 1})
    Trainer(config, images_of_classes(), None, device=torch.device("cpu"), directory=tmp_path).run()
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    made = build_model(config.model, channels=1, image_size=8, seed=0)
    assert [made.records(gpu), made.records(cpu)] == [True, False]
    assert not load_run(tmp_path)[1].records(gpu)
    with pytest.raises(ValueError, match="compile and cuda_graphs exclude each other"):
        ModelSettings(compile=True, cuda_graphs=True)


def test_a_model_with_a_recorder_can_be_copied_and_pickled():
    model = network(CudaGraphs())
    model.recorder._graph = (one for one in ())  # Like a graph, what cannot be copied.
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.records(torch.device("cuda"))
        assert again.recorder._graph is None


class OnCpu(CudaGraphs):
    """The recorder for GPUs, in front of a CUDA that only remembers what is asked of it."""

    def serves(self, device):
        return self.refused is None


class FakeCuda:
    """Streams that do nothing, and graphs that hold a tape; recording computes nothing, as on a GPU."""

    def __init__(self, moving, fails):
        self.calls = []
        cuda = self

        class Stream:
            def __init__(self, device=None):
                pass

            def wait_stream(self, other):
                cuda.calls.append("wait")

        class Graph:
            def capture_begin(self, pool, capture_error_mode):
                cuda.calls.append(f"begin {pool} {capture_error_mode}")
                if fails == "begin":
                    raise RuntimeError("CUDA error: it cannot begin\nand more")
                self.kept, self.tape = moving().clone(), Tape()
                self.tape.__enter__()

            def capture_end(self):
                cuda.calls.append("end")
                self.tape.__exit__(None, None, None)
                moving().copy_(self.kept)
                if fails in ("step", "end"):
                    raise RuntimeError("CUDA error: it cannot end")

            def replay(self):
                cuda.calls.append("replay")
                self.tape.replay()

        @contextmanager
        def stream(one):
            yield

        self.parts = {
            "Stream": Stream,
            "CUDAGraph": Graph,
            "stream": stream,
            "current_stream": Stream,
            "graph_pool_handle": lambda: "pool",
        }


def perturbed(monkeypatch, *, fails=None, times=1, error=RuntimeError):
    """What the recorder for GPUs makes of five steps, and what it asked CUDA for.

    Args:
        monkeypatch: pytest's.
        fails: warm-up, begin, step or end.
        times: how often.
        error: that a step raises.
    """
    state = {"steps": 0}
    step = FixedSteps.step

    def watched(rule, moving, *rest):
        state["at"] = state.get("at", moving)
        state["steps"] += 1
        if state["steps"] == {"warm-up": 1, "step": 2}.get(fails):
            raise error("CUDA error: this operation cannot be recorded")
        return step(rule, moving, *rest)

    model, found = network(OnCpu()).eval(), []
    with monkeypatch.context() as patch:
        patch.setattr(FixedSteps, "step", watched)
        cuda = FakeCuda(lambda: state["at"], fails)
        for name, part in cuda.parts.items():
            patch.setattr(torch.cuda, name, part)
        for _ in range(times):
            state.pop("at", None)
            budget = Budget(0.2, 0.03, 5)
            found.append(perturb(model, random_images(4, (1, 8, 8)), lambda e: e[:, 0], budget, recorded=True))
    return found, cuda.calls, model


def without_graphs():
    return perturb(network().eval(), random_images(4, (1, 8, 8)), lambda e: e[:, 0], Budget(0.2, 0.03, 5))


def test_a_step_is_taken_once_recorded_once_and_replayed_for_the_rest(monkeypatch):
    found, calls, model = perturbed(monkeypatch, times=2)
    assert all(torch.equal(one, without_graphs()) for one in found)
    assert calls == 2 * ["wait", "begin pool thread_local", "end", "wait", "replay", "replay", "replay", "replay"]
    assert model.passes == 2 * 5 * 4


@pytest.mark.parametrize(
    ("fails", "reason", "asked"),
    [
        ("begin", "it cannot begin", []),
        ("step", "this operation cannot be recorded", ["end"]),
        ("end", "it cannot end", ["end"]),
    ],
)
def test_where_recording_fails_the_steps_go_on_without_it_and_one_line_says_why(monkeypatch, fails, reason, asked):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found, calls, model = perturbed(monkeypatch, fails=fails, times=2)
    assert all(torch.equal(one, without_graphs()) for one in found)
    assert [str(one.message) for one in said] == [
        f"perturbations run without CUDA graphs, which failed: CUDA error: {reason}"
    ]
    assert calls == ["wait", "begin pool thread_local", *asked, "wait"], "it is not tried again"
    assert model.passes == 2 * 5 * 4


def test_a_step_that_fails_by_itself_is_an_error_as_ever(monkeypatch):
    """Searches know a trial that ran out of memory by it."""
    with pytest.raises(torch.OutOfMemoryError):
        perturbed(monkeypatch, fails="warm-up", error=torch.OutOfMemoryError)


def test_torch_takes_the_arguments_of_the_recording():
    taken = inspect.signature(torch.cuda.CUDAGraph.capture_begin).parameters
    assert {"pool", "capture_error_mode"} <= taken.keys()
