import dataclasses
import io
import json
import math

import pytest
import torch
from rich.console import Console
from torch import nn

from colotride.data.base import InMemoryImages
from colotride.errors import ConfigurationError, DataError, ModelError
from colotride.evaluation.chunks import draw_queries
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.results import Evaluation
from colotride.evaluation.settings import EvaluationSettings
from colotride.evaluation.table import table_of
from tests.evaluation.galleries import toy_images
from tests.toys import FlatModel

CPU = torch.device("cpu")


def run(model=None, images=None, seed=0, **values):
    settings = EvaluationSettings(**{"steps": 4, "epsilon": 0.1, "step_size": 0.04} | values)
    return evaluate(model or FlatModel(), images or toy_images(), settings, image_size=2, seed=seed, device=CPU)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    assert run().scores() == run().scores()
    assert run().scores() != run(seed=1).scores()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["strict", "published"])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batches_change_nothing(protocol, batch_size):
    assert run(protocol=protocol, batch_size=batch_size).scores() == pytest.approx(
        run(protocol=protocol).scores(), abs=1e-3
    )


def test_an_attack_without_room_changes_nothing():
    result = run(epsilon=0)
    for name, values in result.per_query.items():
        torch.testing.assert_close(values["before"], values["after"], atol=1e-4, rtol=0, msg=name)
    assert all(
        result.resistance[name] == pytest.approx(100) for name in ("CA+", "CA-", "QA+", "QA-", "ES:R", "LTM", "GTM")
    )
    assert result.attacked["ES:D"] == 0


def test_a_query_budget_attacks_the_same_few_images_with_every_attack():
    result = run(queries=9)
    assert result.queries == 9
    asked = [values["query"].tolist() for values in result.per_query.values()]
    assert asked == [draw_queries(30, 9, 0).tolist()] * 10
    assert len(set(asked[0])) == 9
    assert result.benign == run().benign, "benign scores are over all images"


def test_a_budget_beyond_the_gallery_means_all():
    assert draw_queries(5, 9, 0).tolist() == draw_queries(5, None, 3).tolist() == [0, 1, 2, 3, 4]


def test_the_protocols_differ_where_the_old_code_does():
    strict, published = run(steps=8).attacked, run(steps=8, protocol="published").attacked
    assert all(strict[name] == pytest.approx(published[name]) for name in ("CA+", "CA-", "QA+", "QA-", "TMA", "GTT"))
    assert all(strict[name] != pytest.approx(published[name]) for name in ("ES:D", "LTM", "GTM"))


def test_scores_follow_from_the_values_of_single_queries():
    result = run()
    assert result.attacked["CA+"] == pytest.approx(float(result.per_query["CA+"]["after"].double().mean()))
    before, after = (result.per_query["LTM"][when].mean() for when in ("before", "after"))
    assert result.resistance["LTM"] == pytest.approx(min(100, 100 * float(after / before)))
    scores = result.scores()
    assert {"R@1", "R@2", "mAP", "mAP@R", "NMI", "CA+", "ARS CA+", "ERS", "ARS"} <= set(scores)
    assert scores["ARS"] == result.ARS


def test_a_result_comes_back_from_json():
    result = run()
    assert Evaluation.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_the_model_is_left_as_it_was():
    model = FlatModel().train()
    weights = model.linear.weight.clone()
    run(model)
    assert model.training
    assert torch.equal(model.linear.weight, weights)
    assert model.linear.weight.requires_grad


def test_progress_rises_to_the_end():
    seen = []
    settings = EvaluationSettings(steps=1, batch_size=10)
    evaluate(
        FlatModel(), toy_images(), settings, image_size=2, seed=0, device=CPU, progress=lambda *told: seen.append(told)
    )
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert {"gallery", "CA+", "GTT"} <= {what for what, _ in seen}


