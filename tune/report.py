"""The report of a search: one self-contained HTML file, and its charts as PNG files.

plotly, of the extra `report`, is loaded when a report is written.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colotride.errors import SearchError
from colotride.io import write_atomically
from colotride.templates import render
from colotride.tune.charts import COLOURS, charts_of, write_pictures
from colotride.tune.final_evaluation import Finalist, verdict_sentences
from colotride.tune.parameters import Choice, Space, value_in
from colotride.tune.plan import SearchPlan
from colotride.tune.progress import COLUMNS, score_text, value_text
from colotride.tune.race import Contender, race_rows, raced_first
from colotride.tune.records import LOST, TrialRecord, best_first
from colotride.tune.seed_statistics import verdict_rows

ROWS = 100
"""Trials in one table of the report; of more, all but the first table are folded."""


@dataclass(frozen=True)
class SavedEpochs:
    """Epochs that were not trained, as shares of all trials trained to the end."""

    stopped: float
    """Because the scheduler gave up on poor trials."""
    lost: float
    """Because a model had collapsed, diverged or become NaN."""
    spent: float
    """Because finished trials had spent the image passes that one was allowed."""
    other: float
    """Because of errors, and of trials that still run."""

    @property
    def total(self) -> float:
        """1 - (epochs trained) / (trials times epochs)."""
        return sum(dataclasses.astuple(self))


def saved_epochs(records: Sequence[TrialRecord], epochs: int) -> SavedEpochs:
    """How much of the epochs of all trials was not trained, and why.

    Args:
        records: all trials.
        epochs: of a trial that is trained to the end.
    """
    shares = {"stopped": 0.0, "lost": 0.0, "spent": 0.0, "other": 0.0}
    kinds = {"stopped": "stopped", "finished": "spent", **dict.fromkeys(LOST, "lost")}
    for record in records:
        missing = max(0, epochs - record.epoch) / (epochs * len(records))
        shares[kinds.get(record.status, "other")] += missing
    return SavedEpochs(**shares)


def write_report(
    folder: Path,
    plan: SearchPlan,
    records: Sequence[TrialRecord],
    finalists: Sequence[Finalist] = (),
    mlflow_link: str = "",
    contenders: Sequence[Contender] = (),
) -> list[Path]:
    """Write the report, each file atomically.

    Args:
        folder: of the search; gets report.html and figures/*.png, as far as there are enough trials for a chart.
        plan: of the search.
        records: all trials, in the order of their numbers.
        finalists: of the final evaluation; may be empty.
        mlflow_link: where MLflow shows the search's runs; empty where they are not recorded.
        contenders: of the race; may be empty.

    Returns:
        The files that were written, the report first.

    Raises:
        SearchError: plotly is not installed.
    """
    try:
        from colotride.tune.page_charts import library, page_charts
    except ModuleNotFoundError as error:
        raise SearchError(f"the report needs {error.name}; install it with pip install 'colotride[report]'") from None

    statistics = {one.name: one.statistics for one in finalists}
    charts, importances = charts_of(records, plan.space, plan.objectives, plan.epochs, finalists)
    finished = [record for record in records if record.status == "finished"]
    best = raced_first(best_first(finished, plan.objectives), contenders)[0] if finished else None
    page = render(
        "colotride.tune",
        "report.html.j2",
        title=folder.name,
        plan=plan,
        records=records,
        best=best,
        library=library(),
        charts=page_charts(charts),
        counts={end: count for end in COLOURS if (count := sum(record.status == end for record in records))},
        colours=COLOURS,
        saved=saved_epochs(records, plan.epochs),
        importances=importances,
        leaders=[one for one in plan.space.parameters if one.name in importances.leaders],
        choices=[one.name for one in plan.space.parameters if isinstance(one, Choice)],
        partial={name: count for name in importances.shares if (count := _having(finished, name)) < len(finished)},
        settings=_settings(plan, best),
        verdict=verdict_rows(statistics, plan.objectives, plan.comparisons) if finalists else [],
        race=race_rows(contenders),
        sentences=verdict_sentences(plan, finalists),
        columns=COLUMNS,
        rows=ROWS,
        score_text=score_text,
        value_text=value_text,
        mlflow_link=mlflow_link,
    )
    report = folder / "report.html"
    write_atomically(report, page.encode())
    return [report, *write_pictures(charts, folder / "figures")]


def _having(records: Sequence[TrialRecord], name: str) -> int:
    return sum(name in record.values for record in records)


def _settings(plan: SearchPlan, best: TrialRecord | None) -> list[dict[str, Any]]:
    """The searched settings: the default's value, the best one's, and the path in the configuration."""
    space: Space = plan.space
    return [
        {
            "name": one.name,
            "default": value_text(value_in(plan.base, one)),
            "best": value_text(best.values.get(one.name)) if best else "",
            "path": f"{one.path} / {one.relative_to}" if one.relative_to else one.path,
        }
        for one in space.parameters
    ]
