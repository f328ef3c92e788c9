"""Content types: which of the few bodies we read this one is.

Pure, and by hand: `email.message` parses more than a Content-Type may be, at fifty times the cost on the hot path.
"""

from __future__ import annotations

from enum import Enum

from tocsin_ingestion.problems import UNSUPPORTED, Problem

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
NDJSON_TYPE = "application/x-ndjson"


class Media(Enum):
    """The bodies we read."""

    JSON = JSON_TYPE
    FORM = FORM_TYPE
    NDJSON = NDJSON_TYPE


_MEDIA = {
    JSON_TYPE: Media.JSON,
    FORM_TYPE: Media.FORM,
    NDJSON_TYPE: Media.NDJSON,
    "application/ndjson": Media.NDJSON,
    "application/jsonl": Media.NDJSON,
}


# Looked up on every request; an Enum's own lookup costs as much as a method call.
JSON = Media.JSON


def read_media(content_type: str | None, *, supported: tuple[Media, ...]) -> Media:
    """Return which body this is. Raise Problem (415), naming what is supported, for any other or none."""
    if content_type == JSON_TYPE:
        return JSON
    name, *parameters = (content_type or "").split(";")
    media = _MEDIA.get(name.strip().lower())
    names = " or ".join(each.value for each in supported)
    if media not in supported:
        said = f"Content-Type {name.strip()[:100]!r} is not supported" if name.strip() else "Content-Type is missing"
        raise Problem(UNSUPPORTED, f"{said}; send {names}")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8", "us-ascii"):
            raise Problem(UNSUPPORTED, "charset must be utf-8")
    return media
