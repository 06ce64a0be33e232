import csv
import io
from xml.etree import ElementTree

import matplotlib
import pytest

from colotride.config import RunConfig
from colotride.errors import ConfigurationError
from colotride.presets import preset
from colotride.reproduction.experiments import EXPERIMENTS, rows_of
from colotride.reproduction.figures import PANELS, draw_curves
from colotride.reproduction.paper import paper_row
from colotride.reproduction.results import SeedResult, comma_separated, markdown, summarise
from colotride.training.records import EpochRecord

RESULTS = [
    SeedResult("COLO-TRIDE", 0, "finished", 8, 10.0, {"R@1": 30.0, "ERS": 36.0, "ARS": 50.0}),
    SeedResult("COLO-TRIDE", 1, "finished", 8, 14.0, {"R@1": 34.0, "ERS": 38.0, "ARS": 53.0}),
    SeedResult("naive CAP", 0, "collapsed", 3, 4.0, {"R@1": 5.0, "ERS": 50.0, "ARS": 20.0}),
    SeedResult("naive CAP", 1, "nan", 2, 4.0, {}),
]


@pytest.mark.parametrize("what", EXPERIMENTS)
@pytest.mark.parametrize("dataset", ["digits", "cub"])
def test_every_row_of_every_experiment_is_a_valid_run_of_its_own(what, dataset):
    configs = [row.configure(preset(dataset), seed) for row in rows_of(what) for seed in (0, 1)]
    assert all(isinstance(config, RunConfig) for config in configs)
    assert len({config.model_dump_json() for config in configs}) == len(configs)


def test_rows_come_with_their_authors_settings():
    rows = {row.label: row.configure(preset("cub"), 0) for row in rows_of("table1")}
    assert rows["COLO-TRIDE"].pgd.steps == 16
    assert (rows["ACT"].pgd.steps, rows["ACT"].training.miner) == (32, "random")
    assert (rows["HM"].pgd.steps, rows["HM"].training.miner) == (32, "softhard")


def test_an_unknown_experiment_is_one_line():
    with pytest.raises(ConfigurationError, match="nothing is called 'table9'; there are table1"):
        rows_of("table9")


def test_the_papers_numbers_are_found_by_data_set_and_row():
    assert {name: paper_row("cub", "COLO-TRIDE")[name] for name in ("R@1", "ERS", "ARS")} == {
        "R@1": 34.9,
        "ERS": 38.7,
        "ARS": 51.6,
    }
    assert paper_row("cub", "COLO-CAP")["ARS"] == 48.5
    assert paper_row("cub", "assist-full")["ERS"] == 14.5
    assert paper_row("sop", "HM")["ARS"] == 77.7
    assert paper_row("fashion-mnist", "ACT")["ERS"] == 63.29
    assert paper_row("digits", "ACT") == {}


def test_seeds_are_summarised_by_mean_and_standard_deviation():
    summary = {row["defense"]: row for row in summarise(RESULTS, "table4", "cub")}
    ours = summary["COLO-TRIDE"]
    assert (ours["R@1"], ours["ERS"], ours["ARS"]) == (32, 37, 51.5)
    assert ours["R@1 sd"] == pytest.approx(2 * 2**0.5)
    assert (ours["ended"], ours["training s"], ours["paper ARS"]) == ("2 finished", 12, 51.6)
    naive = summary["naive CAP"]
    assert naive["ended"] == "1 collapsed, 1 nan"
    assert naive["ARS"] == 20, "the seed without scores does not count"


def test_tables_carry_means_spreads_and_printed_numbers():
    summary = summarise(RESULTS, "table4", "cub")
    lines = markdown(summary, "table4").splitlines()
    assert lines[0] == "| defense | ended | R@1 | ERS | ARS | paper R@1 | paper ERS | paper ARS | training s |"
    assert "| COLO-TRIDE | 2 finished | 32.0 ± 2.8 | 37.0 ± 1.4 | 51.5 ± 2.1 | 34.9 | 38.7 | 51.6 | 12 |" in lines
    (first, second) = csv.DictReader(io.StringIO(comma_separated(summary)))
    assert float(first["ARS"]) == 51.5
    assert second["paper ARS"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["figure3", "figure4"])
def test_figures_are_drawn_as_png_and_svg(tmp_path, what):
    diagnostics = {"distance_anchor_positive": 0.4, "collapseness": -0.1, "shift_anchor": 0.7}
    history = [EpochRecord(epoch, epoch, 1.0, diagnostics) for epoch in (1, 2, 3)]
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        png, svg = draw_curves({"COLO-ANP": [history, history]}, what, tmp_path / what, "On the digits")
    assert png.read_bytes().startswith(b"\x89PNG")
    root = ElementTree.parse(svg).getroot()
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "COLO-ANP" in texts
    assert "On the digits" in texts
    assert {heading for _, heading in PANELS[what]} <= set(texts)
