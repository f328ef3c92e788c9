"""YAML documents that remember the line each field stands on, and refuse a key that is given twice.

PyYAML silently keeps the last of two equal keys; kubectl's strict decoding refuses them, and so does this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from tocsin_cli.resource.problems import Path, ResourceError


class Document(NamedTuple):
    """One YAML document: its value, and the tree that knows where each field stands."""

    value: Any
    node: yaml.Node

    def line_of(self, path: Path) -> int:
        """Return the line (counted from 1) of the deepest part of `path` that the file has."""
        node, line = self.node, self.node.start_mark.line
        for step in path:
            found = _find(node, step)
            if found is None:
                break
            line, node = found
        return int(line) + 1


class _StrictLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<" and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def read_documents(text: str, *, name: str) -> list[Document]:
    """Return the documents of a YAML text that are not empty. Raise ResourceError naming `name` and the line."""
    try:
        return list(_documents(text))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ResourceError(f"{name}{line}: not valid YAML: {error.problem or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ResourceError(f"{name}: not valid YAML: {error}") from error


def _documents(text: str) -> Iterator[Document]:
    loader = _StrictLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            value = loader.construct_document(node)
            if node is not None and value is not None:
                yield Document(value, node)
    finally:
        loader.dispose()


def _find(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        return item.start_mark.line, item
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line, value
    return None
