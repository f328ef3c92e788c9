from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tocsin_core.errors import SettingsError
from tocsin_core.logging import MEGABYTE, configure_logging, get_logger
from tocsin_core.settings import LogSettings


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Whatever a test configures is gone after it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def log_to(path: Path, **changes: Any) -> Path:
    configure_logging(LogSettings(file=path, **changes), service="consumer")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_of_the_journey_is_one_json_object_with_all_its_keys(tmp_path: Path) -> None:
    path = log_to(tmp_path / "log")
    get_logger("tocsin_consumer.engine").info(
        "notification delivered", trace_id="4bf9", partition=3, offset=17, topic="orders", channel="push"
    )
    (line,) = read_lines(path)
    timestamp = line.pop("timestamp")
    assert timestamp.endswith("Z")
    assert timestamp[10] == "T"
    assert line == {
        "level": "info",
        "event": "notification delivered",
        "logger": "tocsin_consumer.engine",
        "service": "consumer",
        "trace_id": "4bf9",
        "partition": 3,
        "offset": 17,
        "topic": "orders",
        "channel": "push",
    }


def test_libraries_speak_through_the_same_renderer_and_may_carry_the_journey(tmp_path: Path) -> None:
    path = log_to(tmp_path / "log")
    logging.getLogger("uvicorn.error").warning("listening on %s", "8080", extra={"trace_id": "4bf9", "other": 1})
    (line,) = read_lines(path)
    assert (line["event"], line["logger"], line["level"]) == ("listening on 8080", "uvicorn.error", "warning")
    assert (line["service"], line["trace_id"]) == ("consumer", "4bf9")
    assert "other" not in line


def test_bound_context_is_on_every_line(tmp_path: Path) -> None:
    path = log_to(tmp_path / "log")
    with structlog.contextvars.bound_contextvars(trace_id="4bf9", partition=1):
        get_logger("a").info("one")
        logging.getLogger("b").warning("two")
    assert [(line["trace_id"], line["partition"]) for line in read_lines(path)] == [("4bf9", 1), ("4bf9", 1)]


def test_an_exception_is_text_on_the_same_line_and_shows_no_local_variables(tmp_path: Path) -> None:
    path = log_to(tmp_path / "log")
    hidden = "hunter2"
    try:
        int(f"{len(hidden)} characters")
    except ValueError:
        get_logger("a").exception("it broke")
    (line,) = read_lines(path)
    assert "'7 characters'" in line["exception"]
    assert "hunter2" not in path.read_text()


def test_secrets_do_not_reach_a_line(tmp_path: Path) -> None:
    path = log_to(tmp_path / "log")
    get_logger("a").info("connecting", password="hunter2", url="redis://me:hunter3@store:6379/0", token="hunter4")
    logging.getLogger("b").warning("no answer from https://me:hunter5@example.org/x")
    text = path.read_text()
    assert "hunter" not in text
    assert "redis://***@store:6379/0" in text
    assert "https://***@example.org/x" in text


def test_an_address_without_credentials_stays_as_it_is(tmp_path: Path) -> None:
    path = log_to(tmp_path / "log")
    get_logger("a").info("posting", url="https://example.org/hook", mail="ada@example.org")
    (line,) = read_lines(path)
    assert (line["url"], line["mail"]) == ("https://example.org/hook", "ada@example.org")


def test_levels_below_the_one_set_are_not_written(tmp_path: Path) -> None:
    path = log_to(tmp_path / "log", level="warning")
    get_logger("a").info("quiet")
    logging.getLogger("b").info("quiet")
    get_logger("a").warning("loud")
    assert [line["event"] for line in read_lines(path)] == ["loud"]


@pytest.mark.parametrize("value", [object(), {1: 2}, b"\xff", {"a", "b"}, ValueError("x"), "\ud800", 2**70])
def test_any_value_can_be_logged(tmp_path: Path, value: object) -> None:
    path = log_to(tmp_path / "log")
    get_logger("a").info("odd", value=value)
    (line,) = read_lines(path)
    assert line["logger"] in {"a", "'a'"}


