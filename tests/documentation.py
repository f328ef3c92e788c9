"""The pages that users read, as tests see them: which commands they tell people to run, and in which blocks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/ingestion.md",
    "docs/delivery.md",
    "docs/dead-letters.md",
    "docs/scaling.md",
    "docs/operations.md",
    "docs/production.md",
    "docs/benchmarks.md",
    "docs/websocket.md",
)
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    @property
    def commands(self) -> tuple[str, ...]:
        """Return its commands, one each, without continuation lines, trailing ampersands and comments."""
        joined = self.text.replace("\\\n", " ")
        lines = (re.sub(r"\s+#.*$", "", line).strip().removesuffix("&").strip() for line in joined.splitlines())
        return tuple(re.sub(r"\s+", " ", line) for line in lines if line and not line.startswith("#"))


def read_blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(page, found["language"], found["text"]) for found in FENCE.finditer(text)]


def find_block(page: str, words: str) -> str:
    """Return the text of the one shell block of a page that holds `words`."""
    (block,) = [each for each in read_blocks(page) if each.language == "sh" and words in each.text]
    return block.text
