import pytest
import yaml

from colotride.config import RunConfig, load_config, save_config
from colotride.errors import ConfigurationError
from colotride.presets import READINGS, preset, with_defense, with_reading, with_recipe

NAMES = ["digits", "fashion-mnist", "cub", "cars", "sop"]


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_comes_back_from_yaml_as_it_was(name, tmp_path):
    config = preset(name).with_values({"seed": 7, "defense.top_ranked_coefficient": 0.3})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_presets_hold_the_papers_values():
    assert {name: preset(name).collapseness.attention_factor for name in ("cub", "cars", "sop")} == {
        "cub": 10,
        "cars": 9.5,
        "sop": 2,
    }
    cub = preset("cub")
    assert (cub.pgd.epsilon, cub.pgd.step_size, cub.pgd.steps) == (8 / 255, 1 / 255, 16)
    assert (cub.evaluation.epsilon, cub.evaluation.step_size, cub.evaluation.steps) == (8 / 255, 3 / 255, 32)
    assert (cub.model.architecture, cub.model.embedding_dim, cub.model.freeze_batchnorm) == ("resnet18", 512, True)
    assert (cub.training.learning_rate, cub.training.weight_decay, cub.training.epochs) == (1e-5, 4e-4, 100)
    assert (cub.data.stored_size, cub.data.image_size, cub.data.pairs_per_batch) == (256, 224, 56)
    assert (cub.defense.top_ranked_coefficient, cub.defense.top_ranked_margin) == (0.5, 0.04)


def test_presets_hold_robranks_values_for_small_images():
    small = preset("fashion-mnist")
    assert (small.pgd.epsilon, small.pgd.step_size) == (77 / 255, 3 / 255)
    assert (small.evaluation.epsilon, small.evaluation.step_size) == (77 / 255, 3 / 255)
    assert (small.training.learning_rate, small.training.weight_decay, small.training.epochs) == (
        1e-3,
        1e-7,
        8,
    )
    assert small.data.pairs_per_batch == 128


def write(tmp_path, change):
    tree = preset("digits").model_dump(mode="json")
    change(tree)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def message(path):
    with pytest.raises(ConfigurationError) as error:
        load_config(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unknown_key_is_named_with_what_was_meant(tmp_path):
    text = message(write(tmp_path, lambda tree: tree["pgd"].update(step=3)))
    assert "unknown key pgd.step (did you mean steps?)" in text


def test_an_unknown_key_of_a_defense_is_named_as_the_user_wrote_it(tmp_path):
    text = message(write(tmp_path, lambda tree: tree["defense"].update(top_ranked=1)))
    assert "unknown key defense.top_ranked (did you mean top_ranked_" in text


def test_every_fault_is_named_at_once(tmp_path):
    def spoil(tree):
        tree["pgd"]["steps"] = 0
        tree["training"]["margin"] = -1
        del tree["data"]["name"]

    text = message(write(tmp_path, spoil))
    assert "pgd.steps = 0" in text
    assert "training.margin = -1" in text
    assert "data.name is missing" in text


def test_an_unknown_defense_is_named(tmp_path):
    assert "defense" in message(write(tmp_path, lambda tree: tree.update(defense={"name": "magic"})))


@pytest.mark.parametrize("content", ["data: [", "just text", "- 1\n- 2\n"])
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    assert str(path) in message(path)


def test_a_missing_file_is_one_line(tmp_path):
    assert "give the path of a YAML file" in message(tmp_path / "nothing.yaml")


def test_fractions_may_be_written_in_yaml(tmp_path):
    path = write(tmp_path, lambda tree: tree["pgd"].update(epsilon="8/255"))
    assert load_config(path).pgd.epsilon == 8 / 255


def test_fields_are_replaced_by_dotted_path_and_checked():
    config = preset("digits").with_values({"pgd.steps": 3, "collapseness.attention_factor": 4})
    assert (config.pgd.steps, config.collapseness.attention_factor) == (3, 4)
    with pytest.raises(ConfigurationError, match=r"pgd\.steps = 0"):
        config.with_values({"pgd.steps": 0})
    with pytest.raises(ConfigurationError, match=r"unknown key pgd\.stride"):
        config.with_values({"pgd.stride": 1})
    with pytest.raises(ConfigurationError, match=r"'nowhere\.at\.all' is not a setting"):
        config.with_values({"nowhere.at.all": 1})


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"no data set 'birds'; there are .*digits, fashion-mnist"):
        preset("birds")


@pytest.mark.parametrize("root", ["/data/sets", "s3://bucket/data"])
def test_a_configuration_survives_json_with_a_folder_and_with_an_address(root):
    config = preset("cub").with_values({"data.root": root})
    again = RunConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert str(again.data.root) == root
    assert isinstance(again.data.root, str) == ("://" in root)


def test_the_released_reading_is_one_switch_over_settings_of_their_own():
    paper, released = preset("cub"), with_reading(preset("cub"), "released")
    assert with_reading(paper, "paper") == paper
    changed = {path for path, value in READINGS["released"].items() if value != READINGS["paper"][path]}
    assert changed == set(READINGS["paper"]) == set(READINGS["released"])
    assert (released.collapseness.weighting, released.collapseness.weight_gradient) == ("far", "through")
    assert released.pgd.budget(0, 10).step_size == 0
    assert with_reading(released, "paper") == paper
    assert released.with_values({"collapseness.weighting": "near"}).pgd.ramp_from_zero
    with pytest.raises(ConfigurationError, match="no reading 'mine'; there are paper, released"):
        with_reading(paper, "mine")
    with pytest.raises(ConfigurationError, match="readings belong to colo-tride, but the run's defense is natural"):
        with_reading(with_defense(paper, "natural"), "released")


def test_a_recipe_is_settings_beside_those_of_the_data_set(tmp_path):
    pytest.importorskip("timm")
    run = with_recipe(preset("folder").with_values({"data.root": tmp_path}), "real-photos")
    assert (run.model.architecture, run.data.image_size, run.data.root) == ("timm:tf_efficientnet_lite0", 64, tmp_path)
    assert (run.data.pairs_per_batch, run.training.learning_rate, run.model.freeze_batchnorm) == (28, 1e-4, True)
    assert (run.pgd.epsilon, run.pgd.step_size, run.pgd.steps) == (8 / 255, 1 / 255, 16)
    assert run.evaluation.protocol == "strict"
    with pytest.raises(ConfigurationError, match="no recipe 'mine'; there are real-photos"):
        with_recipe(run, "mine")
