"""What an ingestion service answers is either an id or a reason."""

from __future__ import annotations

from tocsin_cli.poster import Answer, read_answer


def test_202_with_an_id_is_accepted() -> None:
    assert read_answer(202, b'{"id": "x"}') == Answer(202, "x")
    assert read_answer(202, b'{"id": "x"}').is_accepted


def test_problem_details_give_the_reason() -> None:
    answer = read_answer(404, b'{"title": "No such user", "detail": "toID \\"9\\" is unknown"}')
    assert answer == Answer(404, None, 'toID "9" is unknown')


def test_a_problem_without_detail_has_its_title() -> None:
    assert read_answer(400, b'{"title": "Malformed"}').reason == "Malformed"


def test_an_answer_that_is_no_json_is_shown_as_it_is() -> None:
    assert read_answer(502, b"<html>bad gateway").reason == "answered 502: <html>bad gateway"


def test_202_without_an_id_is_not_accepted() -> None:
    assert not read_answer(202, b"{}").is_accepted
