"""What the pages say is so: commands are run by tests, resources are valid, links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from documentation import PAGES, ROOT, read_blocks
from pipelines import build_pipeline
from tocsin_cli.resource.documents import read_documents
from tocsin_cli.resource.manifest import check_pipeline

LOCAL = "tests/integration/test_readme.py"
CLUSTER = "tests/e2e/test_readme_cluster.py"
PRODUCTION = "tests/e2e/test_production_page.py"
DEAD_LETTERS = "tests/integration/test_dead_letters_page.py"
CHART = "tests/unit/test_chart.py"
KIND = "tests/e2e/run"
BENCH = "tests/integration/test_bench_delivery.py"
# Which test file runs a command. A command that is new on a page is missing here until a test runs it.
RUN_BY = {
    "make setup": LOCAL,
    "make demo": LOCAL,
    "make check": ".ci/run",
    "make test": ".ci/run",
    "make bench-delivery": BENCH,
    "make bench-fleet": "tests/integration/test_bench_fleet.py",
    "make bench-ingestion": "tests/integration/test_bench_ingestion.py",
    ".venv/bin/tocsin dev -f manifests/samples/quickstart.yaml": LOCAL,
    ".venv/bin/tocsin dev -f manifests/samples/quickstart.yaml --input my.ndjson": LOCAL,
    "tocsin dlq list -f orders.yaml": DEAD_LETTERS,
    "tocsin dlq list -f orders.yaml --channel push --since 1h --limit 100": DEAD_LETTERS,
    "tocsin dlq list -f orders.yaml --reason retries_exhausted --json": DEAD_LETTERS,
    "tocsin dlq show -f orders.yaml 0:17": DEAD_LETTERS,
    "kubectl get npl orders -o yaml | tocsin dlq list -f -": DEAD_LETTERS,
    "kubectl get npl orders -o yaml | kubectl exec -i deploy/orders-consumer -- tocsin dlq list -f -": DEAD_LETTERS,
    "tocsin dlq list --brokers localhost:9092 --topic orders": DEAD_LETTERS,
    "tocsin dlq replay -f orders.yaml --channel push --since 1h --dry-run": DEAD_LETTERS,
    "tocsin dlq replay -f orders.yaml --channel push --since 1h --rate 50": DEAD_LETTERS,
    "tocsin dlq replay -f orders.yaml 0:17 0:23": DEAD_LETTERS,
    "tocsin dlq discard -f orders.yaml --reason undecodable --yes": DEAD_LETTERS,
    ".venv/bin/tocsin dev -f manifests/samples/websocket.yaml": LOCAL,
    ".venv/bin/tocsin listen --user 2": LOCAL,
    '.venv/bin/tocsin send --from 1 --to 2 "Grüße aus der Küche"': LOCAL,
    "tocsin keys create billing --secret orders-keys": "tests/unit/test_keys_command.py",
    "tocsin keys hash < key.txt": "tests/unit/test_keys_command.py",
    'tocsin send --token-file key.txt --from 1 --to 2 "hi"': "tests/integration/test_auth.py",
    ".venv/bin/tocsin explain orders -n shop": "tests/unit/test_explain.py",
    ".venv/bin/tocsin simulate --trace backlog --policies tocsin,keda --picture backlog.svg": (
        "tests/unit/test_simulate_command.py"
    ),
    "manifests/kind/up": KIND,
    "docker build --tag registry.example.org/tocsin:0.1.0 .": KIND,
    "helm install tocsin charts/tocsin --namespace tocsin-system --create-namespace "
    "--set image.repository=registry.example.org/tocsin": CLUSTER,
    "sed 's|docker.io/library/tocsin:0.1.0|registry.example.org/tocsin:0.1.0|' manifests/install.yaml "
    "| kubectl apply --server-side -f -": CHART,
    "kubectl -n tocsin-system rollout status deployment/tocsin": CLUSTER,
    "helm upgrade tocsin charts/tocsin --namespace tocsin-system "
    "--set image.repository=registry.example.org/tocsin --set image.tag=0.2.0": PRODUCTION,
    "helm rollback tocsin --namespace tocsin-system": PRODUCTION,
    "kubectl delete npl --all --all-namespaces": PRODUCTION,
    "helm uninstall tocsin --namespace tocsin-system": PRODUCTION,
    "kubectl delete crd notificationpipelines.tocsin.dev": PRODUCTION,
    "kubectl rollout restart deployment/orders-ingestion deployment/orders-consumer": PRODUCTION,
    "kubectl apply -f manifests/samples/quickstart.yaml": CLUSTER,
    "kubectl wait --for=condition=Ready npl/quickstart --timeout=3m": CLUSTER,
    "kubectl get npl": CLUSTER,
    "kubectl port-forward service/quickstart-ingestion 8080": CLUSTER,
    "kubectl logs deployment/quickstart-consumer": CLUSTER,
}
# What no test can run, and why.
NOT_RUN = {
    "docker push registry.example.org/tocsin:0.1.0": "needs a registry of the reader's own",
    "tilt up": "needs Tilt and kind; tests/unit/test_tiltfile.py evaluates the Tiltfile against stand-ins",
}
POST = "curl -sS http://localhost:8080/v1/notifications"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_run_by_a_test_that_exists(page: str) -> None:
    commands = [command for block in read_blocks(page) if block.language == "sh" for command in block.commands]
    unknown = [each for each in commands if each not in RUN_BY | NOT_RUN and not each.startswith(POST)]
    assert not unknown
    assert all((ROOT / RUN_BY[command]).is_file() for command in commands if command in RUN_BY)


def test_no_command_is_listed_that_no_page_tells() -> None:
    told = {command for page in PAGES for block in read_blocks(page) for command in block.commands}
    assert set(RUN_BY | NOT_RUN) <= told


def test_the_resource_of_the_readme_is_accepted() -> None:
    (block,) = [each for each in read_blocks("README.md") if each.language == "yaml"]
    (document,) = read_documents(block.text, name="README.md")
    assert check_pipeline(document, name="README.md")["spec"]["consumer"]["scaling"]["maxReplicas"] == 24


def test_the_values_that_switch_monitoring_on_are_those_of_the_chart() -> None:
    (block,) = [each for each in read_blocks("docs/operations.md") if each.language == "yaml"]
    schema = json.loads((ROOT / "charts/tocsin/values.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(yaml.safe_load(block.text), schema)


def test_an_image_with_a_private_ca_runs_as_the_image_it_is_made_from() -> None:
    (block,) = [each for each in read_blocks("docs/production.md") if each.language == "dockerfile"]
    ours = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    last = [re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] for text in (block.text, ours)]
    assert last[0] == last[1]


def test_every_alert_is_on_the_page_of_operations() -> None:
    rules = (ROOT / "charts/tocsin/templates/prometheusrule.yaml").read_text(encoding="utf-8")
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert re.findall(r"- alert: (\w+)", rules) == re.findall(r"^\| `(Tocsin\w+)`", page, re.MULTILINE)


def test_the_user_directories_of_the_page_are_accepted() -> None:
    blocks = [each for each in read_blocks("docs/ingestion.md") if each.language == "yaml"]
    users = [content["users"] for block in blocks if "users" in (content := yaml.safe_load(block.text))]
    assert [sorted(each) for each in users] == [["redis"], ["cache", "http"]]
    for each in users:
        text = yaml.safe_dump(build_pipeline({"spec.users": each}))
        (document,) = read_documents(text, name="docs/ingestion.md")
        assert check_pipeline(document, name="docs/ingestion.md")


@pytest.mark.parametrize("page", [*PAGES, "SECURITY.md", "CHANGELOG.md"])
def test_links_within_the_project_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert all((Path(ROOT / page).parent / target).exists() for target in targets)


def test_the_promise_is_the_same_wherever_it_is_given() -> None:
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/delivery.md")]
    promises = [re.findall(r"(?:^> .*\n)+", text, re.MULTILINE)[0] for text in pages]
    assert promises[0] == promises[1]


def test_the_ways_to_authenticate_of_the_page_are_accepted() -> None:
    blocks = [yaml.safe_load(block.text) for block in read_blocks("docs/ingestion.md") if block.language == "yaml"]
    told = [block["ingestion"]["auth"] for block in blocks if "ingestion" in block]
    assert [auth["mode"] for auth in told] == ["APIKey", "JWT", "APIKey"]
    (document,) = read_documents((ROOT / "manifests/samples/quickstart.yaml").read_text().split("---")[0], name="page")
    for auth in told:
        document.value["spec"]["ingestion"] = {"auth": auth}
        check_pipeline(document, name="page")
