"""Publish a run with its configuration, scores and a model card, on the Hugging Face hub or in a folder.

Examples:
    colotride push runs/first hf://me/first --license apache-2.0
    colotride push runs/first published/
"""

from colotride.cli.options.push import Push
from colotride.hub.push import Card, push
from colotride.markdown import printable
from colotride.provenance import git_commit
from colotride.terminal import Terminal


def main(options: Push) -> int:
    """Publish as the options say, and print where the model is now."""
    card = Card(
        name=options.name or options.run.resolve().name,
        licence=options.licence,
        authors=options.authors,
        commit=git_commit(),
    )
    with Terminal(stderr=True).status("publishing"):
        where = push(options.run, options.to, card, private=options.private)
    print(f"Published: {printable(where)}")
    print(f"Evaluate with: colotride evaluate --model {printable(options.to)}")
    return 0
