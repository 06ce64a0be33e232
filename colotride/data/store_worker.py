"""A process that decodes images into a store that is being made: one job per line of its input, one answer per line.

It is started as a module of its own, not through `multiprocessing`, which would run the user's script again in every
worker. It ends with its input, and so never outlives the process that started it.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from colotride.data.decoding import decode
from colotride.data.store_file import digest_of
from colotride.errors import DataError


@dataclass(frozen=True)
class Job:
    """Images that lie one after the other in a file of pixels."""

    part: str
    """The file; it is there."""
    offset: int
    """Bytes before the first image."""
    paths: list[str]
    size: int
    """Side in pixels."""
    images: str
    """Name of the set, for messages."""


def fill(job: Job) -> str:
    """Decode a job's images and write their pixels, so that they are on the disk when this returns; their digest.

    Raises:
        DataError: an image that cannot be decoded.
        OSError: the disk is full.
    """
    # Opened before the decoding: should another process begin anew meanwhile, this writes into the file of old.
    with open(job.part, "r+b", buffering=0) as part:
        pixels = np.empty((len(job.paths), 3, job.size, job.size), np.uint8)
        for place, path in enumerate(job.paths):
            pixels[place] = decode(Path(path), job.size, job.images)
        rest = pixels.data.cast("B")
        while rest:
            rest = rest[os.pwrite(part.fileno(), rest, job.offset + pixels.nbytes - len(rest)) :]
        os.fdatasync(part.fileno())
    return digest_of(pixels)


class Worker:
    """A decoding process, seen from the one that started it."""

    def __enter__(self) -> "Worker":
        known = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": known},
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def __call__(self, job: Job) -> str:
        """Have a job done; see `fill`.

        Raises:
            DataError: also when the process was killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asdict(job)) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise DataError(
                f"a process that decodes {job.images} was killed (exit code {self._process.wait()}), perhaps for want "
                "of memory; run this again to go on"
            )
        told = json.loads(answer)
        if "number" in told:
            raise OSError(told["number"], told["error"])
        if "error" in told:
            raise DataError(told["error"])
        return told["digest"]


def main() -> None:
    """Do jobs until the input ends."""
    # Ctrl-C reaches all processes of a terminal; the one that was asked decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        try:
            answer: dict[str, str | int] = {"digest": fill(Job(**json.loads(line)))}
        except DataError as error:
            answer = {"error": str(error)}
        except OSError as error:
            answer = {"error": error.strerror or str(error), "number": error.errno or 0}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
