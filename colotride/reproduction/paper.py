"""The numbers that the paper and its peers printed."""

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def paper_tables() -> dict[str, Any]:
    """Rows of Tables 1-4 and of RobRank's Fashion-MNIST table (`peers`), each with `dataset` and `defense`."""
    return json.loads((Path(__file__).parent / "paper.json").read_text())


def paper_rows(dataset: str) -> dict[str, dict[str, float]]:
    """What was printed for every defense on a data set, by the row's name; empty where nothing was."""
    tables = paper_tables()
    labels = [row["defense"] for name in ("table1", "peers") for row in tables[name] if row["dataset"] == dataset]
    resisted = {row["defense"]: row for row in tables["table2"] if row["dataset"] == dataset}
    rows = {}
    for label in dict.fromkeys(labels):
        ars = {
            f"ARS {name}": value for name, value in resisted.get(label, {}).items() if isinstance(value, float | int)
        }
        rows[label] = paper_row(dataset, label) | {name: value for name, value in ars.items() if name != "ARS ARS"}
    return rows


def paper_row(dataset: str, label: str) -> dict[str, float]:
    """What was printed for a defense on a data set, from all tables together; empty where nothing was.

    Args:
        dataset: as in the configuration ("cub").
        label: the row's name ("COLO-TRIDE").
    """
    found: dict[str, float] = {}
    for table in ("table4", "table3", "peers", "table1"):
        for row in paper_tables()[table]:
            if (row["dataset"], row["defense"]) == (dataset, label):
                found |= {name: value for name, value in row.items() if isinstance(value, float | int)}
    resisted = next(
        (row for row in paper_tables()["table2"] if (row["dataset"], row["defense"]) == (dataset, label)), None
    )
    if resisted is not None:
        found["ARS"] = resisted["ARS"]
    if "ERS" not in found and "ERS_recomputed" in found:
        found["ERS"] = found["ERS_recomputed"]
    return found
