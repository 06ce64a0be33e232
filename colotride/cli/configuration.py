"""The configuration that the options of a command describe."""

import argparse
import difflib
import os
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from colotride.cli.arguments import SETTINGS, Options, explained, metavar_of, parse, parser_of
from colotride.cli.options.shared import RunOptions
from colotride.config import RunConfig, load_config
from colotride.errors import ConfigurationError
from colotride.presets import preset, with_presets
from colotride.registry import load_plugin

NOTHING = ("none", "null")
"""Words that stand for no value where a setting may have none."""


def run_config(options: RunOptions) -> RunConfig:
    """The configuration that the options of a command describe.

    `--config FILE`, or else the data set's preset; then the recipe, the defense, a quick run's budget and where the data
    lies; then every single setting.

    Raises:
        ConfigurationError: no such data set, defense or setting, an unusable file, or a value out of range.
    """
    if options.config and "dataset" in options.model_fields_set:
        raise ConfigurationError(f"--config {options.config} names its data set; leave --dataset away")
    for module in options.plugin:
        load_plugin(module)
    config = load_config(options.config) if options.config else preset(options.dataset)
    config = with_presets(
        config,
        recipe=options.recipe,
        defense=options.defense,
        data_root=options.data_root or os.environ.get("COLOTRIDE_DATA") or None,
        reading=options.reading,
        quick=options.quick,
    )
    if options.plugin:
        config = config.with_values({"plugins": tuple(dict.fromkeys((*config.plugins, *options.plugin)))})
    return with_settings(config, options.settings)


def with_settings(config: RunConfig, settings: dict[str, tuple[str, ...]]) -> RunConfig:
    """The same run with some settings replaced by the words of the command line.

    Args:
        config: the run.
        settings: words by dotted name; none for a switch, which `no-` before its name turns off.

    Raises:
        ConfigurationError: no such setting, or a value out of range.
    """
    values = dict(_setting(config, name, words) for name, words in settings.items())
    return config.with_values(values) if values else config


def help_of_everything(command: type[Options], arguments: Sequence[str]) -> str:
    """Every option of a command, and every setting of the run that its other arguments describe, with its value there.

    Args:
        command: the class of its options.
        arguments: of the command line, without `--help-all`.

    Raises:
        ConfigurationError: arguments that cannot be read.
    """
    parser = parser_of(command, rare=True)
    if issubclass(command, RunOptions):
        _add_settings(parser, parse(command, arguments))
    return parser.format_help()


def _add_settings(parser: argparse.ArgumentParser, options: RunOptions) -> None:
    groups: dict[str, Any] = {}
    for *parents, section, name in _leaves(run_config(options)):
        heading = f"settings of the run: {'.'.join(parents) or 'all of it'}"
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        field = type(section).model_fields[name]
        text = explained(field, whole=True, default=getattr(section, name))
        groups[heading].add_argument(
            _option(".".join((*parents, name))), metavar=metavar_of(field) or name.upper(), help=text.replace("%", "%%")
        )


def _setting(config: RunConfig, name: str, words: Sequence[str]) -> tuple[str, Any]:
    path = name.replace("-", "_")
    known = {".".join((*parents, leaf)): (section, leaf) for *parents, section, leaf in _leaves(config)}
    parent, dot, leaf = path.rpartition(".")
    positive = parent + dot + leaf.removeprefix("no_")
    if not words and path not in known and positive in known:
        return positive, False
    if path not in known:
        near = difflib.get_close_matches(path, known, n=1)
        meant = f" (did you mean {_option(near[0])}?)" if near else ""
        raise ConfigurationError(f"{SETTINGS}{name} is no setting{meant}; see --help-all")
    section, leaf = known[path]
    annotation, value = type(section).model_fields[leaf].annotation, getattr(section, leaf)
    if not words:
        if annotation is not bool:
            raise ConfigurationError(f"{SETTINGS}{name} needs a value; see --help-all")
        return path, True
    if words[0].lower() in NOTHING and type(None) in get_args(annotation):
        return path, None
    return path, words if len(words) > 1 or isinstance(value, tuple) else words[0]


def _leaves(section: BaseModel, *parents: str) -> Iterator[tuple[Any, ...]]:
    """Every setting below a section: the names above it, its section, and its own name."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, *parents, name)
        else:
            yield (*parents, section, name)


def _option(path: str) -> str:
    return SETTINGS + path.replace("_", "-")
