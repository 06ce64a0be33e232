"""Records of what papers have published, with their tables as provenance."""

from typing import Any

from colotride.evaluation.scores import ATTACK_COLUMNS, RESISTANCE_COLUMNS
from colotride.leaderboard.records import Record
from colotride.reproduction.paper import paper_tables

BENIGN = ("R@1", "R@2", "mAP", "NMI")

COLORS, GREY = (8 / 255, 3 / 255), (77 / 255, 3 / 255)
"""Epsilon and step size of the papers' evaluations, on photographs and on Fashion-MNIST."""


def published_records() -> list[Record]:
    """ACT, HM, COLO-TRIDE and no defense, as Tables 1 and 2 of the COLO-TRIDE paper and RobRank's tables have them.

    ERS is that of Table 1, and ARS that of Table 2. RobRank's tables have no ARS, and their ERS follows from the
    columns.
    """
    tables = paper_tables()
    resistances = {(row["dataset"], row["defense"]): row for row in tables["table2"]}
    found = [
        _record(
            row,
            resistances[row["dataset"], row["defense"]],
            "ResNet-18",
            COLORS,
            "COLO-TRIDE paper (arXiv:2312.07364), Tables 1 and 2",
            row["ERS"],
        )
        for row in tables["table1"]
    ]
    found += [
        _record(
            row,
            {},
            "two convolutions",
            GREY,
            "RobRank, doc/dmltab-fashion.txt; ERS follows from the columns",
            row["ERS_recomputed"],
        )
        for row in tables["peers"]
    ]
    return found


def _record(
    row: dict[str, Any], resistances: dict[str, Any], network: str, budget: tuple[float, float], source: str, ers: float
) -> Record:
    return Record(
        model=row["defense"],
        network=network,
        dataset=row["dataset"],
        norm="linf",
        epsilon=budget[0],
        protocol="published",
        resistance_definition="ratio of means",
        steps=32,
        step_size=budget[1],
        queries=None,
        seed=None,
        benign={name: row[name] for name in BENIGN},
        attacked={name: row[name] for name in ATTACK_COLUMNS},
        resistance={name: resistances[name] for name in RESISTANCE_COLUMNS if name in resistances},
        ERS=ers,
        ARS=resistances.get("ARS"),
        origin="published",
        provenance=source,
    )
