"""The notice of a machine that its cloud takes away, for a process that Ray started by itself and not in a group.

Workers of Ray Train have their own, which all of a group hear together; see `ray_train.PreemptionNotice`.
"""

import math
import time
from collections.abc import Callable

import ray
from ray.exceptions import RayError

SECONDS = 5.0
"""Between two questions to Ray's control; a spot machine is announced 30 seconds or more before it goes."""


def draining() -> bool:
    """Whether Ray is draining the machine of this process; false where Ray does not say, which must cost no run.

    Ray answers this to nobody but itself: it is the question that Ray Train asks for its workers.
    """
    if not ray.is_initialized():
        return False
    try:
        from ray._private.state import state

        return ray.get_runtime_context().get_node_id() in state.get_draining_nodes()
    except (ImportError, AttributeError, RayError):
        return False


class DrainNotice:
    """Whether it is time to save because the machine of this process is about to be taken away.

    It is, every few seconds from the announcement until the machine goes, so that no more than those are lost.
    """

    def __init__(self, ask: Callable[[], bool] = draining, seconds: float = SECONDS) -> None:
        """Begin with no notice.

        Args:
            ask: Ray's question.
            seconds: between two of them.
        """
        self._ask, self._seconds, self._next = ask, seconds, -math.inf

    def __call__(self) -> bool:
        """Ask, unless that was done a moment ago."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return self._ask()
