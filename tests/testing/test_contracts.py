"""Our own defenses and the data set that needs no download keep the contracts that others can inherit."""

import pytest

from colotride.defenses import DEFENSES
from colotride.testing.datasets import DatasetContract
from colotride.testing.defenses import DefenseContract


@pytest.mark.parametrize("name", DEFENSES)
class TestDefenses(DefenseContract):
    @pytest.fixture(autouse=True)
    def _name(self, name):
        self.name = name

    def make(self):
        return DEFENSES[self.name](epsilon=0.05, step_size=0.02, steps=2)


class TestDigits(DatasetContract):
    name, stored_size = "digits", 8
