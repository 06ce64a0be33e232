"""The study of a search: an Optuna study on disk with the complete history of every trial.

Ray runs the trials but keeps nothing that matters. A driver that is killed at any moment and started again finds every
trial here, continues those that were running and draws the next ones as if nothing had happened. The study opens in
optuna-dashboard.

Ray's own OptunaSearch would tell Optuna that a stopped trial is COMPLETE with its last value, as if it had been trained
to the end. Here a trial is COMPLETE only when it is; a stopped one is PRUNED at its epoch, a lost model is PRUNED and
infeasible, and a trial that raised is FAIL.
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Container
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from colotride.disk import one_line
from colotride.errors import SearchError
from colotride.randomness import derive_seed
from colotride.training.records import EpochRecord
from colotride.tune.journal import REMEDY, CheckedJournal
from colotride.tune.plan import FILE, Sampler, SearchPlan
from colotride.tune.records import LOST, OUT_OF_MEMORY, TrialRecord

JOURNAL = "optuna.journal"
STUDY = "colotride"
STARTUP_TRIALS = 20
"""Trials before a sampler models anything, the initial points included. Fewer lead it astray where the noise between
seeds is as large as what parameters change; `colotride benchmark search --replay` shows it."""

REDUCTION = 4
"""One of so many trials goes on at each rung of successive halving."""

POPULATION = 6
"""Of the genetic algorithm."""

MEDIAN_TRIALS = 5
"""Finished trials before the running median ends any."""

HEALTH = "health"
"""Constraint of a trial: 0 where it is feasible; above 1 for a lost model, the more the earlier it was lost."""

LAST_STOP = 2 / 3
"""Share of its epochs after which a trial is no longer stopped: little would be saved, and its final score is
informative."""

PLAN = "plan"
"""Attribute of the study: digests of what its trials have in common."""

FROM_RESULTS = ("completed_rung_", "constraints")
"""Begin the names of what pruners and samplers note of a trial's results."""

STOP, END, EPOCH = "stop", "end", "epoch "
"""Attributes of a trial: whether it has to stop, its status and reason, and each of its epochs."""


