"""What recording costs a trial."""

import tempfile
import time
from pathlib import Path

from colotride.tracking.export import Tracker
from colotride.tracking.names import epoch_metrics, val_metrics
from colotride.training.records import EpochRecord

CURVES = 24
"""Values of an epoch, about as many as COLO-TRIDE has."""


def seconds_per_epoch(uri: str, epochs: int) -> float:
    """Seconds that a search spends to record one epoch of a trial, while what was recorded is being sent.

    Args:
        uri: of the store.
        epochs: how many to record.
    """
    scores = {"R@1": 50.0, "mAP": 40.0, "ERS": 30.0, "ARS": 20.0}
    diagnostics = {f"curve {number}": 0.5 for number in range(CURVES)}
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(uri, Path(folder))
        tracker.start("trial", "trial", parameters={}, tags={})
        spent = 0.0
        for epoch in range(1, epochs + 1):
            record = EpochRecord(epoch, epoch, 1.0, diagnostics, scores)
            began = time.perf_counter()
            tracker.metrics("trial", val_metrics(scores) | epoch_metrics(record), epoch)
            spent += time.perf_counter() - began
            # A trial's epochs are further apart; so near, the sender is at work during all of them.
            time.sleep(0.01)
        tracker.close()
    return spent / epochs
