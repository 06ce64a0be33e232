"""The command `colotride search`: begin a search or resume one, and print what was found."""

import json
import shlex
import time
from pathlib import Path

from colotride.cli.configuration import run_config
from colotride.cli.options.search import Search
from colotride.data.settings import absolute_root
from colotride.errors import SearchError
from colotride.presets import with_data_root
from colotride.terminal import Terminal
from colotride.tune.api import execute, taken
from colotride.tune.plan import FILE, SearchPlan, changed, load_plan, new_plan
from colotride.tune.summary import as_json, show_interrupted, show_resumption, show_summary

INTERRUPTED = 130
"""Exit code of a command that was interrupted, as shells have it."""

RESUMABLE = (
    "trials", "max_epochs", "race", "race_seeds", "verdict", "top", "verdict_seeds", "concurrent", "cpus_per_trial", "gpus_per_trial",
    "workers_per_trial", "device", "storage",
)  # fmt: skip
"""Options that may change when a search is resumed; with any other one its trials could not be compared."""


def main(options: Search) -> int:
    """Search as the options say; 130 when it was interrupted."""
    plan, folder = _begun(options) if options.resume is None else _resumed(options)
    console = Terminal(stderr=options.as_json)
    try:
        result = execute(plan, folder, console)
    except KeyboardInterrupt:
        # Before its first trial; it has begun as soon as its plan is written.
        if (folder / FILE).is_file():
            show_resumption(console, folder)
        raise
    if not result.complete:
        show_interrupted(console, result)
        return INTERRUPTED
    if options.as_json:
        print(json.dumps(as_json(result)))
    else:
        show_summary(console, result)
    return 0


def _begun(options: Search) -> tuple[SearchPlan, Path]:
    """The plan and the folder of a new search."""
    run = run_config(options)
    folder = options.results / (options.name or time.strftime(f"{run.data.name}-%Y%m%d-%H%M%S"))
    if taken(folder):
        raise SearchError(
            f"search {folder} exists already; choose another --name, or go on with it: --resume {folder.name}"
        )
    plan = new_plan(
        run,
        groups=options.groups,
        space_file=options.space,
        start_from=options.start_from,
        objective=options.objective,
        stopping=options.stopping,
        first_share=options.first_share,
        sampler=options.sampler,
        seed=options.seed,
        max_cost=options.max_cost,
        deterministic=options.deterministic,
        command=_typed(options),
        **{name: getattr(options, name) for name in (*RESUMABLE, "tracking_uri") if name in options.model_fields_set},
    )
    return plan, folder


def _resumed(options: Search) -> tuple[SearchPlan, Path]:
    """The plan and the folder of a resumed search: as it was begun, except for the options that are given again."""
    given = options.model_fields_set
    fixed = sorted(given - {*RESUMABLE, "resume", "results", "as_json", "data_root"})
    if fixed:
        names = ", ".join("--run" if name == "settings" else f"--{name.replace('_', '-')}" for name in fixed)
        raise SearchError(f"{names} cannot change in a search that was begun; leave it out, or begin a new search")
    folder = options.results / str(options.resume)
    plan = load_plan(folder)
    choices = {name: getattr(options, name) for name in RESUMABLE if name in given}
    if plan.deterministic and choices.get("concurrent", plan.concurrent) != plan.concurrent:
        raise SearchError(
            f"--concurrent cannot change in a deterministic search; leave it out, or give {plan.concurrent} as before"
        )
    if options.data_root is not None:
        base = with_data_root(plan.base, options.data_root)
        choices["base"] = base.with_values({"data.root": absolute_root(base.data.root)})
    return changed(plan, **choices), folder


def _typed(options: Search) -> str:
    """The command line with which the search can be begun again."""
    words = ["colotride", "search"]
    for name in (name for name in type(options).model_fields if name in options.model_fields_set):
        option, value = "--" + name.removeprefix("as_").replace("_", "-"), getattr(options, name)
        if name == "settings":
            for setting, given in value.items():
                words += [f"--run.{setting}", *given]
        elif isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        else:
            words += [option, *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)
