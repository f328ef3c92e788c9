"""Workers survive whatever a look at a pipeline does."""

from __future__ import annotations

import asyncio

import pytest

from tocsin_core.errors import SettingsError, TocsinError
from tocsin_operator.errors import (
    AccessForbidden,
    APIUnavailable,
    KubernetesFailure,
    ObjectMissing,
    ObjectRefused,
    WriteConflict,
    translate_status,
)
from tocsin_operator.queue import KeyQueue
from tocsin_operator.settings import OperatorSettings, load_settings
from tocsin_operator.workers import look_once, run_workers


@pytest.mark.parametrize(("error", "outcome"), [(TocsinError("x"), "retried"), (RuntimeError("bug"), "failed")])
async def test_a_failed_look_gives_the_key_back_for_later(error: Exception, outcome: str) -> None:
    queue = KeyQueue(asyncio.get_running_loop().time, first_retry_seconds=60)
    queue.add("a")
    assert queue.take() == "a"

    async def look(_: str) -> float | None:
        raise error

    assert await look_once(queue, look, "a") == outcome
    assert queue.take() is None
    assert len(queue) == 1


@pytest.mark.parametrize(("again", "outcome", "left"), [(30.0, "done", 1), (None, "gone", 0)])
async def test_a_look_says_when_the_next_one_is_due(again: float | None, outcome: str, left: int) -> None:
    queue = KeyQueue(asyncio.get_running_loop().time)
    queue.add("a")
    queue.take()

    async def look(_: str) -> float | None:
        return again

    assert await look_once(queue, look, "a") == outcome
    assert len(queue) == left


async def test_one_pipeline_that_hangs_does_not_hold_up_another() -> None:
    queue = KeyQueue(asyncio.get_running_loop().time)
    seen = asyncio.Event()

    async def look(key: str) -> float | None:
        if key == "stuck":
            await asyncio.Event().wait()
        seen.set()
        return None

    workers = asyncio.create_task(run_workers(queue, look, count=2))
    queue.add("stuck")
    queue.add("fine")
    await asyncio.wait_for(seen.wait(), 5)
    workers.cancel()
    with pytest.raises(asyncio.CancelledError):
        await workers


@pytest.mark.parametrize(
    ("status", "kind", "is_retriable"),
    [
        (404, ObjectMissing, False),
        (403, AccessForbidden, False),
        (409, WriteConflict, True),
        (422, ObjectRefused, False),
        (429, APIUnavailable, True),
        (503, APIUnavailable, True),
        (0, APIUnavailable, True),
        (418, KubernetesFailure, False),
    ],
)
def test_what_the_api_server_answers_becomes_an_error_that_says_whether_to_repeat(
    status: int, kind: type[KubernetesFailure], is_retriable: bool
) -> None:
    error = translate_status(status, "m")
    assert type(error) is kind
    assert error.retriable is is_retriable


def test_the_operator_watches_every_namespace_unless_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOCSIN_OPERATOR_WATCH_NAMESPACES", raising=False)
    assert load_settings().watch_namespaces == []
    monkeypatch.setenv("TOCSIN_OPERATOR_WATCH_NAMESPACES", "a, b")
    assert load_settings().watch_namespaces == ["a", "b"]
    monkeypatch.setenv("TOCSIN_OPERATOR_WATCH_NAMESPACES", "")
    assert load_settings().watch_namespaces == []


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_OPERATOR_WORKERS", "many")
    with pytest.raises(SettingsError, match="TOCSIN_OPERATOR_WORKERS"):
        load_settings()


def test_two_processes_on_one_host_never_share_an_identity() -> None:
    assert OperatorSettings().identity != OperatorSettings().identity
