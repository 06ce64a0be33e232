"""Ray's OptunaSearch, made truthful about trials that did not reach their last epoch."""

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from tune.space import Space, Values

FINISHED = "finished"


class TruthfulOptunaSearch(OptunaSearch):
    """Tells Optuna what happened to a trial.

    The stock searcher reports a trial that a scheduler stopped as COMPLETE with its last value: stopped at epoch 2, it
    then looks as if it had been trained to the end. Here only a trial whose `status` is "finished" is COMPLETE; a
    stopped, collapsed or diverged one is PRUNED at its epoch with the values that it reported, one that raised is
    FAIL. Every trial carries its `status` and `epoch` as user attributes.
    """

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Hand a value on as an intermediate one, at its epoch (not at the number of the report)."""
        trial = self._ot_trials[trial_id]
        trial.report(result[self.metric], result["epoch"])
        trial.set_user_attr("status", result["status"])
        trial.set_user_attr("epoch", result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Close a trial in the state that it deserves."""
        trial = self._ot_trials.get(trial_id)
        if trial is None or trial_id in self._completed_trials:
            return
        status = (result or {}).get("status")
        if error:
            trial.set_user_attr("status", "error")
            self._ot_study.tell(trial, state=TrialState.FAIL)
        elif status == FINISHED:
            assert result is not None
            self._ot_study.tell(trial, result[self.metric])
        else:
            if status in (None, "running"):
                trial.set_user_attr("status", "stopped")
            self._ot_study.tell(trial, state=TrialState.PRUNED)
        self._completed_trials.add(trial_id)


def build_searcher(space: Space, first: list[Values], *, metric: str, journal: Path, seed: int) -> TruthfulOptunaSearch:
    """A multivariate TPE search whose study is kept on disk.

    Args:
        space: what to vary.
        first: configurations to try before the sampler takes over.
        metric: name of the reported value to be maximised.
        journal: file of the study, an Optuna journal (opens in optuna-dashboard).
        seed: of the sampler.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, n_startup_trials=6, seed=seed
        )
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    return TruthfulOptunaSearch(
        space=_Draw(space),
        metric=metric,
        mode="max",
        points_to_evaluate=first,
        sampler=sampler,
        study_name="colotride",
        storage=storage,
    )


class _Draw:
    """The space as Ray wants it: what is asked for counts, and nothing is returned."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def __call__(self, trial: Any) -> None:
        self._space.suggest(trial)
