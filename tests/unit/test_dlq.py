"""`tocsin dlq` without Kafka: what a letter says, which are chosen, which are refused, and how they look."""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
import yaml

from documentation import ROOT
from pipelines import build_stored
from tocsin_cli.__main__ import main
from tocsin_cli.dlq import command, listing, settling
from tocsin_cli.dlq.choice import Choice, build_choice, parse_moment
from tocsin_cli.dlq.decision import build_replay_headers, decide_refusal
from tocsin_cli.dlq.journal import Journal
from tocsin_cli.dlq.letter import Letter, Position, read_letter
from tocsin_cli.dlq.listing import Row, Summary, choose_rows
from tocsin_cli.dlq.place import Place, find_place
from tocsin_cli.dlq.settlement import Marker, Settled, Settlement, build_marker, read_marker
from tocsin_cli.dlq.settling import Act, Settling
from tocsin_cli.dlq.showing import format_letter, format_value
from tocsin_cli.dlq.table import cut, format_table
from tocsin_consumer.dead_letters import Burial, build_headers
from tocsin_core.codec import encode, make_traceparent
from tocsin_core.errors import KafkaUnavailable
from tocsin_core.message import Notification, Record
from tocsin_operator.children.config import build_service_config
from tocsin_operator.model import parse_pipeline

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
Headers = tuple[tuple[str, bytes | None], ...]


def build_record(
    value: bytes | None = b"{}", headers: Headers = (), *, offset: int = 5, key: bytes | None = b"2"
) -> Record:
    return Record("orders.dlq", 1, offset, int(NOW.timestamp() * 1000), key, value, headers)


def build_letter(
    *,
    original: Headers = (),
    value: bytes | None = b"{}",
    topic: str = "orders",
    reason: str = "retries_exhausted",
    channel: str = "push",
    replays: int = 0,
    offset: int = 5,
    died_at: datetime = NOW,
) -> Letter:
    headers = (*original, ("dlq-replay-count", b"%d" % replays)) if replays else original
    died = Record(topic, 0, 7, 0, b"2", value, headers)
    burial = Burial(
        reason=reason,
        error_class="TemporaryFailure",
        error_message="HTTP 503",
        channel=channel,
        attempts=5,
        first_failed_at=NOW,
        last_failed_at=NOW,
    )
    record = build_record(value, (*headers, *build_headers(died, burial, group="g")), offset=offset)
    return read_letter(record._replace(timestamp_ms=int(died_at.timestamp() * 1000)))


def build_notification(*, accepted_at: datetime, expires_at: datetime | None = None) -> Letter:
    notification = Notification(id="n1", from_id="1", to_id="2", message="hi", expires_at=expires_at)
    encoded = encode(notification, source="/pipelines/a/b", traceparent=make_traceparent(), accepted_at=accepted_at)
    return build_letter(original=tuple(encoded.headers), value=encoded.value)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def refuse(letter: Letter, *, ttl_seconds: int | None = 3600) -> str | None:
    return decide_refusal(letter, topic="orders", max_replays=3, ttl_seconds=ttl_seconds, now=NOW)


