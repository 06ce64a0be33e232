"""The space of a search, put together for a run: what means something there, groups, and the user's file."""

import optuna
import pytest

from colotride.errors import SearchError
from colotride.presets import preset, with_defense
from colotride.tune.parameters import Choice, Continuous, Integer, Space
from colotride.tune.space import build_space, default_space

DIGITS = preset("digits")
SPACE = build_space(DIGITS)


def names(space):
    return [parameter.name for parameter in space.parameters]


def written(folder, text):
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def built(folder, text, base=DIGITS, groups=()):
    return build_space(base, groups=groups, file=written(folder, text))


def drawn(space, count=60):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "cub", "cars", "sop"])
def test_without_wishes_it_is_the_default_space(name):
    assert names(build_space(preset(name))) == list(default_space().parameters)


@pytest.mark.parametrize(
    ("defense", "expected"),
    [
        ("naive-tride", {"top_ranked_coefficient", "pgd_steps", "step_size_over_epsilon", "ramp", "ramp_length"}),
        ("act", {"pgd_steps", "step_size_over_epsilon", "ramp", "ramp_length"}),
        (
            "assist",
            {
                "attention_factor",
                "top_ranked_coefficient",
                "pgd_steps",
                "step_size_over_epsilon",
                "ramp",
                "ramp_length",
            },
        ),
    ],
)
def test_a_defense_gets_what_means_something_to_it(defense, expected):
    base = with_defense(DIGITS, defense)
    space = build_space(base)
    assert set(names(space)) == expected
    for values in drawn(space, 10):
        assert space.values_of(space.configure(base, values)) == pytest.approx(values)


def test_collapseness_that_guides_nothing_is_not_tuned():
    always = with_defense(DIGITS, "assist").with_values({"defense.when": "always"})
    assert "attention_factor" not in names(build_space(always, groups=["margins"]))


def test_candidates_alone_have_no_top_ranked_triplet():
    base = DIGITS.with_values({"defense.phases": "candidates"})
    found = names(build_space(base, groups=["margins", "readings"]))
    assert not {"top_ranked_coefficient", "top_ranked_margin", "anchor_hardness_term"} & set(found)
    assert {"margin", "weight_gradient"} < set(found)


def test_natural_training_has_nothing_to_search_but_what_is_added():
    natural = with_defense(DIGITS, "natural")
    with pytest.raises(SearchError, match=r"empty: nothing in it means anything to defense 'natural'; add a group"):
        build_space(natural)
    assert names(build_space(natural, groups=["margins", "learning-rate"])) == ["margin", "learning_rate"]


@pytest.mark.parametrize("group", [name for name in default_space().groups if name != "intra-class"])
def test_every_group_adds_to_colo_tride_and_every_draw_is_a_valid_run(group):
    space = build_space(DIGITS, groups=[group])
    added = set(default_space().groups[group])
    assert added <= set(names(space))
    for values in drawn(space, 30):
        assert space.values_of(space.configure(DIGITS, values)) == pytest.approx(values)


def test_hardness_manipulation_has_its_own_coefficient():
    assert "intra_class_coefficient" in names(build_space(with_defense(DIGITS, "hm"), groups=["intra-class"]))


def test_the_learning_rate_is_varied_around_the_runs_own():
    space = build_space(preset("cub"), groups=["learning-rate"])
    rate = next(one for one in space.parameters if one.name == "learning_rate")
    assert (rate.low, rate.high, rate.log) == (pytest.approx(1e-6), pytest.approx(1e-4), True)


def test_what_belongs_to_anchor_batches_waits_for_the_phases():
    space = build_space(DIGITS, groups=["phases", "margins"])
    for values in drawn(space):
        anchors_move = values["phases"] != "candidates"
        assert ("top_ranked_coefficient" in values) == anchors_move
        assert ("top_ranked_margin" in values) == anchors_move


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        (["margin"], r"no group 'margin' \(did you mean margins\?\); there are margins, learning-rate, weighting"),
        (["intra-class"], "nothing of group 'intra-class' means anything to defense 'colo-tride'"),
    ],
)
def test_a_group_that_is_not_there_is_one_line(groups, complaint):
    with pytest.raises(SearchError, match=complaint):
        build_space(DIGITS, groups=groups)