def test_text_stays_readable_and_newlines_do_not_break_the_line(tmp_path: Path) -> None:
    path = log_to(tmp_path / "log")
    get_logger("a").info("notification", message="Привет\n世界 🎉")
    assert "Привет\\n世界 🎉" in path.read_text(encoding="utf-8")
    assert len(read_lines(path)) == 1


def fill(path: Path, **changes: Any) -> list[str]:
    """Write three and a half files' worth and return the names of the files there are."""
    log_to(path, rotation_size=1, **changes)
    logger = get_logger("a")
    for number in range(35):
        logger.info("x" * (MEGABYTE // 10), number=number)
    return sorted(each.name for each in path.parent.iterdir())


def test_a_file_rotates_by_size_and_keeps_as_many_old_ones_as_told(tmp_path: Path) -> None:
    path = tmp_path / "tocsin.log"
    assert fill(path, rotation_count=2) == ["tocsin.log", "tocsin.log.1", "tocsin.log.2"]
    assert all(each.stat().st_size <= MEGABYTE for each in tmp_path.iterdir())
    assert read_lines(path)[-1]["number"] == 34
    assert read_lines(tmp_path / "tocsin.log.1")[-1]["number"] == read_lines(path)[0]["number"] - 1


def test_no_old_files_means_starting_over_and_not_growing_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "tocsin.log"
    assert fill(path, rotation_count=0) == ["tocsin.log"]
    assert path.stat().st_size <= MEGABYTE
    assert read_lines(path)[-1]["number"] == 34


def test_without_a_file_lines_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(), service="ingestion")
    get_logger("a").info("hello")
    assert json.loads(capsys.readouterr().out)["service"] == "ingestion"


def test_a_file_that_cannot_be_opened_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"log\.file .*nowhere.*: No such file or directory"):
        configure_logging(LogSettings(file=tmp_path / "nowhere" / "log"), service="consumer")


def test_configuring_again_replaces_what_was_there(tmp_path: Path) -> None:
    first, second = log_to(tmp_path / "first"), log_to(tmp_path / "second")
    get_logger("a").info("once")
    assert first.read_text() == ""
    assert len(read_lines(second)) == 1


class Pipe(io.RawIOBase):
    """Standard output's file, which remembers each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.writes.append(bytes(data))
        return len(data)


def log_to_pipe(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    pipe = Pipe()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(pipe)))
    configure_logging(LogSettings(), service="consumer")
    return pipe.writes


async def test_what_one_turn_of_the_event_loop_says_is_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = log_to_pipe(monkeypatch)
    for _ in range(3):
        get_logger("a").info("one")
    assert not writes
    await asyncio.sleep(0)
    assert [each.count(b"\n") for each in writes] == [3]


async def test_a_later_turn_is_written_too(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = log_to_pipe(monkeypatch)
    for _ in range(2):
        get_logger("a").info("one")
        await asyncio.sleep(0)
    assert len(writes) == 2


async def test_a_warning_is_written_at_once_with_what_came_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = log_to_pipe(monkeypatch)
    get_logger("a").info("one")
    get_logger("a").warning("two")
    assert [each.count(b"\n") for each in writes] == [2]
    logging.getLogger("b").warning("a library's")
    assert len(writes) == 2


async def test_a_thread_without_an_event_loop_writes_each_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = log_to_pipe(monkeypatch)
    await asyncio.to_thread(get_logger("a").info, "one")
    assert len(writes) == 1


async def test_standard_output_that_is_gone_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to_pipe(monkeypatch)
    monkeypatch.setattr(Pipe, "write", lambda *_: 1 / 0)
    get_logger("a").info("one")
    await asyncio.sleep(0)
    assert "ZeroDivisionError" in capsys.readouterr().err
