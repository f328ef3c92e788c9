"""A table of plain text, cut to the terminal. Pure.

Not rich's, which `tocsin dev` draws with: this command also runs in pods, whose image does not contain it.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect
from collections.abc import Collection, Sequence
from itertools import accumulate

GAP = "  "
ELLIPSIS = "…"


def format_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, columns: int, right_aligned: Collection[str] = ()
) -> list[str]:
    """Return the lines of a table, none wider than `columns`; its last column is what is cut first."""
    lines = [header, *rows]
    widths = [max(measure(line[index]) for line in lines) for index in range(len(header))]
    is_right = [name in right_aligned for name in header]
    return [cut(GAP.join(map(_pad, line, widths, is_right)).rstrip(), columns) for line in lines]


def cut(text: str, columns: int) -> str:
    """Return a text that is no wider than `columns`, with an ellipsis where something is missing."""
    if measure(text) <= columns:
        return text
    ends = accumulate(map(_measure_character, text))
    return text[: bisect(list(ends), columns - measure(ELLIPSIS))] + ELLIPSIS


def measure(text: str) -> int:
    """Return how many columns of a terminal a text takes: East Asian letters two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_measure_character, text))


def _measure_character(character: str) -> int:
    return 0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")


def _pad(text: str, width: int, is_right: bool) -> str:
    space = " " * (width - measure(text))
    return space + text if is_right else text + space
