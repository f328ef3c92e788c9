"""What a notification is called: a UUIDv7, or, under an Idempotency-Key, always the same UUIDv5.

The stable id is what makes a repeat harmless everywhere: the consumer recognises it even when another pod, or this one
after a restart, accepted it the first time. An own id field in the body was refused: a client could then collide with
another's ids.
"""

from __future__ import annotations

import re

import uuid_utils

from tocsin_ingestion.problems import FieldError, invalid

_NAMESPACE = uuid_utils.UUID("3f0d4b0e-6a0d-5f0e-9a57-0f5b6d1c7a11")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def make_id(tenant: str, key: str | None = None, *, index: int | None = None) -> str:
    """Return a new UUIDv7, or the UUIDv5 of `tenant`, the Idempotency-Key and, in a batch, the item's index."""
    if key is None:
        return str(uuid_utils.uuid7())
    # NUL cannot occur in any part, so that no two different triples give one name.
    return str(uuid_utils.uuid5(_NAMESPACE, "\0".join((tenant, key, "" if index is None else str(index)))))


def read_key(headers: list[str]) -> str | None:
    """Return the Idempotency-Key in its header's values, None if there is none.

    Raise Problem (422) unless it is one value of 1 to 255 visible ASCII characters.
    """
    if not headers:
        return None
    if len(headers) > 1:
        raise invalid(FieldError("Idempotency-Key", "must be sent once"))
    if not _KEY.fullmatch(headers[0]):
        raise invalid(FieldError("Idempotency-Key", "must be 1 to 255 visible ASCII characters, such as a UUID"))
    return headers[0]