class Lying(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.model, self.change = FlatModel(), change

    def forward(self, images):
        return self.change(self.model(images))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda e: e * math.nan, "NaN or infinite embeddings"),
        (lambda e: 2 * e, "differs from 1 by 1"),
        (lambda e: e[:-1], "one embedding per image"),
        (lambda e: e[:, :, None], "one embedding per image"),
    ],
)
def test_unusable_embeddings_are_one_line(change, complaint):
    with pytest.raises(ModelError, match=complaint) as error:
        run(Lying(change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("labels", "complaint"), [([0, 0, 0, 7, 1, 1], "the first is 7"), ([3] * 6, "has 1 class")])
def test_a_gallery_in_which_a_query_has_no_match_or_no_rival_is_one_line(labels, complaint):
    images = InMemoryImages("toy", torch.zeros(6, 3, 2, 2, dtype=torch.uint8), torch.tensor(labels))
    with pytest.raises(DataError, match=complaint):
        run(images=images)


def test_a_collapsed_model_scores_no_recall_and_does_not_crash():
    constant = Lying(lambda e: nn.functional.one_hot(torch.zeros(len(e), dtype=torch.long), 5).float() + 0 * e)
    result = run(constant)
    assert result.benign["R@1"] == 0
    assert result.attacked["CA+"] == pytest.approx(50)
    assert result.resistance["LTM"] == 0


@pytest.mark.parametrize("direction", [0, 1, 2])
def test_a_constant_model_has_the_same_ers_in_every_direction(direction):
    point = nn.functional.normalize(torch.randn(5, generator=torch.Generator().manual_seed(direction)), dim=0)
    result = run(Lying(lambda e: point.expand(len(e), 5) + 0 * e), images=toy_images(count=41))
    assert [result.attacked[name] for name in ("CA+", "CA-", "QA+", "QA-")] == [50] * 4
    assert pytest.approx((100 + 50 + 100 + 50 + 0 + 100) / 10, abs=1e-3) == result.ERS


def test_a_float64_model_is_evaluated_in_float64():
    """One whose embeddings differ by less than float32 can hold."""

    class Tiny(FlatModel):
        def forward(self, images):
            assert images.dtype == self.linear.weight.dtype
            pole = torch.full((5,), 5**-0.5, dtype=images.dtype)
            return nn.functional.normalize(pole + 1e-9 * super().forward(images), dim=1)

    tiny = run(Tiny().double())
    assert run(Tiny()).benign["R@1"] == 0, "float32 cannot tell them apart"
    reference = Tiny().double()
    images = toy_images()
    embeddings = reference(images.pixels(torch.arange(30)).double() / 255).detach()
    away = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    hits = images.labels[away.argmin(dim=1)] == images.labels
    assert tiny.benign["R@1"] == pytest.approx(100 * float(hits.double().mean()))


def test_an_evaluation_says_how_its_ars_is_averaged():
    strict, published = run(), run(protocol="published")
    assert strict.resistance_definition == "mean of ratios"
    assert published.resistance_definition == "ratio of means"
    assert published.resistance["CA+"] == pytest.approx(2 * published.attacked["CA+"])
    assert published.resistance["QA-"] == pytest.approx(100 * (100 - published.attacked["QA-"]) / 99)
    plain = published.to_dict()
    del plain["resistance_definition"], plain["norm"], plain["curve"], plain["convergence"]
    assert Evaluation.from_dict(plain).resistance_definition == "mean of ratios", "files from before it was recorded"
    old = dataclasses.replace(published, resistance_definition="mean of ratios")
    with pytest.raises(ConfigurationError, match="cannot stand in one table"):
        table_of({"new": published, "old": old})


def test_the_table_holds_the_numbers():
    result = run()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table_of({"ours": result, "theirs": result}, title="Toy"))
    text = console.export_text()
    assert f"{result.ARS:.1f}" in text
    assert "strict protocol, 30 of 30 images" in text


def test_brackets_in_a_name_are_letters_and_not_markup():
    result = run()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table_of({"[red]ours": result, "a[/bold]\x1b[2J": result}, title="[/b] set"))
    text = console.export_text()
    for name in ("[red]ours", "a[/bold]\ufffd[2J", "[/b] set"):
        assert name in text


def test_protocols_are_never_mixed_in_a_table():
    both = {"strict": run(), "published": run(protocol="published")}
    with pytest.raises(ConfigurationError, match="cannot stand in one table"):
        table_of(both)
