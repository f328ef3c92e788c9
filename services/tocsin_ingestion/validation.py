"""A request's bytes and Content-Type to drafts, or to a problem naming the field: all that is decided before I/O.

Pure, so that the FastAPI routes and any faster way in share one definition of what is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import parse_qsl

import msgspec

from tocsin_core.codec import UNREADABLE_JSON
from tocsin_core.message import MAX_BODY_BYTES
from tocsin_ingestion.draft import Draft, Rules, check_draft, malformed, parse_all_json, parse_json
from tocsin_ingestion.media import JSON, Media, read_media
from tocsin_ingestion.problems import TOO_LARGE, FieldError, Problem, invalid

MAX_BATCH_ITEMS = 1_000
MAX_BATCH_BYTES = 16 * MAX_BODY_BYTES
FORM_FIELDS = ("fromID", "toID", "message", "title")
"""What a form can say. The rest of a notification has structure, and needs JSON."""

_OF_ONE, _OF_BATCH = (JSON, Media.FORM), (JSON, Media.NDJSON)

_items_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def parse_notification(body: bytes, content_type: str | None, *, rules: Rules, now: datetime) -> Draft:
    """Return the draft in the body of `POST /v1/notifications`.

    Raise Problem: 415 for another Content-Type, 413 above MAX_BODY_BYTES, 400 for what cannot be read, 422 naming the
    fields for what is wrong.
    """
    media = read_media(content_type, supported=_OF_ONE)
    draft = _parse_one(body) if media is JSON else _parse_form(body)
    check_draft(draft, rules=rules, now=now)
    return draft


def parse_batch(body: bytes, content_type: str | None, *, rules: Rules, now: datetime) -> list[Draft | Problem]:
    """Return one draft, or the reason against it, per item in the body of `POST /v1/notifications:batch`.

    Raise Problem if the whole cannot be read: 415, 413 (bytes or items), 400 (not a JSON array), 422 (empty).
    Blank lines of NDJSON are skipped.
    """
    media = read_media(content_type, supported=_OF_BATCH)
    check_size(len(body), limit=MAX_BATCH_BYTES)
    items: Sequence[bytes | msgspec.Raw]
    items = _split_array(body) if media is JSON else [line for line in body.splitlines() if line.strip()]
    if not items:
        raise invalid(FieldError("(body)", "must hold at least one notification"))
    if len(items) > MAX_BATCH_ITEMS:
        raise Problem(TOO_LARGE, f"{len(items)} notifications; {MAX_BATCH_ITEMS} are the limit of one batch")
    try:
        return _parse_all(items, rules, now)
    except Problem:
        return [_parse_item(item, rules, now) for item in items]


def check_size(size_bytes: int, *, limit: int = MAX_BODY_BYTES) -> None:
    """Raise Problem (413) if `size_bytes` is above `limit`."""
    if size_bytes > limit:
        raise Problem(TOO_LARGE, f"The body is larger than {limit} bytes")


def _parse_one(body: bytes) -> Draft:
    check_size(len(body))
    return parse_json(body)


def _parse_all(items: Sequence[bytes | msgspec.Raw], rules: Rules, now: datetime) -> list[Draft | Problem]:
    """Return the drafts of a batch in which nothing is wrong, as nearly all are: half the cost of item by item.

    Raise Problem for the first item that has to be looked at alone.
    """
    check_size(max(map(len, items)))
    drafts = parse_all_json(items)
    for draft in drafts:
        check_draft(draft, rules=rules, now=now)
    return [*drafts]


def _parse_item(item: bytes | msgspec.Raw, rules: Rules, now: datetime) -> Draft | Problem:
    try:
        draft = _parse_one(bytes(item))
        check_draft(draft, rules=rules, now=now)
    except Problem as problem:
        return problem
    return draft


def _split_array(body: bytes) -> list[msgspec.Raw]:
    try:
        return _items_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(FieldError("(body)", "must be a JSON array of notifications")) from error
    except UNREADABLE_JSON as error:
        raise malformed(error) from error


def _parse_form(body: bytes) -> Draft:
    check_size(len(body))
    fields = _read_form(body)
    unknown = [name[:100] for name in fields if name not in FORM_FIELDS]
    if unknown:
        raise invalid(*(FieldError(name, f"unknown field; a form has {', '.join(FORM_FIELDS)}") for name in unknown))
    return parse_json(msgspec.json.encode(fields))


def _read_form(body: bytes) -> dict[str, str]:
    if body.lstrip()[:1] in (b"{", b"["):
        raise malformed(ValueError("it looks like JSON; send Content-Type: application/json"), what="a form")
    try:
        pairs = parse_qsl(
            body.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=2 * len(FORM_FIELDS),
        )
    except UnicodeDecodeError as error:
        raise malformed(error) from error
    except ValueError as error:
        raise malformed(error, what="a form") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise invalid(FieldError("(body)", "names a field twice"))
    return fields