def test_a_letter_says_what_the_consumers_wrote() -> None:
    letter = build_letter(original=(("ce_id", b"n1"),), replays=2)
    assert (letter.position, letter.topic, letter.origin, letter.group) == (Position(1, 5), "orders", "0:7", "g")
    assert (letter.reason, letter.channel, letter.attempts, letter.replay_count) == ("retries_exhausted", "push", 5, 2)
    assert (letter.notification_id, letter.key, letter.died_at) == ("n1", "2", NOW)


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[" * 5000, b'{"id": 5}', b"[]"])
def test_a_strangers_record_is_a_letter_with_empty_fields(value: bytes | None) -> None:
    headers: Headers = (("dlq-attempts", b"many"), ("dlq-replay-count", b"-1"), ("ce_id", None))
    letter = read_letter(build_record(value, headers, key=None)._replace(timestamp_ms=10**18))
    assert (letter.topic, letter.reason, letter.attempts, letter.replay_count) == ("", "", 0, 0)
    assert (letter.notification_id, letter.key) == ("", None)
    assert letter.died_at.year == 1970


def test_the_id_is_found_in_the_value_where_no_header_tells_it() -> None:
    assert build_letter(value=b'{"id": "from-value"}').notification_id == "from-value"


@pytest.mark.parametrize(
    ("words", "is_chosen"),
    [
        ((), True),
        (("--reason", "retries_exhausted"), True),
        (("--reason", "undecodable"), False),
        (("--reason", "undecodable", "--reason", "retries_exhausted"), True),
        (("--channel", "push", "--key", "2"), True),
        (("--channel", "push", "--key", "3"), False),
        (("--id", "n1"), True),
        (("--since", "2026-05-01T12:00Z"), True),
        (("--since", "2026-05-01T12:01"), False),
        (("--until", "2026-05-01T12:00Z"), False),
        (("--until", "2026-05-01T14:01+02:00"), True),
    ],
)
def test_a_letter_is_chosen_if_it_passes_every_filter(words: tuple[str, ...], is_chosen: bool) -> None:
    choice = build_choice(parse("list", *words))
    assert choice.matches(build_letter(original=(("ce_id", b"n1"),))) is is_chosen


def test_a_moment_may_be_so_long_ago() -> None:
    assert parse_moment("90s", now=NOW) == NOW - timedelta(seconds=90)
    assert parse_moment("7d", now=NOW) == NOW - timedelta(days=7)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["list", "--since", "soon"], "like 90s, 30m, 12h or 7d"),
        (["list", "--limit", "0"], "from 1 to 10000"),
        (["show", "17"], "PARTITION:OFFSET"),
        (["replay", "--rate", "0"], "must be a number above 0"),
        (["replay", "--rate", "fast"], "at most 100000, not 'fast'"),
        (["replay", "--max-replays", "0"], "from 1"),
    ],
)
def test_a_wrong_flag_says_what_to_write(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["dlq", *words])
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("word", ["replay", "discard"])
@pytest.mark.parametrize("words", [(), ("--all", "0:1"), ("--all", "--key", "2")])
def test_nothing_is_done_to_letters_that_were_not_chosen(
    word: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dlq", word, "--brokers", "127.0.0.1:1", "--topic", "orders", *words]) == 2
    assert "which dead letters?" in capsys.readouterr().err


def test_a_pipeline_that_is_not_named_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlq", "list"]) == 2
    assert "-f FILE, or give --brokers and --topic" in capsys.readouterr().err


def test_brokers_that_are_missing_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlq", "list", "--topic", "orders"]) == 2
    assert "kafka.brokers: required" in capsys.readouterr().err


def test_a_broker_that_is_not_there_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlq", "list", "--brokers", "127.0.0.1:1", "--topic", "orders"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tocsin dlq: orders.dlq: ")
    assert "check kafka.brokers" in error
    assert error.count("\n") == 1


def read_place(*words: str) -> Place:
    return find_place(parse("list", *words))