def test_a_file_narrows_and_keeps_what_it_does_not_name(tmp_path):
    space = built(tmp_path, "parameters: {attention_factor: {low: 2}, ramp: {values: [linear, cosine]}}")
    assert names(space) == names(SPACE)
    factor = space.parameters[0]
    assert (factor.low, factor.high, factor.log, factor.label) == (2, 50, True, "λ")
    length = next(one for one in space.parameters if one.name == "ramp_length")
    assert length.only_if == {}, "every ramp that is left has a length"


def test_a_file_fixes_a_value_in_every_trial(tmp_path):
    space = built(
        tmp_path,
        "parameters: {pgd.steps: {fixed: 5}, ramp: {values: [constant]}, step_size_over_epsilon: {fixed: 1/4}}",
    )
    assert names(space) == ["attention_factor", "top_ranked_coefficient", "assist_disabled_fraction"]
    for values in drawn(space, 5):
        made = space.configure(DIGITS, values)
        assert (made.pgd.steps, made.pgd.ramp) == (5, "constant")
        assert made.pgd.step_size == pytest.approx(DIGITS.pgd.epsilon / 4)
    assert Space.model_validate_json(space.model_dump_json()) == space, "a search that is resumed reads it back"


def test_a_file_takes_out_replaces_and_adds(tmp_path):
    space = built(
        tmp_path,
        """
        parameters:
          ramp: null
          attention_factor: {values: [0, 2, 10]}
          pgd.step_size: {low: 1/255, high: 8/255}
          training.weight_decay: {low: 1e-8, high: 1e-3, log: true}
          far: {path: collapseness.weighting, label: w, values: [near, far], only_if: {attention_factor: [2, 10]}}
        """,
    )
    by_name = {parameter.name: parameter for parameter in space.parameters}
    assert by_name.keys() == {
        "attention_factor", "top_ranked_coefficient", "assist_disabled_fraction", "pgd_steps",
        "step_size", "ramp_length", "weight_decay", "far",
    }  # fmt: skip
    assert isinstance(by_name["attention_factor"], Choice)
    assert isinstance(by_name["step_size"], Continuous)
    assert by_name["step_size"].relative_to is None
    assert by_name["weight_decay"].low == pytest.approx(1e-8)
    assert by_name["ramp_length"].only_if == {}, "the run's own ramp is linear"
    assert Space.model_validate_json(space.model_dump_json()) == space
    for values in drawn(space):
        assert ("far" in values) == (values["attention_factor"] > 0)


def test_a_file_that_replaces_leaves_only_what_it_names_and_the_groups(tmp_path):
    text = "replace: true\nparameters: {pgd_steps: {}, top_ranked_margin: {high: 0.1}}"
    space = built(tmp_path, text, groups=["learning-rate"])
    assert set(names(space)) == {"pgd_steps", "top_ranked_margin", "learning_rate"}
    steps = next(one for one in space.parameters if one.name == "pgd_steps")
    assert isinstance(steps, Integer)
    assert (steps.low, steps.high) == (2, 32)


def test_near_and_far_are_the_same_where_nothing_is_weighted(tmp_path):
    base = DIGITS.with_values({"collapseness.attention_factor": 0})
    with pytest.raises(
        SearchError, match=r"weighting means nothing here: it needs collapseness\.attention_factor above 0"
    ):
        built(tmp_path, "parameters: {attention_factor: null, weighting: {}}", base)


