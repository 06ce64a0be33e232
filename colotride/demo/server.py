"""The demo's page over HTTP, for a browser on this machine.

The standard library serves it: one page and two addresses need no framework, nothing is loaded from elsewhere, and the
core keeps its few dependencies.
"""

import base64
import binascii
import json
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from colotride.demo.comparison import ATTACKS, Answer, Comparison
from colotride.errors import ColoTrideError, DataError
from colotride.evaluation.report_parts import image_address, png
from colotride.templates import render

SUGGESTED = 24
"""Pictures that the page offers to begin with."""

LARGEST_REQUEST = 20 * 2**20
"""Bytes of a request: a picture of a camera fits."""

LOOPBACK = ("127.0.0.1", "localhost")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Request(BaseModel):
    """What the page asks for."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    place: int | None = None
    """Of a picture in the gallery; None where one is uploaded."""
    upload: str | None = None
    """An image file in base64."""
    label: int | None = None
    """Class of the uploaded picture, where it is known."""
    attack: str
    epsilon: Annotated[float, Field(ge=0, le=255)]
    """In levels of 255."""


class DemoServer(ThreadingHTTPServer):
    """Serves one comparison until it is shut down."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], comparison: Comparison, *, steps: int) -> None:
        """Listen; `serve_forever` answers.

        Args:
            address: host and port; port 0 takes a free one.
            comparison: that answers.
            steps: of PGD.

        Raises:
            OSError: the port is taken, or the host is not this machine.
        """
        self.comparison, self.steps = comparison, steps
        # Models are not made for several threads at once.
        self.computing = threading.Lock()
        self.loopback = address[0] in LOOPBACK
        self.page = _page(comparison, steps).encode()
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """Address of the page."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{host}:{port}/"

    def answer(self, content: bytes) -> dict[str, Any]:
        """Answer a request of the page.

        Raises:
            ColoTrideError: the request cannot be answered, with the reason.
        """
        try:
            request = Request.model_validate_json(content)
        except ValidationError as error:
            raise DataError(f"the request is not one of this page's ({error.errors()[0]['msg']})") from None
        if (request.place is None) == (request.upload is None):
            raise DataError("choose a picture, or upload one")
        if request.place is not None:
            return self._answers(request, request.place)
        with tempfile.TemporaryDirectory() as folder:
            path = _uploaded(request.upload or "", Path(folder))
            try:
                return self._answers(request, path)
            except DataError as error:
                # Where it lay for a moment says nothing to whoever uploaded it.
                text = str(error).replace(f"image {path}", "the uploaded picture").replace(f" '{path}'", "")
                raise DataError(text) from None

    def _answers(self, request: Request, query: int | Path) -> dict[str, Any]:
        with self.computing:
            answers = self.comparison.answer(
                query, attack=request.attack, epsilon=request.epsilon / 255, steps=self.steps, label=request.label
            )
        return {"answers": [_plain(answer) for answer in answers]}

    def picture(self, name: str) -> bytes | None:
        """A picture of the gallery as PNG, by the name that the page gives it; None where there is none."""
        number = name.removesuffix(".png")
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            return None
        place = int(number)
        if place >= len(self.comparison.images):
            return None
        with self.computing:
            return png(self.comparison.images.pixels(torch.tensor([place]))[0])


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer

    def do_GET(self) -> None:
        if not self._from_here():
            return
        if self.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
            return
        picture = self.server.picture(self.path.removeprefix("/pictures/")) if "/pictures/" in self.path else None
        if picture is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is nothing here")
        else:
            self._send(HTTPStatus.OK, "image/png", picture)

    def do_POST(self) -> None:
        if not self._from_here():
            return
        length = self.headers.get("Content-Length", "")
        # A page from elsewhere cannot send this type without asking first, which nothing here answers.
        plain = self.headers.get_content_type() != "application/json"
        if self.path != "/attack" or plain or not length.isdecimal():
            self._fail(HTTPStatus.BAD_REQUEST, "this is no request of the demo's page")
        elif int(length) > LARGEST_REQUEST:
            self.close_connection = True
            self._fail(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the picture is larger than {LARGEST_REQUEST * 3 // 4 // 2**20} MB",
            )
        else:
            try:
                found = self.server.answer(self.rfile.read(int(length)))
            except ColoTrideError as error:
                self._fail(HTTPStatus.BAD_REQUEST, str(error))
            else:
                self._send(HTTPStatus.OK, "application/json", json.dumps(found).encode())

    def _from_here(self) -> bool:
        """Refuse a page from elsewhere whose name was made to point to this machine."""
        host = self.headers.get("Host", "").partition(":")[0]
        if self.server.loopback and host not in LOOPBACK:
            self._fail(HTTPStatus.FORBIDDEN, "this page is for 127.0.0.1 alone")
            return False
        return True

    def _fail(self, status: HTTPStatus, reason: str) -> None:
        self._send(status, "application/json", json.dumps({"error": reason}).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: Any) -> None:
        """Requests are not worth a line each."""


def _uploaded(content: str, folder: Path) -> Path:
    path = folder / "picture"
    try:
        path.write_bytes(base64.b64decode(content, validate=True))
    except binascii.Error:
        raise DataError("the uploaded picture did not arrive whole; upload it again") from None
    return path


def _plain(answer: Answer) -> dict[str, Any]:
    pictures = {name: image_address(getattr(answer, name)) for name in ("view", "perturbed", "perturbation")}
    lists = {name: [asdict(one) for one in getattr(answer, name)] for name in ("before", "after")}
    return {"model": answer.model, "shift": answer.shift, "target": answer.target, **pictures, **lists}


def _page(comparison: Comparison, steps: int) -> str:
    classes: Mapping[int, str] = comparison.class_names()
    trained = comparison.epsilon * 255
    return render(
        "colotride.demo",
        "page.html.j2",
        models=[model.name for model in comparison.models],
        dataset=comparison.images.name,
        pictures=len(comparison.images),
        suggestions=comparison.suggestions(SUGGESTED),
        attacks=ATTACKS,
        classes=classes,
        largest=max(16, round(2 * trained)),
        chosen=max(1, round(trained)),
        steps=steps,
        small=comparison.images.pixels(torch.zeros(1, dtype=torch.int64)).shape[-1] < 84,
        script=files("colotride.demo").joinpath("page.js").read_text(),
        style=files("colotride.demo").joinpath("page.css").read_text(),
    )
