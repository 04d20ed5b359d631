"""What tests read from the pages of the documentation."""

import pathlib
import re
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NOT_RUN = re.compile(r"<!-- not run: (.+) -->\s*$")
FENCE = re.compile(r"(?P<indent> *)```(?P<language>\w*)$")


def name_of(page: pathlib.Path) -> str:
    """The page as tests call it: docs/train.md."""
    return page.relative_to(ROOT).as_posix()


@dataclass
class Block:
    """A fenced block of a page."""

    page: pathlib.Path
    language: str
    line: int
    """Of its first line of text, counted from 1."""
    text: str
    not_run: str
    """The reason in a comment <!-- not run: reason --> above it; empty where there is none."""

    def __str__(self):
        return f"{name_of(self.page)}:{self.line}"


def blocks(page: pathlib.Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page, in order, of these languages."""
    found, lines, block, above = [], page.read_text(encoding="utf-8").splitlines(), None, ""
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if block is None and fence:
            reason = NOT_RUN.search(above)
            block = Block(page, fence["language"], number + 1, "", reason.group(1) if reason else "")
            indent = len(fence["indent"])
        elif block is not None and fence:
            found.append(block)
            block, above = None, ""
        elif block is not None:
            block.text += line[indent:] + "\n"
        elif line.strip():
            above = line
    return [block for block in found if block.language in languages]
