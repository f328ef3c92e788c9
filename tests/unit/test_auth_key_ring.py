"""API keys in a mounted folder: who is let in, and what a change of the Secret does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gates import GOOD_KEY, OTHER_KEY, build_key_ring, write_keys
from tocsin_core.api_keys import hash_key, parse_entries
from tocsin_ingestion.auth.key_ring import KeyRing
from tocsin_ingestion.problems import AUTH_UNAVAILABLE, UNAUTHENTICATED, Kind, Problem


def encode(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def refusal(ring: KeyRing, authorization: str | None, api_key: str | None = None) -> Problem:
    with pytest.raises(Problem) as caught:
        ring.try_identify(encode(authorization), encode(api_key))
    return caught.value


def find(ring: KeyRing, key: str) -> str | Kind:
    try:
        return ring.try_identify(f"Bearer {key}".encode(), None).name
    except Problem as problem:
        return problem.kind


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [(f"Bearer {GOOD_KEY}", None), (f"bearer {GOOD_KEY}", None), (None, GOOD_KEY)],
)
def test_a_key_is_known_by_its_name(tmp_path: Path, authorization: str | None, api_key: str | None) -> None:
    ring = build_key_ring(tmp_path / "keys")
    caller = ring.try_identify(encode(authorization), encode(api_key))
    assert caller.name == "billing"


@pytest.mark.parametrize(
    ("authorization", "api_key", "words"),
    [
        (None, None, "No credentials"),
        ("", None, "another scheme"),
        (f"Basic {GOOD_KEY}", None, "another scheme"),
        (GOOD_KEY, None, "another scheme"),
        ("Bearer", None, "not a key"),
        ("Bearer hunter2", None, "not a key"),
        (f"Bearer {GOOD_KEY}x", None, "not a key"),
        (f"Bearer {OTHER_KEY}", None, "No such key"),
        (None, OTHER_KEY, "No such key"),
        (f"Bearer {GOOD_KEY}", GOOD_KEY, "sent twice"),
    ],
)
def test_who_is_refused_reads_why_and_what_to_send(
    tmp_path: Path, authorization: str | None, api_key: str | None, words: str
) -> None:
    problem = refusal(build_key_ring(tmp_path / "keys"), authorization, api_key)
    assert problem.kind is UNAUTHENTICATED
    assert words in problem.detail
    assert problem.errors[0].field == "Authorization"
    assert dict(problem.headers)["www-authenticate"].startswith('Bearer realm="tocsin"')
    for secret in (GOOD_KEY, OTHER_KEY, "hunter2"):
        assert secret not in str(problem.build_details())


def test_several_keys_are_good_at_once_and_a_change_is_seen_without_a_restart(tmp_path: Path) -> None:
    ring = build_key_ring(tmp_path / "keys", old=GOOD_KEY)
    assert (find(ring, GOOD_KEY), find(ring, OTHER_KEY)) == ("old", UNAUTHENTICATED)
    write_keys(tmp_path / "keys", new=OTHER_KEY)
    ring.reload()
    assert (find(ring, GOOD_KEY), find(ring, OTHER_KEY)) == ("old", "new")
    (tmp_path / "keys/old").unlink()
    ring.reload()
    assert (find(ring, GOOD_KEY), find(ring, OTHER_KEY)) == (UNAUTHENTICATED, "new")


async def test_keys_are_read_in_a_thread_and_taken_in_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[tuple[str, int]] = []

    def read(path: Path) -> str:
        places.append(("read", threading.get_ident()))
        return path.read_text()

    def parse(texts: dict[str, str]) -> object:
        places.append(("taken", threading.get_ident()))
        return parse_entries(texts)

    ring = build_key_ring(tmp_path / "keys", old=GOOD_KEY)
    monkeypatch.setattr("tocsin_ingestion.auth.key_ring._read", read)
    monkeypatch.setattr("tocsin_ingestion.auth.key_ring.parse_entries", parse)
    write_keys(tmp_path / "keys", new=OTHER_KEY)
    await ring.refresh()
    assert find(ring, OTHER_KEY) == "new"
    here = threading.get_ident()
    assert {what for what, thread in places if thread == here} == {"taken"}
    assert {what for what, thread in places if thread != here} == {"read"}


def test_a_secret_that_kubelet_swaps_is_seen(tmp_path: Path) -> None:
    for generation, key in enumerate((GOOD_KEY, OTHER_KEY)):
        write_keys(tmp_path / f"..{generation}", billing=key)
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "..data").symlink_to(tmp_path / "..0")
    (folder / "billing").symlink_to("..data/billing")
    ring = KeyRing(folder)
    ring.reload()
    assert find(ring, GOOD_KEY) == "billing"
    (folder / "..new").symlink_to(tmp_path / "..1")
    (folder / "..new").rename(folder / "..data")
    ring.reload()
    assert (find(ring, GOOD_KEY), find(ring, OTHER_KEY)) == (UNAUTHENTICATED, "billing")


def test_a_caller_is_welcome_for_as_long_as_the_key_is_there_under_whatever_name(tmp_path: Path) -> None:
    ring = build_key_ring(tmp_path / "keys", old=GOOD_KEY)
    caller = ring.try_identify(encode(f"Bearer {GOOD_KEY}"), None)
    (tmp_path / "keys/old").rename(tmp_path / "keys/new")
    ring.reload()
    assert ring.still_knows(caller)
    write_keys(tmp_path / "keys", new=OTHER_KEY)
    ring.reload()
    assert not ring.still_knows(caller)


def test_keys_that_were_never_read_are_our_fault_and_keep_the_pod_unready(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys")
    ring.reload()
    assert find(ring, GOOD_KEY) is AUTH_UNAVAILABLE
    assert "is the keys' Secret mounted" in ring.check()
    write_keys(tmp_path / "keys", billing=GOOD_KEY)
    ring.reload()
    assert (find(ring, GOOD_KEY), ring.check()) == ("billing", "")


def test_a_secret_without_a_good_entry_keeps_the_pod_unready(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys")
    (tmp_path / "keys/billing").write_text("hunter2")
    ring = KeyRing(tmp_path / "keys")
    ring.reload()
    assert "holds no API key" in ring.check()


def test_a_folder_that_goes_away_keeps_the_last_keys_and_an_owner_who_takes_all_away_means_it(tmp_path: Path) -> None:
    ring = build_key_ring(tmp_path / "keys")
    (tmp_path / "keys").rename(tmp_path / "gone")
    ring.reload()
    assert find(ring, GOOD_KEY) == "billing"
    (tmp_path / "gone/billing").unlink()
    (tmp_path / "gone").rename(tmp_path / "keys")
    ring.reload()
    assert (find(ring, GOOD_KEY), ring.check()) == (UNAUTHENTICATED, "")


def test_a_bad_entry_is_complained_of_by_name_alone_and_the_others_go_on_working(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", billing=GOOD_KEY)
    (tmp_path / "keys/plain").write_text(OTHER_KEY)
    ring = KeyRing(tmp_path / "keys")
    with capture_logs() as logs:
        ring.reload()
        ring.reload()
    assert (find(ring, GOOD_KEY), find(ring, OTHER_KEY)) == ("billing", UNAUTHENTICATED)
    (complaint,) = [each for each in logs if each["log_level"] == "error"]
    assert complaint["key"] == "plain"
    assert OTHER_KEY not in str(logs)
    assert hash_key(OTHER_KEY) not in str(logs)
