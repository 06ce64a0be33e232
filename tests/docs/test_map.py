"""The map of the code in CONTRIBUTING is the one that the imports are held to."""

import itertools
import re

from tests.docs.blocks import ROOT
from tests.test_layers import FLOORS, HEIGHT

MAP = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
ROWS = [re.split(r"\s{3,}", line)[0].split() for line in MAP.splitlines()]


def test_rows_stand_in_the_order_of_the_floors():
    for above, below in itertools.pairwise(ROWS):
        assert min(HEIGHT[name] for name in above) >= max(HEIGHT[name] for name in below), (above, below)


def test_every_package_is_on_the_map():
    packages = {name.partition(".")[0] for floor in FLOORS for name in floor} - {"__main__"}
    assert packages == {name for row in ROWS for name in row}


def test_every_file_that_it_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:colotride|tests|docs)/[\w/]*(?:\.py)?)`", text)
    assert len(paths) > 8
    assert [path for path in paths if not (ROOT / path).exists()] == []
