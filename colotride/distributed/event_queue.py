"""Events on their way from the workers of a run to the driver.

The module imports neither torch nor the trainer, whose import would take seconds of every run in the queue's process.
"""

import pickle
from collections.abc import Callable
from typing import Any, Literal

Event = tuple[Literal["epoch", "step"], bytes]
"""Its kind and, pickled, an `EpochRecord` or the numbers (epoch, batches done, batches)."""


class EventQueue:
    """Events from the workers to the driver, and the driver's request to stop. An actor on the driver's machine.

    Values stay pickled while they are here: reading them would import their classes.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = False
        self._outcome: bytes | None = None

    def put(self, kind: Literal["epoch", "step"], value: bytes) -> None:
        """Add an event."""
        self._events.append((kind, value))

    def take(self) -> list[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def ask_to_stop(self) -> None:
        """Make the workers write a checkpoint and end."""
        self._stop = True

    def stopped(self) -> bool:
        """Whether the driver has asked to stop."""
        return self._stop

    def end(self, outcome: bytes) -> None:
        """Set how the run ended: its pickled `Outcome`."""
        self._outcome = outcome

    def outcome(self) -> bytes | None:
        """How the run ended; None while it is running."""
        return self._outcome


class EventRelay:
    """Passes events on, each epoch once: workers that start again report all epochs from before."""

    def __init__(self, on_epoch: Callable[[Any], None] | None, on_step: Callable[[int, int, int], None] | None) -> None:
        """Begin before the first epoch.

        Args:
            on_epoch: called with the `EpochRecord` of every epoch.
            on_step: called with (epoch, batches done, batches).
        """
        self._on_epoch, self._on_step, self._epochs = on_epoch, on_step, 0

    def send(self, events: list[Event]) -> None:
        """Read events and pass them on in their order."""
        for kind, packed in events:
            value = pickle.loads(packed)
            if kind == "step" and self._on_step:
                self._on_step(*value)
            elif kind == "epoch" and value.epoch > self._epochs:
                self._epochs = value.epoch
                if self._on_epoch:
                    self._on_epoch(value)
