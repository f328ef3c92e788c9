"""What stands in the file behind `-f`, before anybody checks it against the CRD.

Apart from `manifest`, because the check needs a JSON Schema validator and CEL, which the image does not contain, and
`tocsin dlq` also runs in pods, on what an API server has checked. Importing the two at the moment of use was refused:
the head of a module should say what the module needs.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from tocsin_cli.resource.documents import Document
from tocsin_cli.resource.problems import ResourceError
from tocsin_operator.model import KIND

MAX_FILE_BYTES = 16 * 1024 * 1024


def read_text(path: Path) -> str:
    """Return the text of the file behind `-f`. Raise ResourceError if it cannot be read."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ResourceError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ResourceError(f"{path}: {reason}; name a YAML file with -f") from error


def find_pipeline(documents: list[Document], *, name: str) -> Document:
    """Return the one pipeline among the documents. Raise ResourceError if there is none, or more than one."""
    pipelines = [each for each in documents if find_kind(each) == KIND]
    if len(pipelines) == 1:
        return pipelines[0]
    if not pipelines:
        kinds = ", ".join(dict.fromkeys(str(find_kind(each)) for each in documents)) or "nothing"
        raise ResourceError(f"{name}: no document of kind {KIND} (found: {kinds}); add one")
    names = ", ".join(find_name(each) for each in pipelines)
    raise ResourceError(f"{name}: {len(pipelines)} pipelines ({names}); keep one per file to run it here")


def read_secrets(documents: list[Document], *, name: str) -> dict[str, dict[str, bytes]]:
    """Return the Secrets among the documents, by name. Raise ResourceError for data that is not base64."""
    return {find_name(each): _secret_data(each, name) for each in documents if find_kind(each) == "Secret"}


def find_kind(document: Document) -> Any:
    """Return a document's kind, None where it has none."""
    return document.value.get("kind") if isinstance(document.value, dict) else None


def find_name(document: Document) -> str:
    """Return the name in a document's metadata, empty where it has none."""
    metadata = document.value.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def _secret_data(document: Document, name: str) -> dict[str, bytes]:
    encoded, plain = document.value.get("data") or {}, document.value.get("stringData") or {}
    data: dict[str, bytes] = {}
    for key, value in encoded.items():
        try:
            data[key] = base64.b64decode(str(value), validate=False)
        except binascii.Error as error:
            raise ResourceError(
                f"{name}:{document.line_of(('data', key))}: Secret {find_name(document)}: data.{key}: not base64; "
                "plain text belongs under stringData"
            ) from error
    return data | {key: str(value).encode() for key, value in plain.items()}
