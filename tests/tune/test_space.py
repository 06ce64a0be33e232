import optuna
import pytest
from pydantic import ValidationError

from colotride.errors import ConfigurationError, SearchError
from colotride.presets import preset
from colotride.tune.parameters import Choice, Continuous, Integer, Space
from colotride.tune.space import build_space

SPACE = build_space(preset("digits"))
PRESETS = ["digits", "fashion-mnist", "cub", "cars", "sop"]


@pytest.mark.parametrize("name", PRESETS)
def test_the_first_trial_is_the_preset_itself(name):
    config, space = preset(name), SPACE
    again = space.configure(config, space.values_of(config))
    # Dividing by epsilon and multiplying by it may cost the last digit of the step size.
    assert again.pgd.step_size == pytest.approx(config.pgd.step_size, rel=1e-12)
    assert again.with_values({"pgd.step_size": config.pgd.step_size}) == config


def test_the_methods_open_values_are_searched():
    paths = {parameter.path for parameter in SPACE.parameters}
    assert {
        "collapseness.attention_factor",
        "defense.top_ranked_coefficient",
        "defense.assist_disabled_fraction",
        "pgd.steps",
        "pgd.step_size",
        "pgd.ramp",
        "pgd.ramp_length",
    } == paths


def test_every_drawn_configuration_is_valid_and_inside_its_ranges():
    config, space = preset("digits"), SPACE
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        drawn = space.suggest(study.ask())
        made = space.configure(config, drawn)
        assert 2 <= made.pgd.steps <= 32
        assert 0.02 <= made.pgd.step_size / made.pgd.epsilon <= 0.5
        assert made.collapseness.attention_factor == drawn["attention_factor"]
        assert space.values_of(made) == pytest.approx(drawn)


def test_a_parameter_is_drawn_only_where_it_means_something():
    space = SPACE
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [space.suggest(study.ask()) for _ in range(30)]
    assert {values["ramp"] for values in drawn} == {"linear", "cosine", "constant"}
    assert all(("ramp_length" in values) == (values["ramp"] != "constant") for values in drawn)


def test_a_relative_parameter_counts_in_units_of_another_setting():
    space = Space(
        parameters=(
            Continuous(name="a", label="a", path="pgd.step_size", relative_to="pgd.epsilon", low=0.1, high=0.9),
        )
    )
    config = preset("digits").with_values({"pgd.epsilon": 0.2})
    assert space.configure(config, {"a": 0.5}).pgd.step_size == pytest.approx(0.1)


@pytest.mark.parametrize(("low", "high"), [(2, 1), (1, 1)])
def test_a_range_upside_down_is_refused_by_name(low, high):
    with pytest.raises(ValidationError, match=f"margin: low {low} is not below high {high}"):
        Integer(name="margin", label="m", path="training.margin", low=low, high=high)


def test_a_logarithmic_range_from_zero_is_refused():
    with pytest.raises(ValidationError, match="needs low above 0"):
        Continuous(name="a", label="a", path="seed", low=0.0, high=1.0, log=True)


def test_an_empty_space_is_refused():
    with pytest.raises(ValidationError):
        Space(parameters=())


def test_a_setting_that_the_run_does_not_have_is_one_line():
    natural = preset("digits").with_values({"defense": {"name": "natural"}})
    with pytest.raises(SearchError, match=r"defense\.top_ranked_coefficient, which this run does not have"):
        SPACE.values_of(natural)


def test_a_default_outside_the_space_is_one_line():
    with pytest.raises(SearchError, match="pgd_steps 64 lies outside the space"):
        SPACE.values_of(preset("digits").with_values({"pgd.steps": 64}))


def test_a_value_that_the_configuration_refuses_is_one_line():
    space = Space(parameters=(Choice(name="ramp", label="r", path="pgd.ramp", values=("linear", "square")),))
    with pytest.raises(ConfigurationError, match=r"pgd\.ramp"):
        space.configure(preset("digits"), {"ramp": "square"})