def test_a_resource_from_a_cluster_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_KAFKA__USERNAME", "ada")
    monkeypatch.setenv("TOCSIN_KAFKA__PASSWORD", "secret")
    text = (
        "apiVersion: tocsin.dev/v1alpha1\n"
        "kind: NotificationPipeline\n"
        "metadata: {name: orders, namespace: shop, uid: u, resourceVersion: '7', managedFields: [{manager: kubectl}]}\n"
        "spec:\n"
        "  kafka:\n"
        "    bootstrapServers: ['kafka:9092']\n"
        "    securityProtocol: SASL_PLAINTEXT\n"
        "    credentialsSecretRef: {name: kafka}\n"
        "    topic: {name: orders}\n"
        "    producerReturnSuccesses: false\n"
        "  users: {configMapRef: {name: users}}\n"
        "  consumer: {channels: [{name: log, type: Log}]}\n"
        "  delivery: {deadLetterTopic: graveyard, ttlSeconds: 60}\n"
        "status: {conditions: []}\n"
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    place = read_place("-f", "-")
    assert (place.topic, place.dead_letter_topic, place.ttl_seconds) == ("orders", "graveyard", 60)
    assert (place.kafka.brokers, place.kafka.username) == (["kafka:9092"], "ada")
    assert place.kafka.producer_return_successes


def test_in_a_pod_the_variables_of_the_page_name_the_mounted_certificates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changes = {"spec.kafka.securityProtocol": "SSL", "spec.kafka.tlsSecretRef": {"name": "kafka-tls"}}
    body = build_stored(changes)
    path = tmp_path / "orders.yaml"
    path.write_text(yaml.safe_dump(body))
    page = (ROOT / "docs" / "dead-letters.md").read_text(encoding="utf-8")
    for name in ("ca", "cert", "key"):
        mounted = build_service_config(parse_pipeline(body))["kafka"]["tls"][f"{name}_file"]
        monkeypatch.setenv(f"TOCSIN_KAFKA__TLS__{name.upper()}_FILE", mounted)
        assert f"TOCSIN_KAFKA__TLS__{name.upper()}_FILE" in page
        assert Path(mounted).name in page
    tls = read_place("-f", str(path)).kafka.tls
    assert f"TOCSIN_KAFKA__TLS__CA_FILE={tls.ca_file} " in page
    assert (tls.cert_file, tls.key_file) == (
        Path("/etc/tocsin/kafka-tls/tls.crt"),
        Path("/etc/tocsin/kafka-tls/tls.key"),
    )


def test_flags_win_over_the_environment_and_the_environment_over_the_resource(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOCSIN_KAFKA__BROKERS", "environment:9092")
    path = tmp_path / "orders.yaml"
    path.write_text(
        "apiVersion: tocsin.dev/v1alpha1\nkind: NotificationPipeline\nmetadata: {name: orders}\n"
        "spec: {kafka: {bootstrapServers: ['resource:9092'], topic: {name: orders}}, "
        "users: {configMapRef: {name: users}}, consumer: {channels: [{name: log, type: Log}]}}\n"
    )
    assert read_place("-f", str(path)).kafka.brokers == ["environment:9092"]
    assert read_place("-f", str(path), "--brokers", "flag:9092").kafka.brokers == ["flag:9092"]
    monkeypatch.delenv("TOCSIN_KAFKA__BROKERS")
    assert read_place("-f", str(path)).kafka.brokers == ["resource:9092"]
    assert read_place("-f", str(path)).dead_letter_topic == "orders.dlq"


def test_a_letter_may_be_replayed() -> None:
    assert refuse(build_letter()) is None
    assert refuse(build_letter(topic="orders.retry.10s")) is None
    assert refuse(build_letter(value=b"\xff", reason="undecodable", channel="")) is None
    assert refuse(build_notification(accepted_at=NOW - timedelta(seconds=3599))) is None


@pytest.mark.parametrize(
    ("letter", "reason"),
    [
        (build_letter(replays=3), "replayed 3 times already"),
        (build_letter(topic="invoices"), "came from topic invoices, not from orders"),
        (read_letter(build_record()), "not a dead letter of Tocsin's"),
        (build_notification(accepted_at=NOW - timedelta(seconds=3600)), "expired at 2026-05-01T12:00:00+00:00"),
        (build_notification(accepted_at=NOW, expires_at=NOW - timedelta(seconds=1)), "expired at 2026-05-01T11:59:59"),
    ],
)
def test_a_letter_is_refused_with_the_reason(letter: Letter, reason: str) -> None:
    assert reason in (refuse(letter) or "")


def test_a_letter_without_its_value_is_shown_as_one_and_not_replayed() -> None:
    letter = build_letter(original=(("dlq-value-omitted", b"1100000"),), value=b"")
    assert letter.omitted_bytes == 1_100_000
    assert refuse(letter) == (
        "its value of 1,100,000 bytes is not here, because the dead-letter topic did not take it: "
        "the original stands at 0:7 of orders, while that topic keeps it"
    )
    assert list(format_letter(letter, None))[-1] == "value     1,100,000 bytes that the dead-letter topic did not take"


def test_a_header_that_a_producer_has_written_takes_no_value_away() -> None:
    assert refuse(build_letter(original=(("dlq-value-omitted", b"9"),), value=b"whole")) is None


def test_without_the_pipelines_ttl_only_a_notifications_own_expiry_counts() -> None:
    assert refuse(build_notification(accepted_at=NOW - timedelta(days=9)), ttl_seconds=None) is None


def test_a_replay_has_the_original_headers_in_their_order_and_one_count_and_channel() -> None:
    original: Headers = (("b", b"\xff"), ("a", None), ("b", b"2"))
    assert build_replay_headers(build_letter(original=original)) == [
        *original,
        ("dlq-replay-count", b"1"),
        ("replay-channel", b"push"),
    ]


def test_a_second_replay_counts_on_and_names_the_channel_it_died_on_last() -> None:
    first = build_replay_headers(build_letter(original=(("a", b"1"),)))
    again = build_letter(original=tuple(first), channel="mail")
    assert build_replay_headers(again) == [("a", b"1"), ("dlq-replay-count", b"2"), ("replay-channel", b"mail")]


def test_a_marker_settles_its_position() -> None:
    marker = build_record(b"", tuple(build_marker(Position(1, 5), Settlement.REPLAYED, now=NOW)))
    assert read_marker(marker) == Marker(Settlement.REPLAYED, Position(1, 5))


@pytest.mark.parametrize(
    "record",
    [
        build_record(b"", (("dlq-settled", b"replayed"),)),
        build_record(b"", (("dlq-settled", b"eaten"), ("dlq-settles", b"1:5"))),
        build_record(b"", (("dlq-settled", b"replayed"), ("dlq-settles", b"1:-5"))),
        build_record(b"x", (("dlq-settled", b"replayed"), ("dlq-settles", b"1:5"))),
        build_letter(original=(("dlq-settled", b"replayed"), ("dlq-settles", b"1:5")), value=b"").record,
    ],
)
def test_anything_else_is_no_marker(record: Record) -> None:
    assert read_marker(record) is None


def test_what_is_settled_is_known_by_position_and_how() -> None:
    settled = Settled({0: 1000, 1: 0})
    for offset in (1000, 1009, 5000):
        settled.add(Marker(Settlement.REPLAYED, Position(0, offset)), end=6000)
    settled.add(Marker(Settlement.DISCARDED, Position(1, 3)), end=10)
    found = [offset for offset in range(990, 6000) if settled.find(Position(0, offset))]
    assert found == [1000, 1009, 5000]
    assert settled.find(Position(1, 3)) is Settlement.DISCARDED
    assert settled.find(Position(7, 3)) is None


def test_a_marker_about_what_is_not_there_costs_nothing() -> None:
    settled = Settled({0: 1000})
    for partition, offset in ((0, 999), (0, 6000), (0, 10**17), (4, 1)):
        settled.add(Marker(Settlement.REPLAYED, Position(partition, offset)), end=6000)
        assert settled.find(Position(partition, offset)) is None


@pytest.mark.parametrize(("is_oldest", "offsets"), [(False, [9, 8, 7]), (True, [0, 1, 2])])
async def test_the_rows_are_the_newest_or_the_oldest(is_oldest: bool, offsets: list[int]) -> None:
    async def rows() -> AsyncIterator[Row]:
        for offset in range(10):
            yield Row(build_letter(offset=offset, died_at=NOW + timedelta(seconds=offset // 2)), None)

    shown = await choose_rows(rows(), 3, is_oldest=is_oldest)
    assert [row.letter.position.offset for row in shown] == offsets


def test_the_table_fits_its_columns_and_says_where_something_is_missing() -> None:
    rows = [("0:7", "1", "short"), ("0:12", "30", "e" * 40)]
    assert format_table(("AT", "TRIES", "ERROR"), rows, columns=20, right_aligned=("TRIES",)) == [
        "AT    TRIES  ERROR",
        "0:7       1  short",
        "0:12     30  eeeeee…",
    ]


def test_letters_that_take_two_columns_and_marks_that_take_none_stay_in_line() -> None:
    lines = format_table(("KEY", "ERROR"), [("日本", "a"), ("e\u0301", "b"), ("four", "c")], columns=80)
    assert lines == ["KEY   ERROR", "日本  a", "e\u0301     b", "four  c"]
    assert [cut("日本語", columns) for columns in (6, 5, 4, 1)] == ["日本語", "日本…", "日…", "…"]


def test_a_senders_long_key_leaves_room_for_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    letter = read_letter(build_letter().record._replace(key=b"k" * 5000))
    listing._print_table([Row(letter, None)])
    head, line = capsys.readouterr().out.splitlines()
    assert head.startswith("POSITION  DIED AT (UTC)")
    assert f" {'k' * 39}… " in line
    assert line.endswith("HTTP 503")


def test_the_summary_counts_by_cause_and_what_is_settled_apart() -> None:
    summary = Summary()
    for letter, settlement in [
        (build_letter(), None),
        (build_letter(), None),
        (build_letter(reason="undecodable", channel=""), None),
        (build_letter(), Settlement.REPLAYED),
    ]:
        summary.note(Row(letter, settlement))
    assert summary.format().splitlines() == [
        "3 dead letters (1 replayed before)",
        "        2  retries_exhausted on push",
        "        1  undecodable on -",
    ]


def test_nothing_in_a_letter_can_drive_the_terminal() -> None:
    evil = b"\x1b[2J\r\n\x07"
    letter = build_letter(original=(("x\x1b", evil), ("ce_id", evil)), value=b'"\\u001b[2J"', channel="\x1b[0m")
    assert all(line.isprintable() for line in format_letter(letter, None))


def test_json_is_shown_indented_and_anything_else_as_bytes() -> None:
    assert list(format_value(b'{"a": [1, "\xc3\xbc"]}')) == [
        "value     16 bytes of JSON",
        "{",
        '  "a": [',
        "    1,",
        '    "ü"',
        "  ]",
        "}",
    ]
    assert list(format_value(b"\x00hi"))[1] == f"  000000  {'00 68 69':<48} .hi"
    assert list(format_value(b"\xff" * 5000))[-1] == "  … 904 bytes more"
    assert list(format_value(None)) == ["value     null"]


def test_choosing_nothing_is_choosing_everything() -> None:
    assert build_choice(parse("replay")).is_everything
    assert build_choice(parse("replay", "1:7", "0:2", "1:7")) == Choice(positions=(Position(0, 2), Position(1, 7)))


class StubJournal:
    """Letters without Kafka; after the last one the search goes on for ever, as in a topic of millions."""

    def __init__(self, *letters: Letter) -> None:
        self._letters = letters

    async def choose(self, _: Choice) -> AsyncIterator[Letter]:
        for letter in self._letters:
            yield letter
        await asyncio.Event().wait()


def build_settling(act: Act, *letters: Letter) -> Settling:
    return Settling(cast("Journal", StubJournal(*letters)), Settled({}), refuse=lambda _: None, act=act)


async def test_an_interrupted_search_ends_at_once_and_what_has_begun_is_finished() -> None:
    finished = []

    async def act(letter: Letter) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.01)
        finished.append(letter)

    before = signal.getsignal(signal.SIGINT)
    outcome = await build_settling(act, build_letter()).run(Choice())
    assert (len(finished), outcome.done, outcome.exit_code) == (1, 1, 130)
    assert outcome.format("replayed").startswith("replayed 1\nstopped after 1:5: interrupted")
    assert signal.getsignal(signal.SIGINT) is before


async def test_a_failure_of_kafka_ends_it_and_names_the_letter() -> None:
    async def act(_: Letter) -> None:
        raise KafkaUnavailable("nobody answers", advice="check the brokers")

    outcome = await build_settling(act, build_letter()).run(Choice())
    assert (outcome.done, outcome.exit_code) == (0, 1)
    assert outcome.format("replayed") == "replayed 0\nstopped before the first: 1:5: nobody answers (check the brokers)"


async def test_what_watches_can_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "WATCH_SECONDS", 0.0)

    async def act(_: Letter) -> None:
        pytest.fail("nothing may begin once the watch has said no")

    async def watch() -> str:
        return "the topic grows"

    outcome = await build_settling(act, build_letter()).run(Choice(), watch=watch)
    assert (outcome.stopped, outcome.exit_code) == ("the topic grows", 1)
