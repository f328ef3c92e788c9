"""The CRD's CEL rules, evaluated on this machine with cel-python.

A rule that mentions `oldSelf` compares two versions of an object; a file has only one, so such rules are skipped.
A rule that cannot be evaluated is a problem, never a pass: the API server fails closed too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import celpy
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError

from tocsin_cli.resource.problems import Path, Problem

OLD_SELF = re.compile(r"\boldSelf\b")


def find_broken_rules(schema: Mapping[str, Any], value: Any) -> Iterator[Problem]:
    """Yield each CEL rule of the schema that `value` (with its defaults filled in) breaks, with the rule's message."""
    environment = celpy.Environment()
    for part, item, path in _walk(schema, value, ()):
        for rule in part.get("x-kubernetes-validations", ()):
            if not OLD_SELF.search(rule["rule"]):
                yield from _check(environment, rule, item, path)


def _walk(schema: Mapping[str, Any], value: Any, path: Path) -> Iterator[tuple[Mapping[str, Any], Any, Path]]:
    if value is None:
        return
    yield schema, value, path
    if isinstance(value, dict):
        properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
        for name, item in value.items():
            part = properties.get(name, extra)
            if isinstance(part, dict):
                yield from _walk(part, item, (*path, name))
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _walk(schema["items"], item, (*path, index))


def _check(environment: celpy.Environment, rule: Mapping[str, str], value: Any, path: Path) -> Iterator[Problem]:
    where = (*path, *(step for step in rule.get("fieldPath", "").split(".") if step))
    try:
        holds = bool(_evaluate(environment, rule["rule"], value))
    except (CELEvalError, CELParseError) as error:
        yield Problem(where, f"the rule {rule['rule']!r} could not be evaluated: {error.args[0]}")
        return
    if not holds:
        yield Problem(where, _message(environment, rule, value))


def _message(environment: celpy.Environment, rule: Mapping[str, str], value: Any) -> str:
    if "messageExpression" in rule:
        try:
            return str(_evaluate(environment, rule["messageExpression"], value))
        except (CELEvalError, CELParseError):
            pass  # as the API server does: fall back to the plain message
    return rule.get("message", f"failed rule: {rule['rule']}")


def _evaluate(environment: celpy.Environment, expression: str, value: Any) -> Any:
    program = environment.program(environment.compile(expression))
    return program.evaluate({"self": json_to_cel(value)})
