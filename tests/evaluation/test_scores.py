import pytest
import torch

from colotride.evaluation.scores import (
    RANK_GOALS,
    adversarial_resistance_score,
    empirical_robustness_score,
    published_rank_resistance,
    rank_resistance,
    recall_resistance,
    scores_of,
)
from colotride.reproduction.paper import paper_tables

TABLES = paper_tables()
MISPRINTED = {("cub", "natural"), ("cars", "natural")}


def rows(table):
    return [pytest.param(row, id=f"{row['dataset']}-{row['defense']}") for row in TABLES[table]]


def numbers(row):
    return {name: float(value) for name, value in row.items() if name not in ("dataset", "defense")}


def printed(row, score):
    misprinted = (row["dataset"], row["defense"]) in MISPRINTED
    return row[f"{score}_recomputed"] if misprinted else row[score]


@pytest.mark.parametrize("row", rows("table1"))
def test_ers_follows_from_the_columns_of_table_1(row):
    assert empirical_robustness_score(numbers(row)) == pytest.approx(printed(row, "ERS"), abs=0.13)


@pytest.mark.parametrize("row", rows("table2"))
def test_ars_follows_from_the_columns_of_table_2(row):
    assert adversarial_resistance_score(numbers(row)) == pytest.approx(printed(row, "ARS"), abs=0.13)


def test_the_best_and_the_worst_model_have_100_and_0():
    best = {
        "CA+": 50,
        "CA-": 0,
        "QA+": 50,
        "QA-": 0,
        "TMA": 0,
        "ES:D": 0,
        "ES:R": 100,
        "LTM": 100,
        "GTM": 100,
        "GTT": 100,
    }
    worst = {"CA+": 0, "CA-": 100, "QA+": 0, "QA-": 100, "TMA": 1, "ES:D": 2, "ES:R": 0, "LTM": 0, "GTM": 0, "GTT": 0}
    assert empirical_robustness_score(numbers(best)) == 100
    assert empirical_robustness_score(numbers(worst)) == 0


@pytest.mark.parametrize(
    ("before", "after", "goal", "expected"),
    [
        (40.0, 10.0, 0.0, 25.0),  # CA+ wanted 40 places, got 30
        (40.0, 0.0, 0.0, 0.0),
        (40.0, 40.0, 0.0, 100.0),
        (1.0, 34.0, 100.0, 100 * (1 - 33 / 99)),
        (0.5, 5.0, 0.0, 100.0),  # moved away from the goal: nothing of the intention was reached
    ],
)
def test_a_rank_attack_is_resisted_by_the_share_of_its_intention_that_it_missed(before, after, goal, expected):
    missed, counts = rank_resistance(torch.tensor([before]), torch.tensor([after]), goal)
    assert counts.tolist() == [1]
    assert 100 * float(missed) == pytest.approx(expected, abs=1e-4)


NUMBERS = ("CA+", "CA-", "QA+", "QA-", "TMA", "ES:D", "ES:R", "LTM", "GTM", "GTT")


def test_queries_that_start_at_the_goal_do_not_count():
    before, after = (dict.fromkeys(NUMBERS, torch.tensor(values)) for values in ([0.0, 50.0], [0.0, 25.0]))
    assert scores_of(before, after, "mean of ratios")["ARS CA+"] == 50
    nothing = dict.fromkeys(NUMBERS, torch.zeros(2))
    assert scores_of(nothing, nothing, "mean of ratios")["ARS CA+"] == 100


@pytest.mark.parametrize("row", [row for row in rows("table2") if "COLO" not in row.id and "natural" not in row.id])
def test_the_papers_rank_resistances_are_ratios_of_means(row):
    """Table 2 from Table 1, in the rows of the baselines, which were not printed from different runs."""
    ranks = next(each for each in TABLES["table1"] if all(each[key] == row[key] for key in ("dataset", "defense")))
    for name, goal in RANK_GOALS.items():
        got = published_rank_resistance(torch.tensor(float(ranks[name])), goal)
        assert float(got) == pytest.approx(float(row[name]), abs=0.11), name


def test_published_divides_means_and_strict_averages_ratios():
    """Ranks 40 and 80 that become 20 and 20: 2 x 20 against (1/2 + 1/4) / 2."""
    before = dict.fromkeys(NUMBERS, torch.tensor([40.0, 80.0]))
    after = dict.fromkeys(NUMBERS, torch.tensor([20.0, 20.0]))
    assert scores_of(before, after, "ratio of means")["ARS CA+"] == pytest.approx(40)
    assert scores_of(before, after, "mean of ratios")["ARS CA+"] == pytest.approx(37.5)
    assert scores_of(before, after, "ratio of means")["ARS CA-"] == pytest.approx(100 * 80 / 99)


def test_recall_is_resisted_by_the_share_that_is_left():
    assert recall_resistance(torch.tensor(80.0), torch.tensor(20.0)) == 25
    assert recall_resistance(torch.tensor(0.0), torch.tensor(0.0)) == 0
    assert recall_resistance(torch.tensor(50.0), torch.tensor(60.0)) == 100


def test_the_columns_of_both_tables_come_from_the_values_of_every_query():
    before = dict.fromkeys(NUMBERS, torch.tensor([100.0, 100.0])) | {
        "CA+": torch.tensor([40.0, 80.0]),
        "CA-": torch.tensor([0.0, 1.0]),
    }
    after = dict.fromkeys(NUMBERS, torch.tensor([100.0, 0.0])) | {
        "CA+": torch.tensor([20.0, 20.0]),
        "CA-": torch.tensor([25.0, 1.0]),
    }
    scores = scores_of(before, after, "mean of ratios")
    assert scores["CA+"] == 20
    assert scores["LTM"] == 50
    assert scores["ARS CA+"] == pytest.approx((50 + 25) / 2)
    assert scores["ARS CA-"] == pytest.approx((75 + 100) / 2)
    assert scores["ARS GTT"] == 50
    assert "ARS TMA" not in scores
