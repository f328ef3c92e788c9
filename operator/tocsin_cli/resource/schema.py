"""The structural schema of the CRD, applied to a dict: defaults, unknown fields, values.

jsonschema does the validating (Kubernetes' structural schemas are JSON Schema, draft 4 dialect). Defaults, unknown
fields and list keys are Kubernetes' own additions and are walked here. Asking an API server instead was refused:
the whole point of `tocsin dev` is that there is none.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema
import yaml

from tocsin_cli.resource.problems import Path, Problem

Schema = Mapping[str, Any]

METADATA_FIELDS = ("annotations", "finalizers", "generateName", "labels", "name", "namespace")
TYPE_NAMES = {"object": "a mapping", "array": "a list", "string": "a string", "boolean": "true or false"}


@cache
def load_schema() -> Schema:
    """Return the openAPIV3Schema of the CRD that ships with this release."""
    text = (files("tocsin_operator") / "crd" / "notificationpipelines.yaml").read_text(encoding="utf-8")
    version = next(v for v in yaml.safe_load(text)["spec"]["versions"] if v["storage"])
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def apply_defaults(schema: Schema, value: Any) -> Any:
    """Return `value` with the schema's defaults filled in, as the API server does; `value` itself stays as it was."""
    if isinstance(value, list) and "items" in schema:
        return [apply_defaults(schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, part in _properties(schema).items():
        if filled.get(name) is None and "default" in part:
            filled[name] = copy.deepcopy(part["default"])
        if name in filled:
            filled[name] = apply_defaults(part, filled[name])
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        named = _properties(schema)
        filled.update({k: apply_defaults(extra, v) for k, v in filled.items() if k not in named})
    return filled


def find_unknown_fields(schema: Schema, value: Any, path: Path = ()) -> Iterator[Problem]:
    """Yield every field that the schema does not know, with the known name closest to it."""
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from find_unknown_fields(schema["items"], item, (*path, index))
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    known = _known_fields(schema, path)
    for name, item in value.items():
        if known is not None and name not in known:
            yield Problem((*path, name), f"unknown field{_suggest(str(name), known)}")
        elif path != () or name != "metadata":
            yield from find_unknown_fields(_part(schema, name), item, (*path, name))
        else:
            yield from (
                Problem(("metadata", key), f"unknown field{_suggest(str(key), METADATA_FIELDS)}")
                for key in (item if isinstance(item, dict) else ())
                if key not in METADATA_FIELDS
            )


def find_wrong_values(schema: Schema, value: Any) -> Iterator[Problem]:
    """Yield every value the schema does not allow, and every list item given twice under one key."""
    validator = jsonschema.Draft4Validator(dict(schema))
    for error in sorted(validator.iter_errors(value), key=lambda error: [str(step) for step in error.absolute_path]):
        yield _explain(error)
    yield from _find_repeated_items(schema, value, ())


def _known_fields(schema: Schema, path: Path) -> tuple[str, ...] | None:
    if schema.get("additionalProperties"):
        return None
    names = tuple(_properties(schema))
    if path == ():
        return tuple(dict.fromkeys(("apiVersion", "kind", "metadata", *names)))
    return names


def _suggest(name: str, known: tuple[str, ...]) -> str:
    lowered = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    if close:
        return f"; did you mean {lowered[close[0]]!r}?"
    return f"; known here: {', '.join(known)}" if known else "; nothing may stand here"


def _explain(error: jsonschema.ValidationError) -> Problem:
    path: Path = tuple(error.absolute_path)
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        return Problem((*path, missing), "required, and not set")
    if error.validator == "enum":
        return Problem(path, f"{error.instance!r} is not one of {', '.join(map(str, error.validator_value))}")
    if error.validator == "type":
        wanted = TYPE_NAMES.get(error.validator_value, f"a value of type {error.validator_value}")
        is_unquoted = error.validator_value == "string" and isinstance(error.instance, int | float)
        return Problem(path, f"must be {wanted}, not {error.instance!r}{'; put it in quotes' if is_unquoted else ''}")
    return Problem(path, str(error.message))


def _find_repeated_items(schema: Schema, value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _find_repeated_items(_part(schema, name), item, (*path, name))
    if not isinstance(value, list):
        return
    keys = schema.get("x-kubernetes-list-map-keys", ())
    is_set = schema.get("x-kubernetes-list-type") == "set"
    seen: list[Any] = []
    for index, item in enumerate(value):
        yield from _find_repeated_items(schema.get("items", {}), item, (*path, index))
        identity = item if is_set else [item.get(key) for key in keys] if keys and isinstance(item, dict) else None
        if identity is not None and identity in seen:
            shown = identity if is_set else ", ".join(map(str, identity))
            yield Problem((*path, index), f"{shown!r} is given twice; each must be unique")
        seen.append(identity)


def _properties(schema: Schema) -> Mapping[str, Schema]:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    return properties


def _part(schema: Schema, name: object) -> Schema:
    extra = schema.get("additionalProperties")
    part: Schema = _properties(schema).get(str(name), extra if isinstance(extra, dict) else {})
    return part
