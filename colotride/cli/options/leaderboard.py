"""Options of `colotride leaderboard`."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import OUTPUT, WHAT, DataRoot, Device, Json

Line = Annotated[str, Field(max_length=300)]


class Leaderboard(Options):
    """Compare evaluated models: as Markdown, or as a static page made of records, one file per model."""

    command: ClassVar = "leaderboard"
    examples: ClassVar = (
        "table results.jsonl",
        "record runs/first --name COLO-TRIDE --out records/mine.json",
        "check records/mine.json --model runs/first",
        "build records/ --out leaderboard.html",
    )

    what: Annotated[Literal["table", "record", "check", "build"], Option(WHAT, "WHAT", positional=True)]
    """table (Markdown of what evaluate --leaderboard wrote), record (of a run), check (a record) or build (the page)."""
    path: Annotated[Path, Option(WHAT, "PATH", positional=True)]
    """The file of results, the folder of a run, the record, or the folder of records."""
    model: Annotated[str | None, Option(WHAT, "DIR")] = None
    """Of check: the run that the record is about, its folder or hf://USER/NAME."""
    data_root: DataRoot = None
    name: Annotated[Line | None, Option(WHAT, "TEXT")] = None
    """Of record: what to call the model (default: the run's folder)."""
    trained: Annotated[Line | None, Option(WHAT, "TEXT")] = None
    """Of record: how it was trained (default: defense, epochs and seed)."""
    authors: Annotated[Line, Option(WHAT, "TEXT")] = ""
    """Of record: whose it is."""
    link: Annotated[Line, Option(WHAT, "URL")] = ""
    """Of record: where its checkpoint can be fetched."""
    no_published: Annotated[bool, Option(WHAT)] = False
    """Of build: leave out the numbers that papers have published."""
    out: Annotated[Path | None, Option(OUTPUT, "FILE")] = None
    """Where to write (default: record.json, leaderboard.html)."""
    device: Device = "auto"
    as_json: Json = False
