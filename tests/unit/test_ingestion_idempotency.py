from __future__ import annotations

import uuid
from typing import Any

import pytest

from tocsin_ingestion.draft import Draft
from tocsin_ingestion.idempotency import KeyTable, fingerprint
from tocsin_ingestion.identity import make_id, read_key
from tocsin_ingestion.problems import Problem

MARK, OTHER = b"mark", b"other"


def status_of_claim(table: KeyTable, mark: bytes = MARK, *, now: float = 0.0) -> int:
    with pytest.raises(Problem) as caught:
        table.claim("id", mark, now=now)
    return caught.value.kind.status


def settled(*, is_stored: bool = True, **options: Any) -> KeyTable:
    table = KeyTable(**options)
    assert table.claim("id", MARK, now=0.0)
    table.settle("id", is_stored=is_stored, now=0.0)
    return table


def test_without_a_key_ids_are_uuid7_in_order() -> None:
    ids = [make_id("t") for _ in range(100)]
    assert {uuid.UUID(each).version for each in ids} == {7}
    assert ids == sorted(set(ids))


def test_a_key_always_gives_the_same_uuid5() -> None:
    assert make_id("t", "k") == make_id("t", "k")
    assert uuid.UUID(make_id("t", "k")).version == 5


def test_tenant_key_and_index_each_make_another_id() -> None:
    ids = [
        make_id("t", "k"),
        make_id("u", "k"),
        make_id("t", "l"),
        make_id("t", "k", index=0),
        make_id("t", "k", index=1),
    ]
    assert len(set(ids)) == len(ids)


def test_an_absent_key_header_is_no_key() -> None:
    assert read_key([]) is None


@pytest.mark.parametrize("values", [[""], ["a b"], ["é"], ["x" * 256], ["a", "a"]], ids=repr)
def test_a_wrong_key_header_is_a_422_that_names_it(values: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        read_key(values)
    assert [error.field for error in caught.value.errors] == ["Idempotency-Key"]


def test_a_key_in_flight_is_a_409() -> None:
    table = KeyTable()
    assert table.claim("id", MARK, now=0.0)
    assert status_of_claim(table) == 409


def test_a_stored_key_is_not_sent_again() -> None:
    assert settled().claim("id", MARK, now=1.0) is False


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_key_with_another_body_is_a_422(is_stored: bool) -> None:
    assert status_of_claim(settled(is_stored=is_stored), OTHER) == 422


def test_a_key_in_flight_with_another_body_is_a_422() -> None:
    table = KeyTable()
    table.claim("id", MARK, now=0.0)
    assert status_of_claim(table, OTHER) == 422


def test_after_an_unknown_outcome_the_same_body_may_be_sent_again() -> None:
    assert settled(is_stored=False).claim("id", MARK, now=1.0) is True


def test_a_second_try_that_stored_nothing_does_not_free_the_key_of_an_unknown_first() -> None:
    table = settled(is_stored=False)
    table.claim("id", MARK, now=1.0)
    table.release("id")
    assert status_of_claim(table, OTHER, now=2.0) == 422


def test_a_released_key_is_free_for_any_body() -> None:
    table = KeyTable()
    table.claim("id", MARK, now=0.0)
    table.release("id")
    assert table.claim("id", OTHER, now=0.0)


def test_a_key_is_forgotten_after_a_day() -> None:
    table = settled()
    assert table.claim("id", MARK, now=86_399.0) is False
    assert table.claim("id", OTHER, now=86_400.0) is True


def test_the_table_is_bounded_and_forgets_the_oldest() -> None:
    table = KeyTable(max_remembered=3)
    for number in range(10):
        table.claim(str(number), MARK, now=0.0)
        table.settle(str(number), is_stored=True, now=0.0)
    assert len(table) == 3
    assert table.claim("9", MARK, now=0.0) is False
    assert table.claim("0", MARK, now=0.0) is True


def test_spelling_does_not_change_a_fingerprint_and_content_does() -> None:
    draft = Draft(from_id=1, to_id=2, message="hi", data={"a": 1, "b": 2})
    assert fingerprint(draft) == fingerprint(Draft(from_id="1", to_id="2", message="hi", data={"b": 2, "a": 1}))
    assert fingerprint(draft) != fingerprint(Draft(from_id=1, to_id=2, message="ho", data={"a": 1, "b": 2}))