class SearchStudy:
    """The trials of one search, and what has happened to them.

    Attributes:
        plan: of the search.
        study: Optuna's view of it.
    """

    def __init__(self, folder: Path, plan: SearchPlan, storage: BaseStorage | None = None) -> None:
        """Open the study of a search, or begin it.

        Args:
            folder: of the search; made when missing.
            plan: of the search; its number of trials may have grown since it was begun.
            storage: where the trials are kept; None for the journal in the folder.

        Raises:
            SearchError: the study is damaged, or was begun with another plan.
            StorageError: it cannot be read or written.
        """
        path = folder / JOURNAL
        self.plan, self.cut = plan, 0
        self._together: Callable[[], AbstractContextManager[None]] = nullcontext
        if storage is None:
            with one_line(folder):
                folder.mkdir(parents=True, exist_ok=True)
            journal = CheckedJournal(path)
            self.cut, self._together = journal.cut, journal.together
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            self._storage = JournalStorage(journal) if storage is None else storage
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=STUDY,
                directions=["maximize"] * len(plan.objectives),
                pruner=build_pruner(plan),
                load_if_exists=True,
            )
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            AssertionError,
            optuna.exceptions.OptunaError,
        ) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise SearchError(f"the study in {path} cannot be read ({reason}); {REMEDY}") from None
        self._compare_plan(folder)
        for values in plan.initial_points:
            self.study.enqueue_trial(dict(values), skip_if_exists=True)
        trials = [trial for trial in self.study.trials if trial.state != TrialState.WAITING]
        lost = [number for number in trained_in(folder) if number > len(trials)]
        if lost:
            raise SearchError(f"{path} ends before trial {lost[0]}, which was trained in {folder}/trials; {REMEDY}")
        self._stopped = {trial.number + 1 for trial in trials if trial.user_attrs.get(STOP)}
        self._records: dict[int, TrialRecord] = {}
        for trial in trials:
            try:
                self._records[trial.number + 1] = self._restored(trial)
            except (KeyError, TypeError, ValueError) as error:
                raise SearchError(f"{path}: trial {trial.number + 1} cannot be read ({error!r}); {REMEDY}") from None

    def records(self) -> list[TrialRecord]:
        """All trials that were drawn, by number."""
        return [self._records[number] for number in sorted(self._records)]

    def record(self, number: int) -> TrialRecord:
        """One trial."""
        return self._records[number]

    def unfinished(self) -> list[int]:
        """Numbers of the trials that run, or ran when a former driver ended."""
        return [record.number for record in self.records() if record.status == "running"]

    def settle_ended(self, *, alone: bool) -> None:
        """Close the trials that had reported their end when a former driver was killed before it closed them.

        Args:
            alone: whether a trial that ran out of memory may succeed on its own; it is opened again then.
        """
        open_still = [trial.number + 1 for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
        for number in open_still:
            if self.record(number).status == "running":
                continue
            if alone and self.record(number).status == OUT_OF_MEMORY:
                self.reopen(number)
            else:
                self.settle(number)

    @property
    def complete(self) -> bool:
        """Whether every trial of the plan has come to its end."""
        return self._drawn_all and not self.unfinished()

    @property
    def _drawn_all(self) -> bool:
        known = self._known_to(len(self._records) + 1)
        spent = sum(record.epoch for number, record in self._records.items() if number <= known)
        return len(self._records) >= self.plan.trials or (
            self.plan.max_epochs is not None and spent >= self.plan.max_epochs
        )

    def draw(self) -> TrialRecord | None:
        """Draw the next trial; None where the plan has no more, or where a deterministic one waits for an earlier trial.

        The sampler's randomness follows from the search's seed and the number of the trial alone.
        """
        number = len(self._records) + 1
        if self._drawn_all or (self.plan.deterministic and self._first_unfinished <= self._known_to(number)):
            return None
        self._seed_sampler(number)
        trial = self._as_known_to(number).ask()
        return self._begun(number, self.plan.space.suggest(trial))

    def _known_to(self, number: int) -> int:
        """Up to which trial the sampler and the pruner know what became of the others when they handle a trial.

        In a deterministic search these are the trials that have ended whichever of the later ones is faster.
        """
        return number - (self.plan.concurrent or 1) if self.plan.deterministic else self.plan.trials + number

    @property
    def _first_unfinished(self) -> int:
        return min(self.unfinished(), default=len(self._records) + 1)

    def _as_known_to(self, number: int) -> optuna.Study:
        if not self.plan.deterministic:
            return self.study
        study = copy.copy(self.study)
        study._storage = _KnownTrials(self._storage, self._known_to(number), number)
        return study

    def report(self, record: TrialRecord) -> bool:
        """Record a trial's newest epoch or its end; returns whether the trial should be stopped.

        A trial that continues after an interruption reports its epochs again; epochs that are known already change
        nothing.
        """
        known = self._records[record.number]
        if record.epoch <= known.epoch:
            if record.status == "running":
                return record.epoch == known.epoch and self._decide(known)
            record = known.with_end(record.status, record.reason)
        with self._together():
            if len(self.plan.objectives) == 1 and record.status not in LOST and record.epoch > known.epoch:
                value = record.scores[self.plan.objectives[0]]
                self._storage.set_trial_intermediate_value(self._id(record.number), record.epoch, value)
            self._write(record)
        return self._decide(record)

    def _decide(self, record: TrialRecord) -> bool:
        """Whether a trial should stop after its newest epoch.

        It may be asked again: the driver may be killed before the pruner has answered, and before a trial that should
        stop has ended. ASHA answers once for every rung and notes that it did; a note that came before the answer would
        lose it.
        """
        single = len(self.plan.objectives) == 1
        if record.status != "running" or not single or record.epoch > LAST_STOP * self.plan.epochs:
            return False
        known = self._as_known_to(record.number)
        identity, notes = self._id(record.number), _PrunerNotes(known._storage)
        study = copy.copy(known)
        study._storage = notes
        stop = study.pruner.prune(study, self._frozen(record.number))
        with self._together():
            if stop:
                self._storage.set_trial_user_attr(identity, STOP, True)
                self._stopped.add(record.number)
            for name, value in notes.attributes.items():
                self._storage.set_trial_system_attr(identity, name, value)
        return record.number in self._stopped

    def settle(self, number: int, error: str | None = None) -> None:
        """Close a trial that has ended, in the state that its end calls for; an interrupted one stays open.

        Args:
            number: of the trial.
            error: what it raised, if it did.
        """
        record = self._records[number]
        if self._frozen(number).state.is_finished():
            return
        if error is not None:
            record = record.with_end("error", error)
        elif number in self._stopped and record.status == "running":
            record = record.with_end("stopped", record.reason)
        if record.status == "running":
            return
        self._write(record)
        if HEALTH not in self._frozen(number).constraints:
            left = 1 - record.epoch / self.plan.epochs
            self._opened(number).set_constraint(HEALTH, 1 + left if record.status in LOST else 0.0)
        if record.status == "finished":
            self.study.tell(number - 1, [record.scores[name] for name in self.plan.objectives])
        elif record.status in ("error", OUT_OF_MEMORY):
            self.study.tell(number - 1, state=TrialState.FAIL)
        else:
            self.study.tell(number - 1, state=TrialState.PRUNED)

    def reopen(self, number: int) -> None:
        """Open a trial again that ended through no fault of its own."""
        self._write(self._records[number].with_end("running"))

    def _compare_plan(self, folder: Path) -> None:
        """Refuse a plan other than that of the trials that are here.

        Raises:
            SearchError: it names what was changed.
        """
        known, now = self.study.user_attrs.get(PLAN), self.plan.fingerprints()
        if known is None:
            self.study.set_user_attr(PLAN, now)
            return
        different = [name for name in now if known.get(name) != now[name]]
        if different:
            raise SearchError(
                f"{folder / FILE} was changed after the search began, in {', '.join(different)}: its trials could not be "
                "compared; restore the file, or begin a new search"
            )

    def _begun(self, number: int, values: dict[str, Any]) -> TrialRecord:
        config = self.plan.space.configure(self.plan.base, values)
        record = TrialRecord(number=number, values=values, config=config)
        self._write(record)
        return record

    def _write(self, record: TrialRecord) -> None:
        known, identity = self._records.get(record.number), self._id(record.number)
        new = record.history if known is None or known is record else record.history[len(known.history) :]
        attributes: dict[str, Any] = {f"{EPOCH}{one.epoch}": dataclasses.asdict(one) for one in new}
        attributes |= {"status": record.status, "epoch": record.epoch}
        # Last, so that a killed driver leaves no trial with a status and without its epochs.
        attributes[END] = {"status": record.status, "reason": record.reason}
        there = self._storage.get_trial(identity).user_attrs
        with self._together():
            for name, value in attributes.items():
                if name not in there or there[name] != value:
                    self._storage.set_trial_user_attr(identity, name, value)
        self._records[record.number] = record

    def _restored(self, trial: FrozenTrial) -> TrialRecord:
        end = trial.user_attrs.get(END)
        if end is None:
            # The driver was killed while it drew this one.
            return self._redrawn(trial)
        epochs = [EpochRecord(**value) for name, value in trial.user_attrs.items() if name.startswith(EPOCH)]
        record = TrialRecord(
            number=trial.number + 1,
            values=dict(trial.params),
            config=self.plan.space.configure(self.plan.base, trial.params),
            history=tuple(sorted(epochs, key=lambda one: one.epoch)),
            **end,
        )
        if trial.user_attrs["epoch"] != record.epoch:
            # The driver was killed while it wrote the last one.
            self._write(record)
        return record

    def _redrawn(self, trial: FrozenTrial) -> TrialRecord:
        """The rest of a trial's values.

        All are drawn again, because a value that is read instead of drawn would shift the random numbers of those after
        it. Where another trial has ended since and the first ones come out differently, only the others are drawn.
        """
        number, identity = trial.number + 1, self._id(trial.number + 1)
        study = copy.copy(self._as_known_to(number))
        study._storage = drawn = _Drawn(study._storage, identity)
        self._seed_sampler(number)
        study.sampler = self.study.sampler
        values = self.plan.space.suggest(optuna.Trial(study, identity))
        if all(values.get(name) == value for name, value in trial.params.items()):
            for name, (value, distribution) in drawn.parameters.items():
                if name not in trial.params:
                    self._storage.set_trial_param(identity, name, value, distribution)
            return self._begun(number, values)
        self._seed_sampler(number)
        live = optuna.Trial(self._as_known_to(number), identity)
        return self._begun(number, self.plan.space.suggest(live))

    def _seed_sampler(self, number: int) -> None:
        seed = derive_seed(self.plan.seed, "sampler", number) % 2**32
        self.study.sampler = build_sampler(self.plan.sampler, seed)

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._id(number))

    def _opened(self, number: int) -> optuna.Trial:
        # A trial that is opened draws what its sampler models together, which would be wasted time here.
        self.study.sampler = RandomSampler()
        return optuna.Trial(self.study, self._id(number))

    def _id(self, number: int) -> int:
        # The only study of its storage: trials are numbered alike in both.
        return self._storage.get_trial_id_from_study_id_trial_number(
            self._storage.get_study_id_from_name(STUDY), number - 1
        )


