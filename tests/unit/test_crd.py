"""The CRD as a reader, the model and cel-python see it. What a real API server says stands in tests/e2e."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from crd_cases import CASES, RuleCase
from pipelines import build_pipeline
from tocsin_cli.resource.rules import find_broken_rules
from tocsin_cli.resource.schema import apply_defaults, find_unknown_fields, find_wrong_values, load_schema
from tocsin_core.settings import UsersSettings
from tocsin_operator.children.config import build_service_config
from tocsin_operator.model import GROUP, KIND, PLURAL, VERSION, PipelineSpec, parse_pipeline
from tocsin_operator.scaling.report import CONDITION_TYPES as SCALING_CONDITIONS
from tocsin_operator.status import OWNED_CONDITIONS

ROOT = Path(__file__).resolve().parents[2]
CRD_FILE = ROOT / "operator" / "tocsin_operator" / "crd" / "notificationpipelines.yaml"
# Every key a structural schema of Kubernetes may have here: a comma in the wrong place makes a new one, silently.
SCHEMA_KEYS = {
    *("type", "format", "description", "default", "enum", "required", "properties", "items", "additionalProperties"),
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "pattern", "anyOf"),
    *("x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-int-or-string"),
}
Schema = Mapping[str, Any]


def crd() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CRD_FILE.read_text(encoding="utf-8"))
    return loaded


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from walk(schema[key], f"{path}[]")


def rules() -> list[Mapping[str, str]]:
    return [rule for _, schema in walk(load_schema()) for rule in schema.get("x-kubernetes-validations", [])]


def problems(body: Mapping[str, Any]) -> list[str]:
    schema = load_schema()
    filled = apply_defaults(schema, body)
    wrong = [*find_unknown_fields(schema, filled), *find_wrong_values(schema, filled)]
    return [str(problem) for problem in wrong or find_broken_rules(schema, filled)]


def test_names_are_those_of_the_model() -> None:
    spec = crd()["spec"]
    assert (spec["group"], spec["names"]["plural"], spec["names"]["kind"]) == (GROUP, PLURAL, KIND)
    assert [version["name"] for version in spec["versions"]] == [VERSION]
    assert crd()["metadata"]["name"] == f"{PLURAL}.{GROUP}"


def test_every_key_of_the_schema_is_one_that_kubernetes_knows() -> None:
    unknown = {(path, key) for path, schema in walk(load_schema()) for key in set(schema) - SCHEMA_KEYS}
    assert unknown == set()


def test_the_conditions_of_the_status_are_all_named() -> None:
    described = load_schema()["properties"]["status"]["properties"]["conditions"]["description"]
    assert set(re.findall(r"[A-Z]\w+", described)) == {*OWNED_CONDITIONS, *SCALING_CONDITIONS}


def test_every_string_list_map_and_number_of_the_spec_is_bounded() -> None:
    bounds = {"string": "maxLength", "array": "maxItems", "integer": "maximum"}
    for path, schema in walk(load_schema()["properties"]["spec"]):
        if bound := bounds.get(schema.get("type", "")):
            assert bound in schema or "enum" in schema, f"{path} has no {bound}"
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, f"{path} has no maxProperties"


def test_every_field_of_the_spec_is_described() -> None:
    spec = load_schema()["properties"]["spec"]
    undescribed = [path for path, schema in walk(spec) if not path.endswith("[]") and "description" not in schema]
    assert [path for path in undescribed if not path.endswith((".requests", ".limits", ".name", ".type"))] == []


def test_the_columns_are_the_ones_a_reader_needs() -> None:
    columns = crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    narrow = [column["name"] for column in columns if not column.get("priority")]
    assert narrow == ["Ready", "Reason", "Ingestion", "Consumers", "Desired", "Partitions", "Lag", "Age"]


def test_scale_and_status_are_subresources() -> None:
    subresources = crd()["spec"]["versions"][0]["subresources"]
    assert subresources == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.consumer.replicas",
            "statusReplicasPath": ".status.consumer.replicas",
            "labelSelectorPath": ".status.consumer.selector",
        },
    }


def test_the_schemas_defaults_are_those_of_the_model() -> None:
    bare = build_pipeline({})
    filled = apply_defaults(load_schema(), bare)
    assert parse_pipeline(filled) == parse_pipeline(bare)


@pytest.mark.parametrize(
    "channel",
    [
        {"name": "a", "type": "Webhook", "webhook": {"url": "https://example.org"}},
        {"name": "a", "type": "Email", "email": {"host": "smtp.example.org", "from": "a@example.org"}},
    ],
    ids=["Webhook", "Email"],
)
def test_the_defaults_of_a_channel_are_those_of_the_model(channel: dict[str, Any]) -> None:
    bare = build_pipeline({"spec.consumer.channels": [channel]})
    assert parse_pipeline(apply_defaults(load_schema(), bare)) == parse_pipeline(bare)


@pytest.mark.parametrize("source", [{"redis": {"url": "redis://valkey"}}, {"http": {"url": "http://users/{id}"}}])
def test_the_defaults_of_a_user_directory_are_those_of_the_model_and_of_the_services(source: dict[str, Any]) -> None:
    bare = build_pipeline({"spec.users": {**source, "cache": {}}})
    filled = parse_pipeline(apply_defaults(load_schema(), bare))
    assert filled == parse_pipeline(bare)
    written = build_service_config(filled)["users"]
    assert UsersSettings.model_validate(written) == UsersSettings.model_validate(source)


def test_the_schema_and_the_model_know_the_same_fields() -> None:
    assert schema_fields(load_schema()["properties"]["spec"]) == model_fields(PipelineSpec)


def schema_fields(schema: Schema, path: str = "") -> set[str]:
    # What a map's keys mean is free, as is what stands in `resources`, which is Kubernetes' own.
    if "items" in schema:
        schema = schema["items"]
    fields = schema.get("properties", {}) if not path.endswith(".resources") else {}
    below = (schema_fields(part, f"{path}.{name}") for name, part in fields.items())
    return {f"{path}.{name}" for name in fields}.union(*below)


def model_fields(model: type[msgspec.Struct], path: str = "") -> set[str]:
    found = set()
    for field in msgspec.structs.fields(model):
        name = f"{path}.{field.encode_name}"
        found.add(name)
        for struct in structs_in(field.type):
            found |= model_fields(struct, name)
    return found


def structs_in(annotation: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from structs_in(part)


def test_every_rule_has_a_case() -> None:
    untested = [rule["message"] for rule in rules() if not any(case.message in rule["message"] for case in CASES)]
    assert untested == []


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_cel_python_accepts_what_keeps_the_rule(case: RuleCase) -> None:
    assert problems(build_pipeline(case.accepted)) == []


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.before is None], ids=[case.name for case in CASES if case.before is None]
)
def test_cel_python_refuses_what_breaks_the_rule_and_says_what_to_write(case: RuleCase) -> None:
    found = problems(build_pipeline(case.refused))
    assert len(found) == 1
    assert case.message in found[0]


def test_each_refused_object_breaks_one_rule_alone() -> None:
    messages = [case.message for case in CASES]
    assert len(set(messages)) == len(messages)
    for message in messages:
        assert sum(message in rule["message"] for rule in rules()) == 1, message
