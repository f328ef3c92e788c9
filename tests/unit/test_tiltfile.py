"""The Tiltfile, evaluated: Starlark is a subset of Python, so it runs here against stand-ins that record every call.

What the stand-ins cannot know (whether Tilt accepts a call) they check by name and by argument; what they record is
held against the files, the chart and the manifests it speaks of.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TILTFILE = ROOT / "Tiltfile"
# The arguments of Tilt's own functions that the Tiltfile may use, from Tilt's API reference.
BUILTINS: dict[str, tuple[str, ...]] = {
    "version_settings": ("constraint", "check_updates"),
    "allow_k8s_contexts": ("contexts",),
    "docker_build": (
        "ref",
        "context",
        "dockerfile",
        "target",
        "match_in_env_vars",
        "live_update",
        "build_args",
        "only",
    ),
    "fall_back_on": ("paths",),
    "sync": ("local_path", "remote_path"),
    "run": ("cmd", "trigger"),
    "helm": ("pathToChartDir", "name", "namespace", "values", "set"),
    "k8s_yaml": ("yaml", "allow_duplicates"),
    "k8s_kind": ("kind", "api_version", "image_json_path", "image_object", "pod_readiness"),
    "k8s_resource": ("workload", "new_name", "port_forwards", "objects", "resource_deps", "labels", "links"),
    "local_resource": ("name", "cmd", "serve_cmd", "deps", "resource_deps", "readiness_probe", "links", "labels"),
    "probe": ("initial_delay_secs", "timeout_secs", "period_secs", "http_get"),
    "http_get_action": ("port", "host", "scheme", "path"),
    "link": ("url", "name"),
}
NOT_STARLARK = (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.ClassDef, ast.Try, ast.With, ast.While, ast.Raise)


class Call(NamedTuple):
    """One call of a builtin, its arguments by name."""

    function: str
    arguments: dict[str, Any]


def stand_in(name: str, parameters: tuple[str, ...], calls: list[Call]) -> Callable[..., Call]:
    def record(*positional: Any, **named: Any) -> Call:
        unknown = set(named) - set(parameters)
        assert not unknown, f"{name}() takes no {unknown}"
        call = Call(name, {**dict(zip(parameters, positional, strict=False)), **named})
        calls.append(call)
        return call

    return record


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    recorded: list[Call] = []
    builtins = {name: stand_in(name, parameters, recorded) for name, parameters in BUILTINS.items()}
    exec(compile(TILTFILE.read_text(encoding="utf-8"), "Tiltfile", "exec"), {"__builtins__": builtins})
    return recorded


def called(calls: list[Call], function: str) -> list[dict[str, Any]]:
    return [call.arguments for call in calls if call.function == function]


def installed_objects() -> list[dict[str, Any]]:
    text = (ROOT / "manifests" / "install.yaml").read_text(encoding="utf-8")
    return [each for each in yaml.safe_load_all(text) if each]


def applied_objects(calls: list[Call]) -> list[dict[str, Any]]:
    files = [path for each in called(calls, "k8s_yaml") if isinstance(each["yaml"], list) for path in each["yaml"]]
    texts = [(ROOT / path).read_text(encoding="utf-8") for path in files]
    return installed_objects() + [each for text in texts for each in yaml.safe_load_all(text)]


def test_it_stays_within_starlark() -> None:
    tree = ast.parse(TILTFILE.read_text(encoding="utf-8"))
    assert [node for node in ast.walk(tree) if isinstance(node, NOT_STARLARK)] == []


def test_it_may_only_touch_the_kind_cluster_that_this_checkout_makes(calls: list[Call]) -> None:
    kind = yaml.safe_load((ROOT / "manifests" / "kind" / "cluster.yaml").read_text(encoding="utf-8"))
    assert called(calls, "allow_k8s_contexts") == [{"contexts": f"kind-{kind['name']}"}]


def test_the_image_it_builds_is_the_one_the_chart_runs_and_the_operator_hands_on(calls: list[Call]) -> None:
    (build,) = called(calls, "docker_build")
    (chart,) = called(calls, "helm")
    values = yaml.safe_load((ROOT / "charts" / "tocsin" / "values.yaml").read_text(encoding="utf-8"))
    assert build["ref"] == values["image"]["repository"]
    assert f"image.repository={build['ref']}" in chart["set"]
    assert build["match_in_env_vars"] is True


def test_the_stage_it_builds_is_in_the_dockerfile(calls: list[Call]) -> None:
    (build,) = called(calls, "docker_build")
    assert re.search(rf"^FROM \S+ AS {build['target']}$", (ROOT / build["dockerfile"]).read_text("utf-8"), re.MULTILINE)


def test_every_file_it_names_is_there(calls: list[Call]) -> None:
    names = [each["local_path"] for each in called(calls, "sync")]
    names += [path for each in called(calls, "fall_back_on") for path in each["paths"]]
    names += [path for each in called(calls, "k8s_yaml") if isinstance(each["yaml"], list) for path in each["yaml"]]
    names += [each["pathToChartDir"] for each in called(calls, "helm")]
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_live_update_copies_packages_to_where_the_image_has_them(calls: list[Call]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert "FROM docker.io/library/python:3.13-slim" in dockerfile
    assert "python -m venv /opt/tocsin" in dockerfile
    for each in called(calls, "sync"):
        package = Path(each["local_path"]).name
        assert each["remote_path"] == f"/opt/tocsin/lib/python3.13/site-packages/{package}"


def test_live_update_touches_the_stamp_that_the_reloader_looks_at(calls: list[Call]) -> None:
    (run,) = called(calls, "run")
    reloader = (ROOT / "manifests" / "kind" / "reload").read_text("utf-8")
    assert run["cmd"].split() == ["touch", "/opt/tocsin/.reload"]
    assert "/opt/tocsin/.reload" in reloader


def test_live_update_falls_back_before_it_copies(calls: list[Call]) -> None:
    # Tilt refuses a fall_back_on that does not stand first.
    (build,) = called(calls, "docker_build")
    kinds = [step.function for step in build["live_update"]]
    assert kinds[0] == "fall_back_on"
    assert kinds[-1] == "run"


def test_every_value_it_sets_is_one_the_chart_shows(calls: list[Call]) -> None:
    values = yaml.safe_load((ROOT / "charts" / "tocsin" / "values.yaml").read_text(encoding="utf-8"))
    (chart,) = called(calls, "helm")
    for assignment in chart["set"]:
        found: Any = values
        for step in assignment.split("=")[0].split("."):
            assert step in found, f"{assignment}: the chart has no such value"
            found = found[step]


def test_every_object_it_groups_is_applied(calls: list[Call]) -> None:
    known = {f"{each['metadata']['name']}:{each['kind'].lower()}" for each in applied_objects(calls)}
    grouped = {name for each in called(calls, "k8s_resource") for name in each.get("objects", [])}
    assert grouped - known == set()


def test_every_workload_it_configures_is_applied(calls: list[Call]) -> None:
    kinds = {"Deployment", "StatefulSet", *(each["kind"] for each in called(calls, "k8s_kind"))}
    workloads = {each["metadata"]["name"] for each in applied_objects(calls) if each["kind"] in kinds}
    assert {each["workload"] for each in called(calls, "k8s_resource") if "workload" in each} == workloads


def test_every_dependency_is_a_resource(calls: list[Call]) -> None:
    resources = [*called(calls, "k8s_resource"), *called(calls, "local_resource")]
    names = {each.get("new_name") or each.get("workload") or each.get("name") for each in resources}
    wanted = {name for each in resources for name in each.get("resource_deps", [])}
    assert wanted - names == set()


def test_nothing_waits_for_a_pipelines_pods(calls: list[Call]) -> None:
    (kind,) = called(calls, "k8s_kind")
    assert (kind["kind"], kind["pod_readiness"]) == ("NotificationPipeline", "ignore")
