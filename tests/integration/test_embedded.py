"""What people rely on in the embedded servers: they start fast, die with their starter, and keep data when told to."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import redis
from jgo.maven import MavenContext

from tocsin_cli.embedded import jars
from tocsin_cli.embedded.kafka import BrokerSecurity, EmbeddedKafka
from tocsin_cli.embedded.process import EmbeddedError, find_free_ports
from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_core.admin import KafkaAdmin
from tocsin_core.settings import KafkaConnection

STARTER = """
import sys, threading, time
from tocsin_cli.embedded.valkey import EmbeddedValkey
server = EmbeddedValkey()
thread = threading.Thread(target=server.start)
thread.start()
thread.join()  # the thread that started the server is gone, and the server has to stay
print(server.pid, server._server.directory, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def wait_until_gone(pid: int, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(pid)


@pytest.mark.parametrize("last_signal", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_and_its_data_go_when_their_starter_is_killed(last_signal: int) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid, directory = starter.stdout.readline().split()
        assert is_alive(int(pid))
        starter.send_signal(last_signal)
    assert wait_until_gone(int(pid), 15)
    deadline = time.monotonic() + 5
    while Path(directory).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(directory).exists()


def test_valkey_forgets_no_claim_and_evicts_none(valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("appendonly")["appendonly"] == "yes"
        assert client.set("claim", "1", nx=True, px=1000)
        assert client.set("claim", "2", nx=True, px=1000) is None


def test_valkey_keeps_its_data_in_a_directory_it_was_given(tmp_path: Path) -> None:
    for expected in (None, b"here"):
        with EmbeddedValkey(data_dir=tmp_path) as server, redis.Redis.from_url(server.url) as client:
            assert client.get("k") == expected
            client.set("k", "here")


def test_a_taken_port_is_said_and_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EmbeddedValkey(port=taken.getsockname()[1])
        with pytest.raises(EmbeddedError, match="Address already in use"):
            server.start()
    with pytest.raises(EmbeddedError, match="not running"):
        _ = server.pid


def test_free_ports_are_none_of_outgoing_connections() -> None:
    ports = find_free_ports("127.0.0.1", 3)
    assert len(set(ports)) == 3
    assert max(ports) < 32_768


@pytest.mark.kafka
def test_a_broker_with_a_port_of_its_own_tries_another_for_its_inner_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    [wanted] = find_free_ports("127.0.0.1", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        offers = [[wanted, taken.getsockname()[1], find_free_ports("127.0.0.1", 1)[0]], find_free_ports("127.0.0.1", 3)]
        monkeypatch.setattr("tocsin_cli.embedded.kafka.find_free_ports", lambda *_: offers.pop(0))
        with EmbeddedKafka(port=wanted) as server:
            assert server.bootstrap_servers == f"127.0.0.1:{wanted}"
    assert not offers


@pytest.mark.kafka
def test_a_broker_whose_own_port_is_taken_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = [find_free_ports("127.0.0.1", 3)]
    monkeypatch.setattr("tocsin_cli.embedded.kafka.find_free_ports", lambda *_: offers.pop(0))
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(EmbeddedError, match="Address already in use"),
    ):
        EmbeddedKafka(port=taken.getsockname()[1]).start()


@pytest.mark.parametrize("word", ["", "a,b", 'a"b', "a]b", "a;b", "a\nb"])
def test_a_password_that_kafkas_tools_would_misread_is_refused(word: str) -> None:
    with pytest.raises(EmbeddedError, match="password"):
        BrokerSecurity(scram_sha_512_users={"ada": word})


@pytest.mark.kafka
async def test_kafka_keeps_its_topics_in_a_directory_it_was_given_and_starts_again_quickly(tmp_path: Path) -> None:
    said: list[str] = []
    with EmbeddedKafka(data_dir=tmp_path, on_progress=said.append) as server:
        admin = KafkaAdmin(KafkaConnection(brokers=[server.bootstrap_servers]), client_id="tests")
        await admin.create_topic("kept", partitions=2)
        await admin.close()
    assert "formatting Kafka's storage" in said
    said.clear()
    with EmbeddedKafka(data_dir=tmp_path, on_progress=said.append) as server:
        admin = KafkaAdmin(KafkaConnection(brokers=[server.bootstrap_servers]), client_id="tests")
        assert (await admin.describe_topic("kept")).partitions == 2
        await admin.close()
    assert "formatting Kafka's storage" not in said


@pytest.mark.kafka
def test_a_wrong_broker_property_ends_the_start_with_kafkas_own_words() -> None:
    with pytest.raises(EmbeddedError, match="num\\.network\\.threads"):
        EmbeddedKafka(properties={"num.network.threads": "many"}).start()


class _Repository(BaseHTTPRequestHandler):
    """A Maven repository that breaks off in the middle of every jar until `is_sound`."""

    is_sound = False

    def do_GET(self) -> None:
        body = b"PK" + bytes(100_000)
        self.send_response(404 if self.path.endswith((".sha1", ".md5")) else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.is_sound else body[:5_000])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def repository() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Repository) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_download_that_breaks_off_leaves_nothing_and_the_next_one_is_whole(
    repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    context = MavenContext(
        resolver=jars._AtomicResolver(said.append), repo_cache=tmp_path, remote_repos={"central": repository}
    )
    artifact = context.project("org.example", "thing").at_version("1").artifact()
    with pytest.raises(Exception, match=r"IncompleteRead|Connection broken"):
        artifact.resolve()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert said == []
    monkeypatch.setattr(_Repository, "is_sound", True)
    assert artifact.resolve().stat().st_size == 100_002
    assert said == ["downloading Kafka 4.4.0: 1 files, 0.1 MB"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["thing-1.jar"]


def test_a_repository_that_cannot_be_reached_is_said_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2_REPO", str(tmp_path))
    monkeypatch.setattr(jars, "MAVEN_CENTRAL_URL", "http://127.0.0.1:1")
    with pytest.raises(EmbeddedError, match=r"127\.0\.0\.1:1.*--brokers"):
        jars.resolve_class_path(lambda _text: None)


def test_a_second_process_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    lock = tmp_path / "lock"

    def wait() -> None:
        with jars._one_at_a_time(lock, said.append):
            said.append("mine")

    with jars._one_at_a_time(lock, said.append):
        second = Thread(target=wait)
        second.start()
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        assert said == ["waiting for another process that downloads Kafka 4.4.0"]
    second.join(10)
    assert said[-1] == "mine"
