"""What went wrong with an HTTP request, in words that may be logged: pyreqwest's errors carry the address otherwise."""

from __future__ import annotations

from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError


def explain(error: PyreqwestError) -> str:
    """Return an error's causes without the address it was sent to, which may carry a token."""
    causes = (error.details or {}).get("causes") or [] if isinstance(error, DetailedPyreqwestError) else []
    texts = [cause["message"] for cause in causes]  # the outermost first
    return ": ".join([type(error).__name__, *(text for text in texts if "url (" not in text)])
