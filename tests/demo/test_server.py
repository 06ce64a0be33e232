"""The demo's page over HTTP, and its command."""

import base64
import http.client
import io
import json
import signal
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import requests
import torch
from PIL import Image

from colotride.api import train
from colotride.demo.comparison import ATTACKS, open_runs
from colotride.demo.server import LARGEST_REQUEST, DemoServer
from tests.commands import environment, refused, run
from tests.short_runs import SHORT


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train("digits", defense="natural", directory=folder / "<one>", overrides=SHORT)
    return folder


@pytest.fixture(scope="module")
def server(trained):
    comparison = open_runs({"<one>": trained / "<one>"}, most=400, device=torch.device("cpu"))
    with DemoServer(("127.0.0.1", 0), comparison, steps=2) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def ask(server, **request):
    return requests.post(f"{server.url}attack", json={"attack": "ES", "epsilon": 16.0} | request, timeout=60)


def test_the_page_offers_pictures_and_attacks_and_escapes_names(server):
    answer = requests.get(server.url, timeout=60)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "&lt;one&gt;" in answer.text
    assert "<one>" not in answer.text
    assert all(f'value="{name}"' in answer.text for name in ATTACKS)
    assert answer.text.count('class="pick"') == 24
    assert 'max="64" step="1" value="32"' in answer.text, "up to twice the radius of the training"


def test_a_picture_is_the_gallerys(server):
    answer = requests.get(f"{server.url}pictures/3.png", timeout=60)
    with Image.open(io.BytesIO(answer.content)) as image:
        found = torch.from_numpy(np.array(image))
    assert torch.equal(found, server.comparison.images.pixels(torch.tensor([3]))[0, 0])


@pytest.mark.parametrize(
    "path",
    ["pictures/100000.png", "pictures/-1.png", "pictures/../x", "pictures/٣.png", "other", "pictures/" + 30 * "9"],
)
def test_what_is_not_there_is_404(server, path):
    assert requests.get(server.url + path, timeout=60).status_code == 404


def test_a_query_is_answered_as_the_comparison_does(server):
    [found] = ask(server, place=4, attack="GTM").json()["answers"]
    [expected] = server.comparison.answer(4, attack="GTM", epsilon=16 / 255, steps=2)
    assert found["shift"] == pytest.approx(expected.shift)
    assert found["target"] == expected.target
    for when in ("before", "after"):
        assert [one["place"] for one in found[when]] == [one.place for one in getattr(expected, when)]
    content = base64.b64decode(found["perturbed"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (8, 8)


def test_an_uploaded_picture_is_answered(server):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "white").save(buffer, format="JPEG")
    upload = base64.b64encode(buffer.getvalue()).decode()
    label = server.comparison.labels[0]
    [found] = ask(server, upload=upload, label=label).json()["answers"]
    assert len(found["before"]) == len(found["after"]) == 8
    assert all(one["correct"] == (server.comparison.labels[one["place"]] == label) for one in found["before"])


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ({}, "choose a picture, or upload one"),
        ({"place": 1, "upload": ""}, "choose a picture, or upload one"),
        ({"place": 100_000}, "picture 100000 is not there"),
        ({"place": 1, "attack": "../x"}, "attack '../x' is none of"),
        ({"place": 1, "epsilon": -1}, "greater than or equal to 0"),
        ({"place": 1, "epsilon": "much"}, "valid number"),
        ({"place": 1, "steps": 10**9}, "not permitted"),
        ({"upload": "?"}, "did not arrive whole"),
        ({"upload": base64.b64encode(b"no picture").decode()}, "the uploaded picture cannot be decoded"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(server, request_, complaint):
    answer = ask(server, **request_)
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert "/tmp" not in answer.json()["error"]


def test_pages_from_elsewhere_are_refused(server):
    for headers in ({"Host": "evil.example:80"}, {"Host": f"evil.example:{server.server_address[1]}"}):
        assert requests.get(server.url, headers=headers, timeout=60).status_code == 403
    text = json.dumps({"place": 1, "attack": "ES", "epsilon": 1.0})
    plain = requests.post(f"{server.url}attack", data=text, headers={"Content-Type": "text/plain"}, timeout=60)
    assert plain.status_code == 400, "a form of another page could send this"
    assert requests.post(f"{server.url}other", json={}, timeout=60).status_code == 400


def test_a_request_that_is_too_large_is_not_read(server):
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    connection.putrequest("POST", "/attack")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(LARGEST_REQUEST + 1))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert "larger than 15 MB" in json.loads(answer.read())["error"]


@pytest.mark.slow
def test_the_command_serves_this_machine_alone_until_it_is_told_to_end(trained):
    command = [sys.executable, "-m", "colotride", "demo", "--model", "<one>", "--port", "0", "--steps", "2"]
    process = subprocess.Popen(
        command, cwd=trained, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("<one>: http://127.0.0.1:")
        assert requests.get(line.split()[1], timeout=60).status_code == 200
        listening = [one for one in psutil.Process(process.pid).net_connections("inet") if one.status == "LISTEN"]
        assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
        # A background shell makes its commands ignore Ctrl-C; the command treats both alike.
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--model", "nowhere"), "nowhere is not a run"),
        (("--model", "<one>", "--against", "<one>"), "--against <one> is the model itself"),
        (("--model", "<one>", "--host", "192.0.2.77"), "cannot listen on 192.0.2.77:7860"),
        (("--model", "<one>", "--pictures", "2"), "2 pictures are fewer than two classes"),
        (("--model", "<one>", "--port", "99999"), "--port 99999"),
    ],
)
def test_what_cannot_be_shown_is_one_line(trained, arguments, complaint):
    assert complaint in refused(run("demo", *arguments, cwd=trained))


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line(trained, server):
    port = str(server.server_address[1])
    assert f"cannot listen on 127.0.0.1:{port}" in refused(run("demo", "--model", "<one>", "--port", port, cwd=trained))
