"""What went wrong with an HTTP request, in words that may be logged: pyreqwest's errors carry the address otherwise."""

from __future__ import annotations

from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError


def explain(error: PyreqwestError) -> str:
    """Return an error's causes without the address it was sent to, which may carry a token."""
    return ": ".join([type(error).__name__, *(text for text in read_causes(error) if "url (" not in text)])


def read_causes(error: PyreqwestError) -> list[str]:
    """Return the causes of an error, the outermost first."""
    causes = (error.details or {}).get("causes") or [] if isinstance(error, DetailedPyreqwestError) else []
    return [cause["message"] for cause in causes]
