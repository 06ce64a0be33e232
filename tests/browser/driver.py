"""A browser under remote control: chromedriver over the WebDriver protocol."""

import base64
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager

import pytest
import requests

from tests.browser.chromium import NAMES


class Browser:
    """One open window."""

    def __init__(self, session):
        self._session = session

    def _post(self, what, **values):
        answer = requests.post(f"{self._session}/{what}", json=values, timeout=120)
        assert answer.ok, answer.text
        return answer.json()["value"]

    def open(self, address):
        self._post("url", url=address)

    def script(self, text):
        """The value of a JavaScript function's body."""
        return self._post("execute/sync", script=text, args=[])

    def wait(self, text, seconds=60):
        """Wait until a body's value is true, and return it."""
        deadline = time.monotonic() + seconds
        while not (found := self.script(text)):
            assert time.monotonic() < deadline, f"never true: {text}"
            time.sleep(0.2)
        return found

    def screenshot(self, path):
        answer = requests.get(f"{self._session}/screenshot", timeout=120).json()["value"]
        path.write_bytes(base64.b64decode(answer))


@contextmanager
def browser(width=1400, height=1000):
    """Start Chromium with an empty profile; skips the test, with the reason, where there is none."""
    program, driver = (
        next((found for name in NAMES if (found := shutil.which(name))), None),
        shutil.which("chromedriver"),
    )
    if program is None or driver is None:
        pytest.skip("no Chromium with its driver here: apt-get install chromium chromium-driver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{port}"
        options = {
            "binary": program,
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},{height}",
                f"--user-data-dir={profile}",
            ],
        }  # fmt: skip
        session = None
        try:
            deadline = time.monotonic() + 60
            with socket.socket() as probe:
                while probe.connect_ex(("127.0.0.1", port)) != 0:
                    assert time.monotonic() < deadline, "chromedriver never came up"
                    time.sleep(0.1)
            wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
            answer = requests.post(f"{address}/session", json=wanted, timeout=120)
            assert answer.ok, answer.text
            session = f"{address}/session/{answer.json()['value']['sessionId']}"
            yield Browser(session)
        finally:
            if session is not None:
                requests.delete(session, timeout=60)
            process.terminate()
            process.wait()
