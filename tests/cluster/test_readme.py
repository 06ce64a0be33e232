"""cluster/README.md: every command that it gives exists, with its options."""

import re
import shlex

import boto3
import pytest
from ray.scripts.scripts import cli

from colotride.cli.arguments import parse
from colotride.cli.options.search import Search
from tests.cluster.files import CLUSTER, ROOT, read

# Options of the AWS command line itself, and its short forms of one rule.
OF_THE_COMMAND_LINE = {"query", "output"}
OF_A_RULE = {"protocol", "port", "cidr", "source-group"}


def text():
    return (CLUSTER / "README.md").read_text()


def commands(program):
    """The words of every command of the shell blocks that runs the program, also inside $(...)."""
    blocks = re.findall(r"```sh[^\n]*\n(.*?)```", text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    parts = [part for line in lines for part in [re.sub(r"\$\(.*?\)", "X", line), *re.findall(r"\$\((.*?)\)", line)]]
    return [words for words in (shlex.split(part, comments=True) for part in parts) if words[:1] == [program]]


def options(words):
    before = words[: words.index("--")] if "--" in words else words
    return {word.split("=")[0].removeprefix("--") for word in before if word.startswith("--")}


def test_every_command_of_ray_exists_with_its_options():
    seen = set()
    for words in commands("ray"):
        command, rest = cli, words[1:]
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        known = {name.removeprefix("--") for parameter in command.params for name in parameter.opts}
        assert options(rest) <= known, words
        seen.add(command.name)
    assert {"up", "submit", "dashboard", "exec", "rsync-down", "down", "get-auth-token"} <= seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_command_of_aws_exists_with_its_options():
    seen = set()
    for words in commands("aws"):
        model = boto3.client(words[1], "us-west-2").meta.service_model
        (name,) = (name for name in model.operation_names if kebab(name) == words[2])
        known = {kebab(member) for member in model.operation_model(name).input_shape.members}
        if name == "AuthorizeSecurityGroupIngress":
            known |= OF_A_RULE
        assert options(words) <= known | OF_THE_COMMAND_LINE, words
        seen.add(name)
    assert {"CreateSecurityGroup", "CreateMountTarget", "GetParameter"} <= seen


def kebab(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def test_nothing_is_opened_to_the_whole_internet():
    assert "0.0.0.0" not in text()


def test_every_search_parses_and_leaves_its_results_where_they_stay():
    (line,) = (line for line in text().replace("\\\n", " ").splitlines() if "python tune/search.py" in line)
    for words in (shlex.split(line), shlex.split(read("kuberay.yaml")["spec"]["entrypoint"])):
        at = next(i for i, word in enumerate(words) if word.endswith("tune/search.py"))
        arguments = words[at + 1 :]
        command = parse(Search, arguments)
        assert command.dataset == "cub"
        assert command.gpus_per_trial == 1
        assert str(command.results).startswith("/mnt/colotride/"), "a job's own folder goes with the job"


def test_every_file_that_it_names_is_there():
    paths = re.findall(r"(?<![\w/])(?:cluster|tests|tune|scripts)/[\w/]+(?:\.(?:yaml|py)|file)", text())
    assert len(paths) > 5
    assert [name for name in paths if not (ROOT / name).is_file()] == []


def test_the_image_is_the_one_of_the_job():
    image = read("kuberay.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0][
        "image"
    ]
    assert f"--tag {image} ." in text()
    assert f"docker push {image}\n" in text()
