import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from pydantic import ValidationError

from colotride.config import RunConfig, load_config, save_config
from colotride.errors import ConfigurationError
from colotride.evaluation.chunks import make_plan
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.settings import EvaluationSettings
from colotride.presets import preset, with_defense
from colotride.registry import ATTACKS, DEFENSES, MINERS, Registry, load_plugin, register_defense
from tests.evaluation.galleries import toy_gallery, toy_images
from tests.toys import FlatModel

PLUGIN = """
    from typing import Literal

    import torch
    from colotride.data.digits import digits
    from colotride.defenses import DefenseSettings, Perturbation, TripletDefense
    from colotride.evaluation.attacks import Attack
    from colotride.registry import register_attack, register_dataset, register_defense, register_loss, register_miner


    class {name}Settings(DefenseSettings):
        recommended = {{"pgd.steps": 3}}
        name: Literal["{name}"] = "{name}"
        strength: float = 1.0


    @register_defense("{name}")
    class {name}(TripletDefense[{name}Settings]):
        Settings = {name}Settings

        def perturbed_parts(self, info):
            return "anchor"

        def perturbation(self, triplets, diagnostics, info, generator):
            return Perturbation(
                lambda moved: self.settings.strength * triplets.distances(moved, triplets.negative_embedding).mean()
            )


    @register_miner("{name}-farthest")
    def farthest(candidates):
        return candidates.other_class, candidates.distances


    @register_loss("{name}-contrast")
    def contrast(batch):
        return (batch.anchor_positive - batch.anchor_negative).mean()


    @register_attack("{name}-pole")
    class Pole(Attack):
        numbers = {{"{name}:first axis": "raised"}}

        def objective(self, attacked):
            return lambda moved: -moved[:, 0]

        def measure(self, attacked, embeddings):
            return {{"{name}:first axis": embeddings[:, 0]}}


    register_dataset("{name}-digits", recommended={{"data.stored_size": 8, "data.image_size": 8,
        "data.flip": False, "data.pairs_per_batch": 8, "data.pairs_per_epoch": 8,
        "model.architecture": "two-convolutions", "model.embedding_dim": 8, "model.weights": "none",
        "training.epochs": 1}})(digits)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch, request):
    """A module in the working directory that registers one of everything; its name."""
    name = f"plugin_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(PLUGIN.format(name=name)))
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_an_unknown_name_is_told_the_nearest_one():
    with pytest.raises(
        ConfigurationError, match=r"no defense 'colo-trid' \(did you mean colo-tride\?\); there are act"
    ):
        DEFENSES["colo-trid"]
    with pytest.raises(ConfigurationError, match=r"^no miner 'xyz'; there are random, semi-hard"):
        MINERS["xyz"]


def test_two_members_cannot_have_one_name():
    registry: Registry[object] = Registry("thing", "colotride.errors")
    registry.register("a", ConfigurationError)
    registry.register("a", ConfigurationError)
    with pytest.raises(ConfigurationError, match=r"thing 'a' is registered already, by colotride\.errors"):
        registry.register("a", RunConfig)
    assert (registry.names(), len(registry), "a" in registry) == (("a",), 1, True)


def test_a_defense_without_settings_of_its_name_is_refused():
    with pytest.raises(ConfigurationError, match=r'needs an attribute Settings.*Literal\["mine"\]'):
        register_defense("mine")(object)
    assert "mine" not in DEFENSES


def test_a_plugins_members_are_configured_checked_and_saved_as_our_own(plugin, tmp_path):
    load_plugin(plugin)
    values = {"plugins": [plugin], "training.miner": f"{plugin}-farthest", "training.loss": f"{plugin}-contrast"}
    config = with_defense(preset(f"{plugin}-digits"), plugin).with_values(values | {"defense.strength": 2.0})
    assert (config.defense.strength, config.pgd.steps, config.data.stored_size) == (2.0, 3, 8)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ConfigurationError, match=r"unknown key defense\.strenght \(did you mean strength\?\)"):
        config.with_values({"defense.strenght": 1})
    with pytest.raises(ConfigurationError, match=r"defense\.strength = 'much': "):
        config.with_values({"defense.strength": "much"})


def test_a_plugins_members_train(plugin):
    from colotride.data.splits import load_splits
    from colotride.training.trainer import Trainer

    load_plugin(plugin)
    values = {"plugins": [plugin], "training.miner": f"{plugin}-farthest", "training.loss": f"{plugin}-contrast"}
    config = with_defense(preset(f"{plugin}-digits"), plugin).with_values(values)
    outcome = Trainer(config, load_splits(config.data).train, None, device=torch.device("cpu")).run()
    assert outcome.status == "finished"
    seen = outcome.history[0].diagnostics
    # The loss is the perturbed triplets' hardness without a margin, which the perturbation has raised.
    assert seen["loss"] == pytest.approx(seen["perturbed_hardness"], abs=1e-6)
    assert seen["perturbed_hardness"] > seen["hardness"]


def test_a_plugins_attack_is_evaluated_beside_the_nine_and_counts_in_no_score(plugin):
    load_plugin(plugin)
    name, number = f"{plugin}-pole", f"{plugin}:first axis"
    options = {"image_size": 2, "seed": 0, "device": torch.device("cpu")}
    settings = EvaluationSettings(steps=3, epsilon=0.1, step_size=0.05, bootstrap=20)
    plain = evaluate(FlatModel(), toy_images(), settings, **options)
    result = evaluate(FlatModel(), toy_images(), settings.with_values({"extra_attacks": (name,)}), **options)
    values = result.per_query[number]
    assert (values["after"] > values["before"]).all()
    assert result.attacked[number] == pytest.approx(float(values["after"].mean()))
    assert number in result.intervals
    assert (result.ERS, result.ARS) == (plain.ERS, plain.ARS)
    assert {key: value for key, value in result.scores().items() if key != number} == plain.scores()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("pole-axis", "no attack 'pole-axis'"), ("CA+", "'CA\\+' is one of the nine that always run")],
)
def test_an_extra_attack_that_is_unknown_or_runs_anyway_is_refused(name, complaint):
    with pytest.raises(ValidationError, match=complaint):
        EvaluationSettings(extra_attacks=(name,))


def test_an_attack_that_reports_anothers_number_is_refused(plugin):
    load_plugin(plugin)
    attack = ATTACKS[f"{plugin}-pole"]
    attack.numbers = {"CA+": "raised"}
    with pytest.raises(ConfigurationError, match=r"reports 'CA\+', which attack 'CA\+' reports already"):
        make_plan(toy_gallery(), EvaluationSettings(extra_attacks=(f"{plugin}-pole",)), image_size=2, seed=0)


@pytest.mark.slow
def test_a_fresh_process_knows_the_plugins_of_a_configuration(plugin, tmp_path):
    load_plugin(plugin)
    values = {"plugins": [plugin], "training.miner": f"{plugin}-farthest"}
    config = preset(f"{plugin}-digits").with_values(values)
    save_config(config, tmp_path / "config.yaml")
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(config))
    code = """
import pickle, pathlib
from colotride.config import load_config
from colotride.registry import DATASETS, MINERS
{read}
assert config.training.miner in MINERS and config.data.name in DATASETS
print(config.training.miner)
"""
    for read in (
        "config = load_config(pathlib.Path('config.yaml'))",
        "config = pickle.loads(open('config.pickle', 'rb').read())",
    ):
        command = [sys.executable, "-c", code.format(read=read)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.stdout.strip() == f"{plugin}-farthest", done.stderr


def test_a_plugin_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no such thing\\nand more')")
    with pytest.raises(ConfigurationError, match=r"plugin 'no_such_module' cannot be imported \(ModuleNotFoundError"):
        load_plugin("no_such_module")
    with pytest.raises(ConfigurationError, match=r"\(RuntimeError: no such thing\); name a Python module") as error:
        load_plugin("broken_plugin")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigurationError, match=r"configuration: plugins\.0 = 'no_such_module'|no_such_module"):
        preset("digits").with_values({"plugins": ["no_such_module"]})
