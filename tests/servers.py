"""A file server on this machine that misbehaves on request, and archives of tiny data sets for it."""

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from colotride.data.archives import ARCHIVES, DatasetArchives
from tests.layouts import make_cars, make_cub, make_fashion_mnist, make_sop

MAKERS = {"cub": make_cub, "cars": make_cars, "sop": make_sop, "fashion-mnist": make_fashion_mnist}


@dataclass
class Server:
    """Files by name, the faults of the next requests (one word each, then none), and what was asked for and sent."""

    address: str
    files: dict[str, bytes]
    faults: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    sent: int = 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        fault = self.faults.pop(0) if self.faults else ""
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        content = self.files.get(request.path.removeprefix("/"))
        if content is None or fault.isdigit():
            return request.send_error(int(fault) if fault.isdigit() else 404)
        if "truncated" in fault:
            content = content[: len(content) // 2]
        if "corrupt" in fault:
            content = content[:100] + bytes([content[100] ^ 1]) + content[101:]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and "no range" not in fault else 0
        if start and start >= len(content):
            return request.send_error(416)
        if "shifted" in fault:
            start += 1
        body = content[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if "no length" not in fault:
            request.send_header("Content-Length", str(len(body)))
        if "coded" in fault:
            request.send_header("Content-Encoding", "gzip")
        request.end_headers()
        body = b"" if "silent" in fault else body[: len(body) // 2] if "drop" in fault else body
        request.wfile.write(body)
        self.sent += len(body)
        request.close_connection = True
        return None


@contextmanager
def serving(files: dict[str, bytes], *faults: str) -> Iterator[Server]:
    """Serve files on a free port of 127.0.0.1.

    Faults, which may be combined in one word list: `drop` (half of what was asked for, then the connection ends),
    `silent` (headers alone), `truncated`, `corrupt`, `no range`, `shifted` (another range than asked for), `no length`,
    `coded` (called gzip-encoded), or an HTTP status.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server = Server(f"http://127.0.0.1:{listener.server_port}", files, list(faults))
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


def archives_of(name: str, folder: Path) -> tuple[DatasetArchives, dict[str, bytes]]:
    """A tiny data set in the archives of the real one: the table's entry with their checksums, and the files."""
    MAKERS[name](folder)
    files = {}
    for archive in ARCHIVES[name].archives:
        base = folder / archive.into
        if archive.name.endswith(".tgz"):
            files[archive.name] = tarred(base, "car_ims" if name == "cars" else "CUB_200_2011")
        elif archive.name.endswith(".zip"):
            files[archive.name] = zipped(base)
        else:
            files[archive.name] = (base / archive.name).read_bytes()
    return described(name, files), files


def described(name: str, files: dict[str, bytes]) -> DatasetArchives:
    """The table's entry of a data set with the checksums and sizes of these files."""
    holding = ARCHIVES[name]
    return replace(
        holding,
        archives=tuple(
            replace(archive, md5=hashlib.md5(files[archive.name]).hexdigest(), size=len(files[archive.name]))
            for archive in holding.archives
        ),
    )


def tarred(base: Path, member: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(base / member, member)
    return buffer.getvalue()


def zipped(base: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(base.rglob("*")):
            archive.write(path, path.relative_to(base))
    return buffer.getvalue()


def tar_with(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """A .tgz of one member."""
    buffer, member.size = io.BytesIO(), len(content)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue())


def zip_with(member: zipfile.ZipInfo, content: bytes = b"") -> bytes:
    """A .zip of one member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, content)
    return buffer.getvalue()