class _PrunerNotes:
    """A storage that keeps what a pruner notes of a trial, to be written after its answer."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self.attributes: dict[str, Any] = {}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.attributes[key] = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class _Drawn:
    """A storage in which a trial has no values yet, and which keeps those that it gets to itself."""

    def __init__(self, storage: BaseStorage, own: int) -> None:
        self._storage, self._own = storage, own
        self.parameters: dict[str, tuple[float, BaseDistribution]] = {}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        trial = self._storage.get_trial(trial_id)
        if trial_id == self._own:
            trial = copy.deepcopy(trial)
            trial.params, trial.distributions = {}, {}
        return trial

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self.parameters[param_name] = (param_value_internal, distribution)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class _KnownTrials:
    """A storage in which only the first trials have ended: the others, but one, seem to have just begun."""

    def __init__(self, storage: BaseStorage, known: int, own: int) -> None:
        self._storage, self._known, self._own = storage, known, own

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [self._seen(trial) for trial in self._storage.get_all_trials(study_id, deepcopy=False)]
        return [trial for trial in trials if states is None or trial.state in states]

    def _seen(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.number < self._known or trial.number + 1 == self._own or trial.state == TrialState.WAITING:
            return trial
        seen = copy.deepcopy(trial)
        seen.state, seen.values, seen.datetime_complete = TrialState.RUNNING, None, None
        seen.intermediate_values, seen.user_attrs = {}, {}
        seen.system_attrs = {key: value for key, value in seen.system_attrs.items() if not key.startswith(FROM_RESULTS)}
        return seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def build_sampler(name: Sampler, seed: int) -> BaseSampler:
    """A sampler. All but the random one, which is the control, learn from the constraints of lost trials.

    Args:
        name: tpe (multivariate, in groups, with the constant liar for trials that still run), gp (Gaussian process),
            nsga2 (for several objectives) or random.
        seed: of its draws.
    """
    if name == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return GPSampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
        if name == "nsga2":
            return NSGAIISampler(population_size=POPULATION, seed=seed)
        return TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS, seed=seed)


def build_pruner(plan: SearchPlan) -> BasePruner:
    """What stops trials early: asynchronous successive halving (ASHA), the running median, or nothing."""
    if plan.stopping == "asha":
        return SuccessiveHalvingPruner(min_resource=plan.grace, reduction_factor=REDUCTION)
    if plan.stopping == "median":
        return MedianPruner(n_startup_trials=MEDIAN_TRIALS, n_warmup_steps=plan.grace)
    return NopPruner()


def trained_in(folder: Path) -> list[int]:
    """Numbers of the trials that have a folder in a search's own."""
    return sorted(int(path.name) for path in (folder / "trials").glob("[0-9]*") if path.name.isdecimal())
