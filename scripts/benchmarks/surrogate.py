"""Between the configurations of a table: a random forest that says what others would probably have scored.

On a table alone, all values near one configuration score the same, so that a sampler cannot learn from small steps. A
forest that is fitted to the whole table (a surrogate benchmark, Eggensperger et al., 2015) has values everywhere. What
differs between seeds is drawn from the measured differences, whole curves at a time.
"""

import zlib

import numpy as np
import optuna
import pandas as pd
from optuna.samplers import RandomSampler
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold, cross_val_predict

from colotride.training.records import EpochRecord
from colotride.tune.parameters import Values
from colotride.tune.plan import SearchPlan
from scripts.benchmarks.replay import SCORE, WINDOW, MeasuredSpace, Method, Runs, plan_of
from scripts.benchmarks.table import TEST, VALIDATION, configurations

TREES = 60
DRAWS = 1000
"""Random configurations among which the best one is looked for."""

MARGIN = "margin"
"""A parameter that every configuration of the wide space has, and none of the narrow one."""

ABSENT = -0.2
"""Stands for a parameter that does not apply: outside of every range, where one split tells it from all values."""


class ForestSpace(MeasuredSpace):
    """A forest over all configurations of a table, of either space."""

    def __init__(self, table: pd.DataFrame, plan: SearchPlan, space: str, dataset: str = "digits") -> None:
        """Fit it.

        Args:
            table: see `table.load_table`.
            plan: of searches on it.
            space: "default" or "all".
            dataset: the table's.
        """
        super().__init__(table, plan, space)
        self._wide = MeasuredSpace(table, plan_of(Method(), 8, "all", dataset), "all")
        narrow = {one.name for one in plan_of(Method(), 8, "default", dataset).space.parameters}
        default = self._wide.plan.initial_points[0]
        self._rest = {name: value for name, value in default.items() if name not in narrow}
        self._epochs = plan.epochs
        points, targets, self._noise = [], [], list[np.ndarray]()
        drawn = {one.number: one for one in configurations(dataset, int(table["configuration"].max()) + 1)}
        for number, rows in table.groupby("configuration"):
            curves = rows.pivot_table(index="seed", columns="epoch", values=VALIDATION + SCORE).ffill(axis=1).to_numpy()
            last = rows.groupby("seed").tail(1)
            tests = [float(last[TEST + SCORE].mean()), float(last[TEST + "R@1"].mean())]
            points.append(self._features(drawn[int(str(number))].values))
            targets.append([*curves.mean(axis=0), *tests])
            # The mean of few seeds has taken a part of their noise with it.
            seeds = len(curves)
            self._noise += list((curves - curves.mean(axis=0)) * (seeds / (seeds - 1)) ** 0.5)
        self._rows, self._targets = np.stack(points), np.array(targets)
        self._forest = _forest().fit(self._rows, self._targets)
        self._known: dict[str, Runs] = {}

    @property
    def default(self) -> Runs:
        """What the forest says of the default configuration."""
        return self.nearest(self.plan.initial_points[0])

    @property
    def best(self) -> float:
        """The highest predicted validation score among many random configurations."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=RandomSampler(seed=0))
        points = [self._features(self.plan.space.suggest(study.ask())) for _ in range(DRAWS)]
        predicted = self._forest.predict(np.stack(points))[:, self._epochs - WINDOW : self._epochs]
        return float(predicted.mean(axis=1).max())

    def quality(self) -> float:
        """Correlation of predicted and measured validation scores of configurations that the forest has not seen."""
        predicted = cross_val_predict(_forest(), self._rows, self._targets, cv=KFold(10, shuffle=True, random_state=0))
        last = self._epochs - 1
        return float(np.corrcoef(predicted[:, last], self._targets[:, last])[0, 1])

    def nearest(self, values: Values) -> Runs:
        """What any configuration would probably have scored, with noise that belongs to it."""
        key = repr(sorted(values.items()))
        if key not in self._known:
            found = self._forest.predict(self._features(values)[None])[0]
            curve, test, retrieval = found[: self._epochs], float(found[-2]), float(found[-1])
            curves = {
                seed: [
                    EpochRecord(epoch, epoch, 0.5, {}, {SCORE: float(value)}, 100)
                    for epoch, value in enumerate(curve + self._drawn_noise(key, seed), 1)
                ]
                for seed in self.seeds
            }
            validation = float(curve[-WINDOW:].mean())
            statuses = dict.fromkeys(self.seeds, "finished")
            self._known[key] = Runs(len(self._known), curves, statuses, validation, test, retrieval)
        return self._known[key]

    def _drawn_noise(self, key: str, seed: int) -> np.ndarray:
        # Of each seed on its own: noise that sums to zero over the seeds would tell whoever tries all of them the truth.
        return self._noise[zlib.crc32(f"{key} {seed}".encode()) % len(self._noise)]

    def _features(self, values: Values) -> np.ndarray:
        """A point of the wide space; what the narrow one leaves out is as in the default."""
        whole = values if MARGIN in values else self._rest | values
        return np.nan_to_num(self._wide.point(whole), nan=ABSENT)


def _forest() -> RandomForestRegressor:
    return RandomForestRegressor(TREES, min_samples_leaf=2, max_features=0.5, random_state=0)
