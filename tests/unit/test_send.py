"""`tocsin send` says which flag is missing and prints what became of each line."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import pytest

from tocsin_cli import send
from tocsin_cli.__main__ import main
from tocsin_cli.feed import Line, Target
from tocsin_cli.poster import Answer


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    send.add_arguments(parser)
    return parser.parse_args(words)


def test_the_flags_become_one_body() -> None:
    line = send.build_line(parse("--from", "1", "--to", "2", "--title", "T", "--channel", "log", "grüezi"))
    assert msgspec.json.decode(line.body) == {
        "fromID": "1",
        "toID": "2",
        "title": "T",
        "channels": ["log"],
        "message": "grüezi",
    }


def test_a_missing_flag_is_named() -> None:
    with pytest.raises(send.SendError, match="MESSAGE and --to missing"):
        send.build_line(parse("--from", "1"))


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "--input", str(tmp_path / "gone")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_nobody_there_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "--url", "http://127.0.0.1:1", "--from", "1", "--to", "2", "hi"]) == 1
    assert "line 1: no answer from http://127.0.0.1:1" in capsys.readouterr().err


def test_refused_lines_make_exit_3(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = send.Outcome()
    outcome.note(Line(1, b""), Target(), Answer(202, "id"))
    outcome.note(Line(2, b""), Target(), Answer(404, None, "no such user"))
    captured = capsys.readouterr()
    assert (captured.out, captured.err, outcome.exit_code) == ("id\n", "line 2: no such user\n", 3)
