"""What a client sends, before it has an id: bytes to `Draft`, or a problem that names every field at fault.

Pure: bytes, the pipeline's rules and the time go in. The happy path is one msgspec decode (about 1 µs); only a body
that failed is decoded again, field by field, to name all its faults at once instead of the first.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, NamedTuple

import msgspec

from tocsin_core.codec import UNREADABLE_JSON
from tocsin_core.message import MAX_ID_CHARACTERS, ChannelNames, Instant, Notification, Text, Title
from tocsin_ingestion.problems import MALFORMED, FieldError, Problem, invalid

MAX_DEPTH = 32
"""How deep a body may nest: far below every decoder's own recursion limit, so that the consumer can read it too."""
MAX_NAMED_ERRORS = 20
"""How many faults one answer names. A body has room for thousands of unknown fields, and to guess what each was meant
to be would hold up everybody else."""
MAX_NAME_CHARACTERS = 100
_LARGEST_INTEGER = 2**63 - 1

InputID = (
    Annotated[int, msgspec.Meta(ge=-_LARGEST_INTEGER, le=_LARGEST_INTEGER)]
    | Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARACTERS)]
)


class Draft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A notification as a client sends it. An id may be an integer or a string: 2 and "2" are the same user."""

    from_id: Annotated[InputID, msgspec.Meta(description="who sends: a known user", examples=[1])] = msgspec.field(
        name="fromID",
    )
    to_id: Annotated[InputID, msgspec.Meta(description="who receives: a known user", examples=["2"])] = msgspec.field(
        name="toID",
    )
    message: Annotated[Text, msgspec.Meta(description="the text", examples=["Your order has shipped"])]
    title: Title | None = None
    data: Annotated[dict[str, Any] | None, msgspec.Meta(description="anything the receiving application needs")] = None
    channels: Annotated[ChannelNames | None, msgspec.Meta(description="only these channels; default: all")] = None
    expires_at: Annotated[Instant | None, msgspec.Meta(description="never deliver after this moment")] = msgspec.field(
        name="expiresAt",
        default=None,
    )

    def build_notification(self, notification_id: str) -> Notification:
        """Return the notification under its id, with both user ids as strings."""
        return Notification(
            id=notification_id,
            from_id=str(self.from_id),
            to_id=str(self.to_id),
            message=self.message,
            title=self.title,
            data=self.data,
            channels=self.channels,
            expires_at=self.expires_at,
        )


class Rules(NamedTuple):
    """What a pipeline allows beyond the schema: the channels it has."""

    channels: tuple[str, ...]


_decoder = msgspec.json.Decoder(Draft)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FIELDS = {field.encode_name: field for field in msgspec.structs.fields(Draft)}
_EXPECTED = {
    "fromID": f"an integer of 64 bits or a string of 1 to {MAX_ID_CHARACTERS} characters",
    "toID": f"an integer of 64 bits or a string of 1 to {MAX_ID_CHARACTERS} characters",
    "expiresAt": 'a moment with its time zone, such as "2030-01-31T12:00:00Z"',
}


def parse_json(body: bytes) -> Draft:
    """Return the draft in a JSON body. Raise Problem: 400 if it is not JSON, 422 naming the fields if it is wrong."""
    try:
        draft = _decoder.decode(body)
    except UNREADABLE_JSON as error:
        raise _explain(body, error) from error
    if draft.data is not None:
        _check_depth(draft.data, body)
    return draft


def parse_all_json(bodies: Sequence[bytes | msgspec.Raw]) -> list[Draft]:
    """Return the draft of each. Raise Problem, which says nothing more, if any one of them would."""
    try:
        drafts = list(map(_decoder.decode, bodies))
    except UNREADABLE_JSON as error:
        raise malformed(error) from error
    for draft, body in zip(drafts, bodies, strict=True):
        if draft.data is not None:
            _check_depth(draft.data, bytes(body))
    return drafts


def check_draft(draft: Draft, *, rules: Rules, now: datetime) -> None:
    """Raise Problem (422) if the draft names a channel the pipeline has not, or expired before `now`."""
    if draft.channels is None and draft.expires_at is None:
        return
    found = [*_check_channels(draft.channels or [], rules)]
    if draft.expires_at is not None and draft.expires_at <= now:
        found.append(FieldError("expiresAt", f"is in the past; it is {now.isoformat(timespec='seconds')} here"))
    if found:
        raise invalid(*found)


def malformed(error: Exception, *, what: str = "JSON") -> Problem:
    """Return the 400 for a body that no decoder can read."""
    if isinstance(error, RecursionError):
        return Problem(MALFORMED, f"The body nests too deeply; {MAX_DEPTH} levels are the limit")
    if isinstance(error, UnicodeDecodeError):
        return Problem(MALFORMED, "The body is not UTF-8")
    return Problem(MALFORMED, f"The body is not {what}: {error}")


def _check_channels(channels: list[str], rules: Rules) -> list[FieldError]:
    known = ", ".join(rules.channels) or "none"
    found = [
        FieldError(f"channels[{index}]", f"unknown channel {name!r}; this pipeline has: {known}")
        for index, name in enumerate(channels)
        if name not in rules.channels
    ]
    if len(set(channels)) != len(channels):
        found.append(FieldError("channels", "names a channel twice"))
    return found


def _explain(body: bytes, error: Exception) -> Problem:
    if not isinstance(error, msgspec.ValidationError):
        return malformed(error)
    try:
        found = _find_faults(_fields_decoder.decode(body))
    except msgspec.ValidationError:
        return invalid(FieldError("(body)", "must be one JSON object: " + str(error)))
    except UNREADABLE_JSON as unreadable:
        return malformed(unreadable)
    return invalid(*(found[:MAX_NAMED_ERRORS] or [FieldError("(body)", str(error))]))


def _find_faults(fields: dict[str, msgspec.Raw]) -> list[FieldError]:
    strangers = (name[:MAX_NAME_CHARACTERS] for name in fields if name not in _FIELDS)
    unknown = [FieldError(name, _explain_unknown(name)) for name in islice(strangers, MAX_NAMED_ERRORS)]
    missing = [
        FieldError(name, "is required") for name, field in _FIELDS.items() if field.required and name not in fields
    ]
    wrong = [_find_fault(name, fields[name]) for name in _FIELDS if name in fields]
    return missing + [fault for fault in wrong if fault is not None] + unknown


def _find_fault(name: str, raw: msgspec.Raw) -> FieldError | None:
    try:
        msgspec.json.decode(raw, type=_FIELDS[name].type)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        expected = _EXPECTED.get(name)
        detail = f"must be {expected} ({message})" if expected else message
        return FieldError(name + path.rstrip("`"), detail.replace("`", ""))
    return None


def _explain_unknown(name: str) -> str:
    close = difflib.get_close_matches(name, _FIELDS, n=1)
    return f"unknown field; did you mean {close[0]}?" if close else f"unknown field; known are {', '.join(_FIELDS)}"


def _check_depth(data: dict[str, Any], body: bytes) -> None:
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _nests_too_deep(data):
        raise invalid(FieldError("data", f"must not nest deeper than {MAX_DEPTH} levels"))


def _nests_too_deep(data: Any) -> bool:
    level, depth = [data], 1  # the body itself is the first level
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return True
        children = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        level = [child for child in children if isinstance(child, dict | list)]
    return False
