"""Steps that are recorded once and replayed: what a device is asked to do, without the host's time to ask for it.

On small images the host needs longer to queue the operations of a PGD step than a GPU to carry them out. A CUDA graph
holds all of them, and is queued by one call. It repeats the same operations on the same memory, so that it serves
a step which changes tensors in place and decides nothing on the host.
"""

import warnings
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch


@runtime_checkable
class StepRecorder(Protocol):
    """Records a step of a perturbation."""

    def serves(self, device: torch.device) -> bool:
        """Whether steps on this device are recorded."""

    def record(self, step: Callable[[], object], device: torch.device) -> Callable[[], object]:
        """Take a step once, and return what takes it again.

        Args:
            step: changes the same tensors in place every time, decides nothing in Python, and reads nothing back from
                the device.
            device: where it computes.
        """


class CudaGraphs:
    """Records steps as CUDA graphs.

    A graph is recorded anew for every perturbation, from its second step, which costs the host about as much as that
    step: whatever the objective holds is in it by its address, and nothing has to be copied into buffers of its own.
    All graphs of a recorder share their memory, one after the other; it is kept for the next one, beside what training
    and evaluating need: once more the activations of a perturbation.
    """

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self.refused: str | None = None
        """Why steps are not recorded any more, once recording has failed."""

    def serves(self, device: torch.device) -> bool:
        """See `StepRecorder`: GPUs of CUDA, as long as recording has not failed."""
        return device.type == "cuda" and self.refused is None

    def record(self, step: Callable[[], object], device: torch.device) -> Callable[[], object]:
        """See `StepRecorder`; where recording fails, says so in one line and returns the step itself.

        Raises:
            Exception: whatever the step itself raises, such as `torch.OutOfMemoryError`.
        """
        if self._stream is None:
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                # On the stream of the recording: libraries make their workspaces at the first call on a stream.
                step()
                error = _recorded(graph, self._pool, step)
        finally:
            current.wait_stream(self._stream)
        if error is not None:
            self.refused = str(error).strip().split("\n")[0]
            warnings.warn(f"perturbations run without CUDA graphs, which failed: {self.refused}", stacklevel=2)
            return step
        # The one before is let go only now, because a pool lasts as long as one of its graphs.
        self._graph = graph
        return graph.replay

    def __reduce__(self) -> tuple[type["CudaGraphs"], tuple[()]]:
        """Copy and pickle as a recorder that has recorded nothing: a graph belongs to its process."""
        return CudaGraphs, ()


def _recorded(graph: Any, pool: Any, step: Callable[[], object]) -> RuntimeError | None:
    """Record a step into a graph without taking it; returns the first error, which names the operation."""
    try:
        # Other threads may go on: those that bring the next batch allocate memory.
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    except RuntimeError as error:
        return error
    first: RuntimeError | None = None
    try:
        step()
    except RuntimeError as error:
        first = error
    try:
        graph.capture_end()
    except RuntimeError as error:
        first = first or error
    return first
