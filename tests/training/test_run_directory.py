"""Which changes of a configuration make it that of another run."""

import pytest

from colotride.config import RunConfig
from colotride.errors import ConfigurationError
from colotride.models import ModelSettings
from colotride.presets import with_defense
from colotride.training.run_directory import config_digest
from tests.training.test_trainer import small


class LaterModel(ModelSettings):
    novelty: bool = False


class LaterConfig(RunConfig):
    """Of a version with one setting more."""

    model: LaterModel = LaterModel()


def leaves(tree, path=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def test_a_later_version_knows_a_run_as_long_as_its_new_setting_is_off():
    tree = small().model_dump()
    assert config_digest(LaterConfig.model_validate(tree)) == config_digest(small())
    assert config_digest(LaterConfig.model_validate(tree | {"model": tree["model"] | {"novelty": True}})) != (
        config_digest(small())
    )


@pytest.mark.parametrize("change", [{"model": {"embedding_dim": 16}}, {"data": {"flip": False}}])
def test_a_later_version_with_another_default_is_another_run(change):
    """The run's own file holds every value, the former default among them."""
    (section, values), *_ = change.items()
    kind = RunConfig.model_fields[section].annotation
    other = type("Other", (kind,), {"__annotations__": {key: type(value) for key, value in values.items()}, **values})
    later = type("Later", (RunConfig,), {"__annotations__": {section: other}})
    before = small(**{f"{section}.{key}": kind.model_fields[key].default for key in values})
    assert config_digest(later.model_validate(before.model_dump())) != config_digest(before)


def test_every_switch_and_number_counts_and_so_does_the_defense_with_all_its_defaults():
    digests = {config_digest(small())}
    changed = 0
    for path, value in leaves(small().model_dump()):
        if path == "data.hold_out_validation" or isinstance(value, bool):
            new = not value
        elif isinstance(value, int | float):
            new = type(value)(value / 2) if value > 1 else value + 0.125
        else:
            continue
        try:
            other = small(**{path: new})
        except ConfigurationError:
            continue
        changed += 1
        digests.add(config_digest(other))
    assert changed > 30
    assert len(digests) == changed + 1
    assert config_digest(with_defense(small(), "natural")) not in digests
    plain = [small(defense={"name": name}) for name in ("naive-tride", "naive", "natural", "act")]
    assert len({config_digest(one) for one in plain}) == 4


def test_where_the_data_lie_does_not_count():
    assert config_digest(small(**{"data.root": "/elsewhere"})) == config_digest(small())
