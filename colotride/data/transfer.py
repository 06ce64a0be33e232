"""Files over HTTP: resumed after every interruption, and checked before they get their name."""

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import requests
from urllib3.exceptions import HTTPError

from colotride.errors import DataError

CHUNK = 1 << 14
TIMEOUT = 30.0
"""Seconds without an answer, or without a byte, after which a connection counts as dropped."""

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each retry of a connection that transferred nothing; a connection that transferred something resets
them."""

TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which a retry may succeed."""

OnBytes = Callable[[int, int | None], None]
"""Called with the bytes that are done, and their total where it is known."""


def fetch(url: str, path: Path, *, md5: str, size: int | None, on_bytes: OnBytes) -> None:
    """Download a file to `path`, unless it is there with the right content.

    It grows in `path`.part, which a later call continues, and is renamed when its checksum is right. A file with
    another checksum is deleted and fetched once more.

    Args:
        url: of the file, http or https.
        path: where it goes; its folder exists.
        md5: its checksum, as hexadecimal digits.
        size: its bytes, for servers that send no length.
        on_bytes: called as it grows.

    Raises:
        DataError: no such file, no connection, or another content twice.
    """
    if path.is_file() and md5_of(path) == md5:
        return
    part = path.with_name(f"{path.name}.part")
    for _ in range(2):
        _receive(url, part, size, on_bytes, _other_ways(path, md5))
        found = md5_of(part)
        if found == md5:
            os.replace(part, path)
            return
        part.unlink()
    raise DataError(
        f"{url} has the MD5 checksum {found}, expected {md5}, twice over, and was deleted; {_other_ways(path, md5)}"
    )


def md5_of(path: Path) -> str:
    """The MD5 checksum of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _receive(url: str, part: Path, size: int | None, on_bytes: OnBytes, remedy: str) -> None:
    """Continue a part until it is complete, over as many connections as that takes."""
    furthest, pauses = _length(part), iter(PAUSES)
    while True:
        try:
            return _append(url, part, size, on_bytes)
        except (requests.RequestException, HTTPError) as error:
            reason = _reason(error)
            if _is_permanent(error):
                raise DataError(f"{url} cannot be fetched ({reason}); {remedy}") from None
        if _length(part) > furthest:
            furthest, pauses = _length(part), iter(PAUSES)
        pause = next(pauses, None)
        if pause is None:
            raise DataError(
                f"{url} cannot be fetched now ({reason}); {_length(part):,} bytes are kept: run this again to continue, "
                f"or {remedy}"
            )
        time.sleep(pause)


def _append(url: str, part: Path, size: int | None, on_bytes: OnBytes) -> None:
    """Request once what a part lacks; a server that sends the whole file again overwrites it."""
    done = _length(part)
    # A compressed answer has another length and other offsets than the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416 and done:
            return
        answer.raise_for_status()
        start, total = _extent(answer, size)
        if start not in (0, done):
            part.unlink()
            raise requests.ConnectionError(f"asked for bytes from {done} on, it sent them from {start} on")
        with part.open("ab" if start else "wb") as file:
            # Servers call a .tgz "gzip-encoded", and decoding would leave a file of another checksum.
            for piece in answer.raw.stream(CHUNK, decode_content=False):
                file.write(piece)
                on_bytes(file.tell(), total)
            if total is not None and file.tell() < total:
                raise requests.ConnectionError(f"the connection ended after {file.tell():,} of {total:,} bytes")


def _extent(answer: requests.Response, size: int | None) -> tuple[int, int | None]:
    """Where an answer starts in the file, and how long the file is."""
    if answer.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not match:
            raise requests.ConnectionError("it sent a part of the file without saying which")
        return int(match[1]), int(match[2]) if match[2] != "*" else size
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else size


def _is_permanent(error: Exception) -> bool:
    """Whether another attempt is useless: the address is invalid, or the server refuses."""
    answer = getattr(error, "response", None)
    return isinstance(error, ValueError) or (answer is not None and answer.status_code not in TEMPORARY)


def _reason(error: Exception) -> str:
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"HTTP status {answer.status_code} {answer.reason}".strip()
    cause = error.args[0] if error.args else error
    return " ".join(str(getattr(cause, "reason", cause)).split())


def _other_ways(path: Path, md5: str) -> str:
    """What a user can do when a file cannot be fetched from its address."""
    return (
        f"name another place with --mirror, or put {path.name} with the MD5 checksum {md5} "
        f"into {path.parent.absolute()} and run this again"
    )


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
