"""Compare evaluated models: as Markdown, or as a static page made of records, one file per model.

Examples:
    colotride evaluate --model runs/first --leaderboard results.jsonl
    colotride leaderboard table results.jsonl
    colotride leaderboard record runs/first --name "COLO-TRIDE" --out records/mine.json
    colotride leaderboard check records/mine.json --model runs/first
    colotride leaderboard build records/ --out leaderboard.html
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from colotride.cli.options.leaderboard import Leaderboard
from colotride.devices import device_of
from colotride.disk import check_file
from colotride.errors import ConfigurationError
from colotride.evaluation.leaderboard import read, tables
from colotride.hub.address import local_copy
from colotride.leaderboard.check import differences
from colotride.leaderboard.page import write_page
from colotride.leaderboard.published import published_records
from colotride.leaderboard.records import SUFFIX, read_record, read_records, record_of, write_record
from colotride.markdown import printable
from colotride.terminal import Terminal

NOT_REPRODUCED = 1
"""Exit code of a check whose scores came out otherwise."""


def main(command: Leaderboard) -> int:
    """Do what the first word says."""
    return {"table": _table, "record": _record, "check": _check, "build": _build}[command.what](command)


def _table(command: Leaderboard) -> int:
    entries = read(command.path)
    print(json.dumps([entry.model_dump() for entry in entries]) if command.as_json else tables(entries).rstrip())
    return 0


def _record(command: Leaderboard) -> int:
    out = command.out or Path(f"record{SUFFIX}")
    check_file(out)
    record = record_of(
        command.path,
        model=command.name or command.path.resolve().name,
        provenance=command.trained,
        authors=command.authors,
        link=command.link,
    )
    write_record(out, record)
    print(record.model_dump_json() if command.as_json else f"Written: {printable(str(out))}")
    return 0


def _check(command: Leaderboard) -> int:
    if command.model is None:
        raise ConfigurationError(
            "--model is missing: a record is checked from its checkpoint; give the folder of its run"
        )
    record = read_record(command.path)
    root = command.data_root or os.environ.get("COLOTRIDE_DATA")
    with Terminal(stderr=True).status("evaluating") as status:
        found = differences(
            record,
            local_copy(command.model),
            data_root=root,
            device=device_of(command.device),
            progress=lambda what, share: status.update(f"evaluating: {what}, {share:.0%}"),
        )
    if command.as_json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        for one in found:
            now = "missing" if one.found is None else f"{one.found:.2f}"
            print(f"{one.name}: recorded {one.recorded:.2f}, now {now}")
        print("Not reproduced." if found else f"Reproduced: all {len(record.scores())} scores.")
    return NOT_REPRODUCED if found else 0


def _build(command: Leaderboard) -> int:
    out = command.out or Path("leaderboard.html")
    check_file(out)
    records = read_records(command.path)
    every = records + ([] if command.no_published else published_records())
    write_page(out, every)
    groups = len({record.group for record in every})
    if command.as_json:
        print(json.dumps({"page": str(out), "records": len(every), "own": len(records), "groups": groups}))
    else:
        print(f"Written: {printable(str(out))} ({len(records)} records of yours, {len(every)} in {groups} tables)")
    return 0
