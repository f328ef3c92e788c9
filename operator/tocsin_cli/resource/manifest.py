"""The file behind `-f`: one NotificationPipeline with the ConfigMap and Secrets it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from tocsin_cli.resource.contents import find_kind, find_name, find_pipeline, read_secrets, read_text
from tocsin_cli.resource.documents import Document, read_documents
from tocsin_cli.resource.problems import Path, Problem, ResourceError
from tocsin_cli.resource.rules import find_broken_rules
from tocsin_cli.resource.schema import apply_defaults, find_unknown_fields, find_wrong_values, load_schema
from tocsin_core.users import DirectoryError, parse_users
from tocsin_operator.model import GROUP, VERSION, Pipeline, SecretRef, parse_pipeline

API_VERSION = f"{GROUP}/{VERSION}"
USERS_KEY = "users.yaml"
DNS_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")


class Manifest(NamedTuple):
    """A checked pipeline and what it refers to."""

    source: str
    pipeline: Pipeline
    users_yaml: str | None
    """None where users are known by a Redis or an HTTP service."""
    user_ids: tuple[str, ...]
    secrets: Mapping[str, Mapping[str, bytes]]

    def secret_value(self, reference: SecretRef, key: str, *, field: str) -> bytes:
        """Return one key of a Secret that `field` names. Raise ResourceError saying what to add to the file."""
        secret = self.secrets.get(reference.name)
        if secret is None:
            raise ResourceError(
                f"{self.source}: {field}: Secret {reference.name!r} is not in this file; "
                f"add a Secret document of that name with the key {key!r}"
            )
        if key not in secret:
            raise ResourceError(f"{self.source}: {field}: Secret {reference.name!r} has no key {key!r}; add it")
        return secret[key]


def read_manifest(path: FilePath) -> Manifest:
    """Read and check the file at `path`. Raise ResourceError listing every problem with its line, field and fix."""
    return parse_manifest(read_text(path), name=str(path))


def parse_manifest(text: str, *, name: str) -> Manifest:
    """Return the manifest in a YAML text; `name` is what error messages call it. Raise ResourceError as above."""
    documents = read_documents(text, name=name)
    document = find_pipeline(documents, name=name)
    pipeline = parse_pipeline(check_pipeline(document, name=name))
    secrets = read_secrets(documents, name=name)
    reference = pipeline.spec.users.config_map_ref
    if reference is None:
        return Manifest(source=name, pipeline=pipeline, users_yaml=None, user_ids=(), secrets=secrets)
    users_yaml = _users_yaml(documents, reference.name, name=name)
    user_ids = _user_ids(users_yaml, name=f"{name}: ConfigMap {reference.name}: {USERS_KEY}")
    return Manifest(source=name, pipeline=pipeline, users_yaml=users_yaml, user_ids=user_ids, secrets=secrets)


def check_pipeline(document: Document, *, name: str) -> dict[str, Any]:
    """Return the resource with its defaults. Raise ResourceError with one line per problem the CRD finds in it."""
    schema = load_schema()
    problems = [*_find_wrong_identity(document.value), *find_unknown_fields(schema, document.value)]
    body: dict[str, Any] = apply_defaults(schema, document.value)
    problems += find_wrong_values(schema, body)
    # Rules assume a value of the right shape, so the API server too asks them last.
    problems = problems or list(find_broken_rules(schema, body))
    if problems:
        raise ResourceError("\n".join(f"{name}:{document.line_of(each.path)}: {each}" for each in problems))
    return body


def _find_wrong_identity(body: Mapping[str, Any]) -> Iterator[Problem]:
    if body.get("apiVersion") != API_VERSION:
        yield Problem(("apiVersion",), f"must be {API_VERSION}, not {body.get('apiVersion')!r}")
    metadata = body.get("metadata")
    found = metadata.get("name") if isinstance(metadata, dict) else None
    path: Path = ("metadata", "name")
    if not found:
        yield Problem(path, "required, and not set")
    elif not isinstance(found, str) or not DNS_NAME.match(found):
        yield Problem(path, f"{found!r} must be lower-case letters, digits, '-' and '.'")


def _users_yaml(documents: list[Document], reference: str, *, name: str) -> str:
    field = "spec.users.configMapRef.name"
    maps = {find_name(each): each.value.get("data") or {} for each in documents if find_kind(each) == "ConfigMap"}
    if reference not in maps:
        raise ResourceError(
            f"{name}: {field}: ConfigMap {reference!r} is not in this file; "
            f"add a ConfigMap document of that name with the key {USERS_KEY!r}"
        )
    text = maps[reference].get(USERS_KEY)
    if not isinstance(text, str):
        raise ResourceError(f"{name}: {field}: ConfigMap {reference!r} has no key {USERS_KEY!r}; add it")
    return text


def _user_ids(users_yaml: str, *, name: str) -> tuple[str, ...]:
    try:
        users = parse_users(users_yaml)
    except DirectoryError as error:
        raise ResourceError(f"{name}: {error}") from error
    if not users:
        raise ResourceError(f'{name}: no users; write `"2": {{name: Ada}}`, one line per recipient')
    return tuple(users)
