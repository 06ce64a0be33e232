"""The load of this machine, under MLflow's own names, so that its page of system metrics shows it."""

import contextlib
import threading
from collections.abc import Callable

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from colotride.errors import StorageError

SECONDS = 10.0
"""Between two samples."""


class SystemMetrics:
    """Samples this machine in the background until it is stopped."""

    def __init__(self, record: Callable[[dict[str, float]], None], seconds: float = SECONDS) -> None:
        """Start to sample.

        Args:
            record: takes each sample, from another thread.
            seconds: between two samples.
        """
        self._record, self._seconds = record, seconds
        self._monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        # Raised where there is no NVIDIA driver, or no library that asks it.
        with contextlib.suppress(ImportError, RuntimeError):
            self._monitors.append(GPUMonitor())
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._stopped.set()
        self._thread.join(1.0)

    def _work(self) -> None:
        while not self._stopped.wait(self._seconds):
            sample: dict[str, float] = {}
            for monitor in self._monitors:
                monitor.collect_metrics()
                sample |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            # The process itself reports a disk that is full, with its next record.
            with contextlib.suppress(StorageError):
                self._record(sample)
