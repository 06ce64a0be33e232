"""The last round: the best configurations and the default, retrained on all training classes with several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from colotride.config import RunConfig, save_config
from colotride.tracking.searches import SearchRecord
from colotride.tune.session import Session
from colotride.tune.standing import Standing, standing_of
from colotride.tune.trials import TrialRow
from colotride.tune.verdict import Judged, judge_each

DEFAULT, BEST = "default", "best"


@dataclass(frozen=True)
class Finalist:
    """One configuration of the last round."""

    name: str
    """default, best, or the number of its trial."""
    config: RunConfig
    """With the first seed."""
    judged: tuple[Judged, ...]
    """One per seed."""
    folders: tuple[Path, ...]
    """Of the runs, one per seed."""

    @property
    def standing(self) -> Standing:
        """Its scores on the test classes."""
        return standing_of(self.name, self.judged)


def contenders(session: Session, ranked: Sequence[TrialRow], top: int) -> dict[str, RunConfig]:
    """The default and the best configurations by name, to be trained on all training classes.

    Where the default itself is among the best it stands there once, as the default.
    """
    plan = session.plan
    found = {DEFAULT: plan.base}
    for place, row in enumerate(ranked[:top]):
        config = plan.space.configure(plan.base, row.values)
        if row.number > 1 or plan.space.point_of(plan.base, clip=True) != row.values:
            found[BEST if place == 0 else f"trial-{row.number}"] = config
    return {name: config.with_values({"data.hold_out_validation": False}) for name, config in found.items()}


def save_contenders(session: Session, ranked: Sequence[TrialRow]) -> None:
    """Write the default and the best configuration as YAML into the search's folder."""
    found = contenders(session, ranked, 1)
    save_config(found[DEFAULT], session.folder / "default.yaml")
    save_config(found.get(BEST, found[DEFAULT]), session.folder / "best.yaml")


def give_verdict(
    session: Session, ranked: Sequence[TrialRow], top: int, seeds: int, record: SearchRecord
) -> list[Finalist]:
    """Retrain and evaluate; what an interrupted session had finished is not done again.

    Args:
        session: of the search.
        ranked: finished trials from the best to the worst.
        top: how many of them to judge, beside the default.
        seeds: per configuration, from the base's own upwards.
        record: told of every run.
    """
    configs = contenders(session, ranked, top)
    jobs: dict[Path, tuple[str, RunConfig]] = {}
    for name, config in configs.items():
        for seed in range(config.seed, config.seed + seeds):
            folder = (session.folder / "verdict" / name / f"seed-{seed}").absolute()
            jobs[folder] = (name, config.with_values({"seed": seed}))
    judged: dict[Path, Judged] = {}
    with session.console.status(_saying(session.console, configs, seeds, 0, len(jobs))) as status:
        ended = judge_each(
            {folder: config for folder, (_, config) in jobs.items()},
            device=session.place.device,
            cpus=session.resources.cpus_per_trial,
            gpus=session.resources.gpus_per_trial,
            concurrent=session.at_once,
            workers=session.place.workers,
        )
        for folder, one in ended:
            judged[folder] = one
            name, config = jobs[folder]
            if one.evaluation is not None:
                record.verdict(f"{name} seed {config.seed}", config, one.history, one.evaluation)
            status.update(_saying(session.console, configs, seeds, len(judged), len(jobs)))
    finalists = []
    for name, config in configs.items():
        folders = tuple(folder for folder, (own, _) in jobs.items() if own == name)
        finalists.append(Finalist(name, config, tuple(judged[folder] for folder in folders), folders))
    return finalists


def register_winner(session: Session, finalists: Sequence[Finalist], record: SearchRecord) -> str | None:
    """Register the model of the best configuration, by its mean over the seeds; returns its name in MLflow.

    Of its seeds the first one that could be evaluated is taken, not the luckiest.
    """
    objective = session.plan.objectives[0]
    for finalist in sorted(finalists, key=lambda one: -one.standing.mean(objective)):
        for folder, judged in zip(finalist.folders, finalist.judged, strict=True):
            if judged.evaluation is not None:
                seed = folder.name.removeprefix("seed-")
                return record.register(f"{finalist.name} seed {seed}", folder, judged.evaluation.scores())
    return None


def _saying(console: Console, configs: dict[str, RunConfig], seeds: int, done: int, total: int) -> str:
    text = (
        f"Verdict: {', '.join(configs)} on all training classes with {seeds} seeds, then all attacks: {done} of {total}"
    )
    if not console.is_terminal and done:
        console.print(text, highlight=False, soft_wrap=True)
    return text
