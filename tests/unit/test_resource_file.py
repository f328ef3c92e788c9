"""`tocsin dev` refuses what the API server would refuse, with the line, the field and the fix."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tocsin_cli.resource.documents import read_documents
from tocsin_cli.resource.manifest import Manifest, parse_manifest, read_manifest
from tocsin_cli.resource.problems import ResourceError, format_path
from tocsin_cli.resource.rules import find_broken_rules
from tocsin_cli.resource.schema import apply_defaults, find_unknown_fields, find_wrong_values, load_schema
from tocsin_operator.model import SecretRef

PIPELINE = """\
apiVersion: tocsin.dev/v1alpha1
kind: NotificationPipeline
metadata:
  name: orders
spec:
  kafka:
    bootstrapServers: ["kafka:9092"]
    topic: {name: orders}
  users:
    configMapRef: {name: orders-users}
  consumer:
    channels:
    - {name: log, type: Log}
"""
USERS = """\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: orders-users}
data:
  users.yaml: |
    1: {name: Ada}
    "2": {name: Bo}
"""


def parse(pipeline: str = PIPELINE, rest: str = USERS) -> Manifest:
    return parse_manifest(pipeline + rest, name="my.yaml")


def refusal(pipeline: str = PIPELINE, rest: str = USERS) -> str:
    with pytest.raises(ResourceError) as caught:
        parse(pipeline, rest)
    return str(caught.value)


def test_ten_lines_become_a_pipeline_with_every_default() -> None:
    manifest = parse()
    assert manifest.pipeline.key == "default/orders"
    assert manifest.pipeline.spec.consumer.scaling.max_lag_seconds == 60
    assert manifest.pipeline.spec.kafka.topic.management == "Managed"


def test_integer_ids_of_users_are_the_same_as_strings() -> None:
    assert parse().user_ids == ("1", "2")


def test_an_unknown_field_is_named_with_its_line_and_its_near_match() -> None:
    text = refusal(PIPELINE.replace("bootstrapServers", "bootstrapServer"))
    assert "my.yaml:7: spec.kafka.bootstrapServer: unknown field; did you mean 'bootstrapServers'?" in text


def test_a_missing_field_is_named() -> None:
    text = refusal(PIPELINE.replace('    bootstrapServers: ["kafka:9092"]\n', ""))
    assert "spec.kafka.bootstrapServers: required, and not set" in text


def test_a_field_in_the_wrong_case_is_matched_too() -> None:
    text = refusal(PIPELINE.replace("configMapRef", "configmapref"))
    assert "did you mean 'configMapRef'?" in text


def test_unknown_fields_inside_lists_are_found() -> None:
    text = refusal(PIPELINE.replace("type: Log", "type: Log, kind: x"))
    assert "my.yaml:13: spec.consumer.channels[0].kind: unknown field" in text


def test_unknown_fields_of_metadata_are_found() -> None:
    text = refusal(PIPELINE.replace("  name: orders\nspec", "  name: orders\n  label: {}\nspec"))
    assert "metadata.label: unknown field; did you mean 'labels'?" in text


def test_a_value_out_of_its_enum_lists_the_values() -> None:
    text = refusal(PIPELINE.replace("type: Log", "type: Pigeon"))
    assert "spec.consumer.channels[0].type: 'Pigeon' is not one of Log, Email, Webhook" in text


def test_a_number_where_a_string_belongs_is_told_to_wear_quotes() -> None:
    text = refusal(PIPELINE.replace("{name: orders}", "{name: orders, config: {retention.ms: 1000}}"))
    assert "spec.kafka.topic.config.retention.ms: must be a string, not 1000; put it in quotes" in text


def test_a_broken_rule_speaks_with_the_words_of_the_crd() -> None:
    text = refusal(PIPELINE + "    scaling: {minReplicas: 5, maxReplicas: 2}\n")
    assert "spec.consumer.scaling.minReplicas: consumer.scaling.minReplicas must be at most maxReplicas" in text


def test_rules_on_single_values_are_asked() -> None:
    text = refusal(PIPELINE.replace("kafka:9092", "http://kafka:9092"))
    assert "spec.kafka.bootstrapServers[0]: " in text
    assert "without a scheme" in text


def test_a_channel_listed_twice_is_refused() -> None:
    assert "'log' is given twice" in refusal(PIPELINE + "    - {name: log, type: Log}\n")


def test_a_key_given_twice_is_refused_with_its_line() -> None:
    assert refusal(PIPELINE + "  users: {}\n") == "my.yaml:14: not valid YAML: key 'users' is given twice"


def test_a_wrong_api_version_says_which_one_it_must_be() -> None:
    assert "my.yaml:1: apiVersion: must be tocsin.dev/v1alpha1, not 'tocsin.dev/v1'" in refusal(
        PIPELINE.replace("v1alpha1", "v1")
    )


def test_a_name_kubernetes_would_refuse_is_refused() -> None:
    assert "metadata.name" in refusal(PIPELINE.replace("name: orders\nspec", "name: Orders!\nspec"))


def test_a_missing_users_config_map_says_what_to_add() -> None:
    text = refusal(rest="")
    assert "spec.users.configMapRef.name: ConfigMap 'orders-users' is not in this file" in text
    assert "'users.yaml'" in text


def test_users_that_are_no_mapping_are_refused() -> None:
    text = refusal(rest="---\nkind: ConfigMap\nmetadata: {name: orders-users}\ndata: {users.yaml: '[1, 2]'}\n")
    assert "ConfigMap orders-users: users.yaml: not a mapping of ids to profiles" in text


def test_no_pipeline_in_the_file_lists_what_was_there() -> None:
    assert refusal(pipeline="") == "my.yaml: no document of kind NotificationPipeline (found: ConfigMap); add one"


def test_two_pipelines_in_one_file_are_refused() -> None:
    assert "2 pipelines (orders, orders)" in refusal(rest=f"---\n{PIPELINE}{USERS}")


def test_a_file_that_is_not_yaml_names_the_line() -> None:
    assert refusal(pipeline="a: [1\n", rest="b: 2\n").startswith("my.yaml:2: not valid YAML")


def test_a_file_that_is_not_there_is_a_resource_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("none") / "gone.yaml"
    with pytest.raises(ResourceError, match="No such file"):
        read_manifest(path)


def test_secrets_are_decoded_and_plain_text_wins() -> None:
    encoded = base64.b64encode(b"from data").decode()
    secret = (
        f"---\nkind: Secret\nmetadata: {{name: s}}\ndata: {{a: {encoded}, b: {encoded}}}\nstringData: {{b: plain}}\n"
    )
    manifest = parse(rest=USERS + secret)
    assert manifest.secrets["s"] == {"a": b"from data", "b": b"plain"}


def test_secret_data_that_is_not_base64_points_at_string_data() -> None:
    text = refusal(rest=USERS + "---\nkind: Secret\nmetadata: {name: s}\ndata: {a: x}\n")
    assert "data.a: not base64; plain text belongs under stringData" in text


def test_a_secret_that_is_not_in_the_file_is_named_with_its_field() -> None:
    with pytest.raises(ResourceError, match=r"spec\.x: Secret 'gone' is not in this file"):
        parse().secret_value(SecretRef(name="gone"), "secret", field="spec.x")


def test_defaults_leave_the_given_object_alone() -> None:
    given: dict[str, Any] = {"spec": {}}
    apply_defaults({"properties": {"spec": {"properties": {"a": {"default": {}}}}}}, given)
    assert given == {"spec": {}}


def test_defaults_reach_into_defaults_and_lists() -> None:
    inner = {"properties": {"b": {"default": 1}}}
    schema = {"properties": {"a": {"default": {}, **inner}, "c": {"items": inner}}}
    assert apply_defaults(schema, {"c": [{}]}) == {"a": {"b": 1}, "c": [{"b": 1}]}


def test_transition_rules_are_skipped() -> None:
    schema = {"x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "immutable"}]}
    assert list(find_broken_rules(schema, "x")) == []


def test_a_rule_that_cannot_be_evaluated_is_a_problem() -> None:
    schema = {"x-kubernetes-validations": [{"rule": "isURL(self)", "message": "a URL"}]}
    assert "could not be evaluated" in str(next(find_broken_rules(schema, "x")))


def test_a_message_expression_is_evaluated() -> None:
    rule = {"rule": "self > 3", "messageExpression": "'got ' + string(self)", "message": "too small"}
    assert [each.text for each in find_broken_rules({"x-kubernetes-validations": [rule]}, 2)] == ["got 2"]


def test_fields_below_preserved_ones_are_not_judged() -> None:
    schema = {"properties": {"spec": {"x-kubernetes-preserve-unknown-fields": True}}}
    assert list(find_unknown_fields(schema, {"spec": {"anything": 1}})) == []


def test_the_items_of_a_set_are_unique() -> None:
    schema = {"x-kubernetes-list-type": "set", "items": {"type": "string"}}
    assert [str(each) for each in find_wrong_values(schema, ["a", "a"])] == [
        "[1]: 'a' is given twice; each must be unique"
    ]


def test_the_schema_of_the_release_is_found() -> None:
    assert load_schema()["properties"]["spec"]["required"] == ["kafka", "users", "consumer"]


def test_paths_read_as_kubernetes_writes_them() -> None:
    assert format_path(("spec", "channels", 0, "name")) == "spec.channels[0].name"


def test_a_line_is_found_for_a_field_that_is_missing() -> None:
    (document,) = read_documents("spec:\n  kafka:\n    a: 1\n", name="x")
    assert document.line_of(("spec", "kafka", "topic", "name")) == 2
