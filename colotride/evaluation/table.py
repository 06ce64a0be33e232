"""Evaluations side by side, as the paper's tables show them."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from colotride.errors import ConfigurationError
from colotride.evaluation.measurement import Measurement
from colotride.evaluation.record import EvaluationRecord
from colotride.evaluation.scores import ATTACK_COLUMNS, RESISTANCE_COLUMNS
from colotride.markdown import printable


def table_of(evaluations: Mapping[str, EvaluationRecord], title: str = "") -> Table:
    """One column per evaluation, one row per number: benign, after each attack (with its resistance), ERS and ARS.

    Tall instead of wide, because eighteen columns do not fit a terminal. The caption names protocol and budgets.

    Args:
        evaluations: by the name that heads each column.
        title: above the table.

    Raises:
        ConfigurationError: evaluations of different protocols, which are not comparable.
    """
    first = _of_one_protocol(evaluations)
    caption = (
        f"{first.protocol} protocol, {first.queries} of {first.images} images attacked with {first.steps} steps; "
        f"ARS is a {first.resistance_definition}"
    )
    # As Text, because rich takes brackets in a plain string for markup: "[red]" would vanish.
    heading = Text(printable(title), style="table.title") if title else None
    table = Table(title=heading, caption=caption)
    table.add_column("")
    for name in evaluations:
        table.add_column(Text(printable(name)), justify="right", overflow="fold")
    for name in first.benign:
        table.add_row(name, *(f"{one.benign[name]:.1f}" for one in evaluations.values()))
    table.add_section()
    extra = [name for name in first.attacked if name not in ATTACK_COLUMNS]
    for name in (
        *ATTACK_COLUMNS,
        *(name for name in extra if all(name in one.attacked for one in evaluations.values())),
    ):
        table.add_row(name, *(_attacked(one, name) for one in evaluations.values()))
    table.add_section()
    table.add_row("ERS", *(f"{one.ERS:.1f}" for one in evaluations.values()), style="bold")
    table.add_row("ARS", *(f"{one.ARS:.1f}" for one in evaluations.values()), style="bold")
    return table


def measurement_table(measurement: Measurement) -> Table:
    """What was measured beside the attacks, as its report has it."""
    cost = f"; {measurement.calls} images through the network" if measurement.calls else ""
    settings = ", ".join(f"{name} {_plain(value)}" for name, value in measurement.settings.items())
    table = Table(title=measurement.title, caption=settings + cost)
    table.add_column("")
    for name in measurement.columns:
        table.add_column(name, justify="right")
    for name, figures in measurement.rows.items():
        table.add_row(name, *(figure_text(value) for value in figures.values()))
    return table


def figure_text(value: float | None) -> str:
    """A figure of a measurement; a dash where there is none."""
    return "–" if value is None else f"{value:.4g}"


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _of_one_protocol(evaluations: Mapping[str, EvaluationRecord]) -> EvaluationRecord:
    protocols = {one.protocol for one in evaluations.values()}
    if len(protocols) > 1:
        raise ConfigurationError(f"protocols {sorted(protocols)} cannot stand in one table; evaluate again with one")
    definitions = {one.resistance_definition for one in evaluations.values()}
    if len(definitions) > 1:
        raise ConfigurationError(
            f"ARS as a {' and as a '.join(sorted(definitions))} cannot stand in one table; evaluate the older model again"
        )
    return next(iter(evaluations.values()))


def _attacked(evaluation: EvaluationRecord, name: str) -> str:
    value = f"{evaluation.attacked[name]:.{_digits(name)}f}"
    return f"{value}  (resists {evaluation.resistance[name]:.1f})" if name in RESISTANCE_COLUMNS else value


def _digits(name: str) -> int:
    return 2 if name in ("TMA", "ES:D") else 1
