"""Every reason that a condition or an event can have stands on the page that says what to do about it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from documentation import ROOT
from tocsin_operator.errors import KubernetesFailure
from tocsin_operator.kafka_clusters import SecretProblem
from tocsin_operator.problems import IMAGE_REASONS, START_REASONS
from tocsin_operator.scaling.model import Reason
from tocsin_operator.scaling.report import CONDITION_TYPES
from tocsin_operator.status import OWNED_CONDITIONS

OPERATOR = ROOT / "operator" / "tocsin_operator"
# Whoever makes one of these, or sends an event, writes reasons as words of several capitals.
MAKERS = re.compile(r"\b(Problem|Claim|News|Event)\(|\.emit_event\(")
CAPITALS = re.compile(r"[A-Z][a-z]+(?:[A-Z][A-Za-z]*)+")
# Words of that form in the same modules that are no reasons of ours: kinds, fields, and what the kubelet says.
OTHERS = {*OWNED_CONDITIONS, *CONDITION_TYPES, *IMAGE_REASONS, *START_REASONS}
OTHERS |= {"ConfigMap", "ContainerCreating", "NotificationPipeline"}
# Reasons that are put together from parts.
PARTS = {
    "AuthMode": {"AuthModeAPIKey", "AuthModeJWT"},
    "IngestionScaled": {"IngestionScaledOut", "IngestionScaledIn"},
}


def find_written() -> Iterator[str]:
    for path in OPERATOR.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if not MAKERS.search(text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CAPITALS.fullmatch(node.value):
                yield from PARTS.get(node.value, {node.value} - OTHERS)


def test_every_reason_is_on_the_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.partition("## Reasons, and what helps")[2].partition("\n## ")[0]
    told = {reason for row in re.findall(r"^\|.*$", section, re.MULTILINE) for reason in re.findall(r"`(\w+)`", row)}
    written = set(find_written())
    assert {"NameTaken", "ConfigUnreadable", "KafkaError", "TopicGrown", "AuthModeJWT"} <= written
    secrets = {kind.reason for kind in SecretProblem.__subclasses__()}
    failures: list[type[KubernetesFailure]] = [KubernetesFailure, *KubernetesFailure.__subclasses__()]
    kubernetes = {kind.__name__ for kind in failures}
    assert (written | secrets | kubernetes | set(Reason)) - told == set()
