# ruff: noqa: INP001, T201 - a script beside the chart, for people to read the output of
"""Keep what is derived equal to its source: the chart's CRD and manifests/ come from the operator's CRD and the chart.

`python charts/check.py` fails on any difference and on a chart that helm, its schema or a reader would refuse;
`--write` makes the copies instead. Rendering needs `helm` on PATH: without it the rendered manifest cannot be compared,
and this says so aloud instead of passing in silence. A pre-commit hook that renders was refused: it hides the step.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "tocsin"
CRD = ROOT / "operator" / "tocsin_operator" / "crd" / "notificationpipelines.yaml"
CRD_COPIES = (CHART / "files" / "notificationpipelines.yaml", ROOT / "manifests" / "crd" / "notificationpipelines.yaml")
INSTALL = ROOT / "manifests" / "install.yaml"
NAMESPACE = "tocsin"
INSTALL_HEADER = f"""\
# What `helm install tocsin charts/tocsin -n {NAMESPACE} --create-namespace` installs, rendered by `make render`.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
"""
# Values that turn on every branch of the templates; rendered and looked at, never installed.
VARIANTS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "namespaced": {"watchNamespaces": ["a", "b"], "podMonitor": {"enabled": True}},
    "bound secrets": {"secretNamespaces": ["a"]},
    "watched": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "p"}},
        "podMonitor": {"enabled": True, "interval": "1m", "labels": {"release": "p"}},
        "prometheusRule": {"enabled": True, "maxLagSeconds": 300, "labels": {"release": "p"}},
    },
    "confined": {"networkPolicy": {"egress": {"enabled": True}}, "image": {"digest": "sha256:" + "0" * 64}},
    "bare": {
        "crds": {"install": False},
        "rbac": {"create": False, "aggregate": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "networkPolicy": {"enabled": False},
        "replicas": 1,
    },
    "dressed": {
        "global": {"anything": "goes"},
        "imagePullSecrets": [{"name": "registry"}],
        "podLabels": {"team": "x"},
        "podAnnotations": {"note": "y"},
        "priorityClassName": "high",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "crds": {"keep": False},
    },
}


class CheckFailed(Exception):
    """Something derived differs from its source, or the chart is wrong. The text says what to do."""


def main(arguments: Sequence[str]) -> int:
    """Check, or with `--write` make, everything derived. Return 0 if all is well, else 1 after naming each problem."""
    writes = list(arguments) == ["--write"]
    if arguments and not writes:
        print("usage: check.py [--write]", file=sys.stderr)
        return 2
    problems = [*check_copies(writes=writes), *check_values()]
    if shutil.which("helm") is None:
        print(
            f"charts/check.py: NOT CHECKED: no helm on PATH, so nobody rendered the chart or compared {_name(INSTALL)}"
        )
    else:
        problems += [*check_install(writes=writes), *check_renderings()]
    for problem in problems:
        print(f"charts/check.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


def check_copies(*, writes: bool) -> Iterator[str]:
    """Yield a problem for each copy of the CRD that differs from the operator's."""
    for copy in CRD_COPIES:
        yield from _check_file(copy, CRD.read_text(encoding="utf-8"), writes=writes)


def check_values() -> Iterator[str]:
    """Yield a problem for each default value that the values' schema refuses, and for each variant it refuses."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for name, values in {"values.yaml": defaults, **VARIANTS}.items():
        for error in validator.iter_errors(values):
            yield f"{name}: {error.json_path}: {error.message}"
    unexplained = set(schema["properties"]) - set(defaults) - {"global"}
    yield from (f"values.yaml does not show {key}, which values.schema.json accepts" for key in sorted(unexplained))


def check_install(*, writes: bool) -> Iterator[str]:
    """Yield a problem if manifests/install.yaml is not what the chart renders with its defaults."""
    try:
        text = f"{INSTALL_HEADER}{render_chart({})}"
    except CheckFailed as error:
        yield str(error)
        return
    yield from _check_file(INSTALL, text, writes=writes)


def check_renderings() -> Iterator[str]:
    """Yield a problem for each variant that helm cannot render or that renders an object nobody could apply."""
    lint = _helm("lint", "--strict", "--quiet", CHART)
    if lint.returncode:
        yield f"helm lint: {lint.stdout}{lint.stderr}".strip()
    for name, values in VARIANTS.items():
        try:
            objects = list(yaml.safe_load_all(render_chart(values)))
        except (CheckFailed, yaml.YAMLError) as error:
            yield f"with {name}: {error}"
            continue
        yield from (f"with {name}: {problem}" for problem in find_broken_objects(objects))


def find_broken_objects(objects: Sequence[Any]) -> Iterator[str]:
    """Yield a problem for each object without kind, version or name, and for each that is there twice."""
    seen = set()
    for each in filter(None, objects):
        metadata = each.get("metadata", {})
        identity = (each.get("apiVersion"), each.get("kind"), metadata.get("namespace", ""), metadata.get("name"))
        if not all((identity[0], identity[1], identity[3])):
            yield f"an object has no apiVersion, kind or name: {identity}"
        if identity in seen:
            yield f"rendered twice: {identity}"
        seen.add(identity)


def render_chart(values: dict[str, Any]) -> str:
    """Return what `helm template` makes of the chart. Raise CheckFailed with helm's own words."""
    done = _helm(
        "template", "tocsin", CHART, "--namespace", NAMESPACE, "--values", "-", standard_input=json.dumps(values)
    )
    if done.returncode:
        raise CheckFailed(f"helm template: {done.stderr.strip()}")
    return done.stdout


def _helm(*arguments: object, standard_input: str = "") -> subprocess.CompletedProcess[str]:
    command = ["helm", *map(str, arguments)]
    return subprocess.run(command, input=standard_input, capture_output=True, text=True, check=False)  # noqa: S603


def _check_file(path: Path, text: str, *, writes: bool) -> Iterator[str]:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    if not writes:
        yield f"{_name(path)} differs from its source: run 'make render' and commit the result"
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"charts/check.py: wrote {_name(path)}")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
