"""The code blocks of the pages, and what their titles say about them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"configuration.md", "commands.md"}

PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "cluster/README.md")]
    + [path for path in (ROOT / "docs").rglob("*.md") if path.name not in GENERATED]
)

FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

RUNNABLE = ("python", "sh")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def needs(self) -> str:
        """What it needs that is not there; nothing for a block that is run."""
        return self.title.removeprefix("needs: ") if self.title.startswith("needs: ") else ""

    @property
    def runs(self) -> bool:
        """Whether it is run at all."""
        return self.language in RUNNABLE and not self.needs and not self.file

    @property
    def file(self) -> str:
        """The file that it is written to, if its title is the name of one."""
        return self.title if re.fullmatch(r"[\w./-]+\.\w+", self.title) else ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block, continued ones joined, without comments."""
        lines = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in self.text.replace("\\\n", " ").splitlines()]
        return [line for line in lines if line]


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]*)"', match[3])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[2], title[1] if title else "", match[4]))
    return found
