"""What a benchmark that cannot be run, or that went wrong, says."""

from __future__ import annotations


class BenchError(Exception):
    """Nothing was measured; the text says why and what to do."""
