"""The user directory: what it reads, what it refuses, and what it does while the file is broken."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tocsin_core.users import DirectoryError, DirectoryUnavailable, FileUserDirectory, Profile, parse_users


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    path.unlink()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    path = tmp_path / "users.yaml"
    path.write_text('"2": {name: Ada, email: ada@example.org, locale: en}\n', encoding="utf-8")
    return path


def test_an_integer_key_is_the_same_user_as_its_text() -> None:
    assert parse_users("2: {name: Ada}") == {"2": Profile(id="2", name="Ada")}


@pytest.mark.parametrize("key", ["010", "1_000", "no", "0x1F", "2026-11-23", "1e3", "~"])
def test_a_key_that_yaml_would_reinterpret_stays_the_text_that_was_written(key: str) -> None:
    assert list(parse_users(f"{key}: {{name: Ada}}")) == [key]


def test_a_profile_without_fields_is_a_user() -> None:
    assert parse_users("7:\n8: null\n") == {"7": Profile(id="7"), "8": Profile(id="8")}


def test_devices_are_kept_as_written() -> None:
    users = parse_users("2: {devices: [{type: fcm, token: abc}]}")
    assert users["2"].devices == ({"type": "fcm", "token": "abc"},)


def test_a_field_left_empty_is_a_field_left_out() -> None:
    assert parse_users('2: {name: Ada, email: "", locale: null}')["2"] == Profile(id="2", name="Ada")


def test_a_field_nobody_asked_for_is_ignored() -> None:
    assert parse_users("2: {name: Ada, team: blue}")["2"] == Profile(id="2", name="Ada")


def test_an_id_field_inside_a_profile_does_not_rename_the_user() -> None:
    assert parse_users('2: {id: "3"}')["2"].id == "2"


def test_an_empty_file_has_no_users() -> None:
    assert parse_users("") == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("2: [", "not YAML"),
        ("- 2", "not a mapping of ids"),
        ("2: Ada", "user '2': a profile is a mapping"),
        ("2: {name: [Ada]}", "user '2'.*name"),
        ("2: {devices: phone}", "user '2'.*devices"),
        ("? [1, 2]\n: {name: Ada}", "not YAML|an id must be a text"),
        ("[" * 5000, "nested too deeply|not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(DirectoryError, match=complaint):
        parse_users(text)


async def test_a_known_user_is_found_and_an_unknown_one_is_none(users_file: Path) -> None:
    directory = FileUserDirectory(users_file)
    assert await directory.find("2") == Profile(id="2", name="Ada", email="ada@example.org", locale="en")
    assert await directory.find("3") is None


async def test_a_changed_file_is_read_again_once_the_interval_is_over(users_file: Path, clock: Clock) -> None:
    directory = FileUserDirectory(users_file, check_interval_seconds=1, clock=clock)
    assert await directory.find("3") is None
    write(users_file, "2: {name: Ada}\n3: {name: Grace}\n")
    assert await directory.find("3") is None
    clock.now = 1.0
    assert await directory.find("3") == Profile(id="3", name="Grace")


async def test_a_file_replaced_through_a_symlink_is_read_again(tmp_path: Path, clock: Clock) -> None:
    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "users.yaml"
    write(old, "1: {name: Ada}")
    write(new, "1: {name: Eve}")
    link.symlink_to(old)
    directory = FileUserDirectory(link, clock=clock)
    assert await directory.find("1") == Profile(id="1", name="Ada")
    (tmp_path / "swap").symlink_to(new)
    (tmp_path / "swap").replace(link)
    clock.now = 1.0
    assert await directory.find("1") == Profile(id="1", name="Eve")


@pytest.mark.parametrize("damage", ["2: [", "- 2", ""])
async def test_a_broken_edit_keeps_the_last_good_users(users_file: Path, clock: Clock, damage: str) -> None:
    directory = FileUserDirectory(users_file, clock=clock)
    assert await directory.find("2")
    if damage:
        write(users_file, damage)
    else:
        remove(users_file)
    clock.now = 1.0
    assert await directory.find("2")


async def test_a_file_that_was_never_readable_makes_the_directory_unavailable(tmp_path: Path) -> None:
    directory = FileUserDirectory(tmp_path / "users.yaml")
    with pytest.raises(DirectoryUnavailable, match="is the users ConfigMap mounted"):
        await directory.find("2")


async def test_a_directory_recovers_when_its_file_appears(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "users.yaml"
    directory = FileUserDirectory(path, clock=clock)
    with pytest.raises(DirectoryUnavailable):
        await directory.find("2")
    write(path, "2: {name: Ada}")
    clock.now = 1.0
    assert await directory.find("2") == Profile(id="2", name="Ada")


async def test_only_a_user_of_a_file_just_looked_at_is_known_at_once(users_file: Path, clock: Clock) -> None:
    directory = FileUserDirectory(users_file, check_interval_seconds=1, clock=clock)
    assert not directory.knows_all(["2"])  # nothing was read yet
    await directory.find("2")
    assert directory.knows_all(["2"])
    assert not directory.knows_all(["3"])
    assert not directory.knows_all(["2", "3"])
    clock.now += 2.0
    assert not directory.knows_all(["2"])  # nobody has looked for two intervals


async def test_a_look_that_is_due_begins_with_the_first_question_and_holds_nobody_up(
    users_file: Path, clock: Clock
) -> None:
    directory = FileUserDirectory(users_file, check_interval_seconds=1, clock=clock)
    await directory.find("2")
    write(users_file, "3: {name: Grace}")
    clock.now += 1.0
    assert all(directory.knows_all(["2"]) for _ in range(3))
    await directory.close()  # until that look has ended
    assert directory.knows_all(["3"])
    assert not directory.knows_all(["2"])


async def test_while_the_file_is_being_looked_at_again_its_users_stay_known_at_once(
    users_file: Path, clock: Clock
) -> None:
    directory = FileUserDirectory(users_file, check_interval_seconds=1, clock=clock)
    await directory.find("2")
    clock.now += 1.0
    looking = asyncio.create_task(directory.find("2"))
    await asyncio.sleep(0)
    assert directory.knows_all(["2"])
    await looking