def test_a_unit_that_is_varied_counts_with_its_drawn_value(tmp_path):
    space = built(tmp_path, "parameters: {pgd.epsilon: {low: 8/255, high: 64/255}}")
    made = space.configure(DIGITS, {"epsilon": 0.2, "step_size_over_epsilon": 0.5})
    assert made.pgd.step_size == pytest.approx(0.1)
    assert space.values_of(made)["step_size_over_epsilon"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds NoneType, not the key 'parameters:'"),
        ("parameters: {}", "parameters is empty; name at least one"),
        ("parameter: {a: {low: 1, high: 2}}", r"unknown key parameter \(did you mean parameters\?\)"),
        ("parameters: {pgd_steps: {lov: 1}}", r"unknown key parameters\.pgd_steps\.lov \(did you mean low\?\)"),
        ("parameters: {pgd_steps: 3}", r"parameters\.pgd_steps = 3 is not a parameter; write \{low: \.\.\., high"),
        ("parameters: {pgd_steps: {low: 9, high: 3}}", r"space\.yaml: pgd_steps: low 9 is not below high 3"),
        ("parameters: {pgd_steps: {low: 0}}", r"pgd_steps: pgd\.steps = 0\.0: should be greater than or equal to 1"),
        ("parameters: {pgd_steps: {low: 1.5}}", r"pgd\.steps = 1\.5: should be a valid integer"),
        ("parameters: {margin: {high: 9}}", r"training\.margin = 9\.0: should be less than or equal to 2"),
        ("parameters: {ramp: {values: [linear, square]}}", r"pgd\.ramp = 'square'"),
        ("parameters: {ramp: {low: 1, high: 2}}", r"pgd\.ramp = 1\.0"),
        ("parameters: {ramp: {values: []}}", "ramp.values is empty"),
        ("parameters: {data.flip: {low: 0, high: 1}}", r"data\.flip has no range; give values"),
        ("parameters: {ramp: {log: true}}", "has 'log' beside values"),
        ("parameters: {attention_factor: {low: 0}}", "a logarithmic range needs low above 0"),
        ("parameters: {pgd_steps: {low: 2, values: [1]}}", "has low or high and values; give one of them"),
        ("parameters: {pgd_step: {low: 2}}", r"pgd_step is not known \(did you mean pgd_steps\?\); say with 'path:'"),
        ("parameters: {pgd_step: null}", r"pgd_step is not a parameter that could be taken out \(did you mean pgd_steps\?"),
        ("parameters: {a: {path: pgd.stepz, low: 2, high: 3}}", r"no setting pgd\.stepz \(did you mean pgd\.steps\?\)"),
        ("parameters: {a: {path: pgd.steps}}", "a needs low and high, values or fixed"),
        ("parameters: {a: {path: pgd.steps, fixed: 3}, pgd_steps: {low: 3}}", r"both set pgd\.steps"),
        ("parameters: {pgd.steps: {fixed: 3}, pgd_steps: {low: 3}}", "a second entry for pgd_steps"),
        ("parameters: {pgd_steps: {path: pgd.ramp}}", r"stands for pgd\.steps; vary pgd\.ramp under another name"),
        ("parameters: {evaluation.steps: {low: 1, high: 3}}", r"evaluation\.steps must be the same in all trials"),
        ("parameters: {defense.name: {values: [act, est]}}", r"defense\.name must be the same in all trials"),
        ("parameters: {ramp: {fixed: constant}, ramp_length: {low: 0.5}}", "ramp_length means nothing here: it needs pgd.ramp"),
        ("parameters: {ramp_length: {only_if: {rampe: [linear]}}}", r"only_if names rampe, .*did you mean ramp\?"),
        ("parameters: {pgd_steps: {only_if: {ramp_length: {above: 2}}}}", r"needs ramp_length above 2, which is 0\.1 to 1"),
        ("parameters: {ramp: {only_if: {ramp_length: {above: 0}}}}", "ramp, ramp_length wait for each other"),
        ("parameters: {ramp: {only_if: {pgd_steps: {abov: 0}}}}", r"space\.yaml: parameters\.ramp\.only_if\.pgd_steps is not a condition"),
        ("parameters: {1λ: {path: pgd.steps, low: 2, high: 3}}", "not a usable name"),
        ("parameters: [", "is not YAML"),
        ("replace: true\nparameters: {ramp: null}", "is empty: nothing in it means anything"),
        ("parameters: {data.image_size: {values: [8, 900]}}", "image_size 900 is larger than stored_size 8"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_one_line_that_names_it(tmp_path, text, complaint):
    with pytest.raises(SearchError, match=complaint) as error:
        built(tmp_path, text)
    assert "\n" not in str(error.value)
    assert "space.yaml" in str(error.value)


def test_a_setting_of_another_defense_is_refused(tmp_path):
    with pytest.raises(SearchError, match=r"top_ranked_coefficient: this run has no setting defense\.top_ranked"):
        built(tmp_path, "parameters: {top_ranked_coefficient: {high: 1}}", with_defense(DIGITS, "act"))


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(SearchError, match="cannot be read"):
        build_space(DIGITS, file=tmp_path / "none.yaml")


def test_a_perturbation_of_nothing_has_no_step_size():
    with pytest.raises(SearchError, match=r"in units of pgd\.epsilon = 0"):
        SPACE.values_of(DIGITS.with_values({"pgd.epsilon": 0}))
