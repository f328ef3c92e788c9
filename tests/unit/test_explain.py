"""`tocsin explain` on what the operator left in the status, from a file and from an API server on a real socket."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from documentation import find_block
from scaling_cases import EPOCH, Flow, replay
from tocsin_cli.__main__ import main
from tocsin_operator.scaling.model import Ceiling, ChannelInputs, Config, Hold
from tocsin_operator.scaling.ports import Report, Target
from tocsin_operator.scaling.report import build_status

CONFIG = Config(max_lag_seconds=60, interval_seconds=5, capacity_per_second=100)
TARGET = Target("shop/orders", "u1", "kafka:9092", "shop.orders", "orders", CONFIG)


@pytest.fixture
def resource() -> dict[str, Any]:
    """A pipeline with the status that a decision left."""
    flow = Flow(per_second=500, lag=42_000)
    decision, state = replay(flow.looks(0, 100, 5), CONFIG)
    report = Report(TARGET, EPOCH, flow.look(100), decision, state, has_acted=True)
    status = build_status(report, {})
    status["consumer"] = {"readyReplicas": 1, "desiredReplicas": decision.replicas}
    return {
        "apiVersion": "tocsin.dev/v1alpha1",
        "kind": "NotificationPipeline",
        "metadata": {"name": "orders", "namespace": "shop"},
        "status": status,
    }


@pytest.fixture
def server(resource: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An API server that knows one pipeline, and a kubeconfig that leads to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = self.path == "/apis/tocsin.dev/v1alpha1/namespaces/shop/notificationpipelines/orders"
            body = resource if is_known else {"message": "notificationpipelines.tocsin.dev not found"}
            data = json.dumps(body).encode()
            self.send_response(200 if is_known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{listener.server_port}"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [cluster],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield
        listener.shutdown()
        thread.join()


def write(tmp_path: Path, body: object) -> str:
    path = tmp_path / "orders.json"
    path.write_text(json.dumps(body))
    return str(path)


def test_the_decision_is_told_with_the_counts_that_were_refused(
    resource: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "-f", write(tmp_path, resource)]) == 0
    out = capsys.readouterr().out
    assert "shop/orders: 1 of 12 consumers ready" in out
    assert "DemandExceedsCapacity" in out
    assert "4 pods refused: busiest pod at 125% of its capacity, above 85%" in out
    assert "12 pods would do, busiest pod at 42%" in out
    assert "1 -> 12  DemandExceedsCapacity" in out
    assert "100 one pod does per second (hint)" in out


def test_a_backlog_that_cannot_drain_is_told_with_what_is_left_of_the_promise(
    resource: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = Flow(per_second=120, lag=4_200)
    decision, state = replay(flow.looks(0, 400, 5), CONFIG)
    resource["status"] = build_status(Report(TARGET, EPOCH, flow.look(400), decision, state, has_acted=True), {})
    assert main(["explain", "-f", write(tmp_path, resource)]) == 0
    assert "1 pod never drains that, and 25 s of the promised 60 s are left: 2 pods needed" in capsys.readouterr().out


def test_a_resource_may_come_from_standard_input(
    resource: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(resource)))
    assert main(["explain", "-f", "-"]) == 0
    assert "shop/orders" in capsys.readouterr().out


@pytest.mark.usefixtures("server")
def test_a_pipeline_is_read_from_the_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = [each for each in find_block("docs/scaling.md", "explain").splitlines() if each]
    assert main(command.split()[1:]) == 0
    assert "shop/orders: 1 of 12 consumers ready" in capsys.readouterr().out


@pytest.mark.usefixtures("server")
def test_a_pipeline_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "order", "-n", "shop"]) == 2
    assert "notificationpipelines/order" in capsys.readouterr().err


def test_a_ceiling_of_the_downstream_is_told(
    resource: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ceiling = Ceiling(per_second=200.0, replicas=3, hold_seconds=600.0, until_seconds=EPOCH)
    decision, state = replay(Flow(per_second=10).looks(0, 100, 5), CONFIG)
    report = Report(TARGET, EPOCH, decision=decision, state=type(state)(ceiling=ceiling))
    resource["status"]["scaling"] = build_status(report, {})["scaling"]
    assert main(["explain", "-f", write(tmp_path, resource)]) == 0
    assert "the downstream takes 200 per second, tried again at 1970-01-12" in capsys.readouterr().out


def test_each_channel_s_lag_is_told_and_what_holds_one_back(
    resource: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decision, state = replay(Flow(per_second=10).looks(0, 100, 5), CONFIG)
    channels = (
        ChannelInputs(name="hook", lag=900, lag_seconds=90, hold=Hold.PROVIDER),
        ChannelInputs(name="mail", lag=3, lag_seconds=0.5),
    )
    decision = msgspec.structs.replace(decision, inputs=msgspec.structs.replace(decision.inputs, channels=channels))
    resource["status"] = build_status(Report(TARGET, EPOCH, Flow().look(100), decision, state), {})
    assert main(["explain", "-f", write(tmp_path, resource)]) == 0
    out = capsys.readouterr().out
    assert "channel hook: 900 records, the oldest 90 s: its provider is down or throttles, so no pod is bought" in out
    assert "channel mail: 3 records, the oldest 0.5 s\n" in out


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"kind": "NotificationPipeline", "metadata": {"name": "orders"}}, "orders has no status.scaling yet"),
        ({"kind": "Pod"}, "holds no NotificationPipeline"),
        ([], "holds no NotificationPipeline"),
    ],
)
def test_what_cannot_be_explained_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: object, words: str
) -> None:
    assert main(["explain", "-f", write(tmp_path, body)]) == 2
    assert words in capsys.readouterr().err


def test_a_name_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 2
    assert "name a pipeline" in capsys.readouterr().err
