"""Our own defenses, attacks and the data set that needs no download keep the contracts that others can inherit."""

import pytest

from colotride.defenses import DEFENSES
from colotride.evaluation.attacks import attack_named
from colotride.evaluation.scores import ATTACK_NAMES
from colotride.testing.attacks import AttackContract
from colotride.testing.datasets import DatasetContract
from colotride.testing.defenses import DefenseContract


@pytest.mark.parametrize("name", DEFENSES)
class TestDefenses(DefenseContract):
    @pytest.fixture(autouse=True)
    def _name(self, name):
        self.name = name

    def make(self):
        return DEFENSES[self.name](epsilon=0.05, step_size=0.02, steps=2)


@pytest.mark.parametrize("protocol", ["strict", "published"])
@pytest.mark.parametrize("name", ATTACK_NAMES)
class TestAttacks(AttackContract):
    own_numbers = False

    @pytest.fixture(autouse=True)
    def _name(self, name, protocol):
        self.name, self.protocol = name, protocol

    def make(self):
        return attack_named(self.name, self.protocol)


class TestDigits(DatasetContract):
    name, stored_size = "digits", 8
