"""`tocsin simulate` as people and programs use it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from documentation import find_block
from tocsin_cli.__main__ import main
from tocsin_cli.simulate.traces import HELD_OUT, NAMED, TUNED, TraceError, build_trace, read_csv

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "load.csv"
    path.write_text("".join(f"{300 if second < 400 else 900}\n" for second in range(700)))
    return path


def simulate(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["simulate", *words]) == 0
    return capsys.readouterr().out


def refuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["simulate", *words]) == 2
    return capsys.readouterr().err


def test_the_same_seed_prints_the_same_json(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        f"--trace {trace} --partitions 60 --capacity 100 --max-lag-seconds 30 --max-replicas 60 "
        "--policies tocsin,keda,keda-even,flink,numaflow --seed 1 --json"
    ).split()
    first, second = simulate(capsys, *words), simulate(capsys, *words)
    assert first == second
    policies = json.loads(first)["policies"]
    assert list(policies) == ["tocsin", "keda", "keda-even", "flink", "numaflow"]
    for score in policies.values():
        assert set(score) >= {"over_promise_seconds", "max_lag_seconds", "replica_seconds", "actions", "moves"}


def test_the_first_five_minutes_count_for_nobody(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = simulate(capsys, "--trace", str(trace), "--policies", "pinned", "--json")
    assert json.loads(out)["policies"]["pinned"]["replica_seconds"] == 60 * 400


def test_a_table_has_a_line_for_each_policy(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = simulate(capsys, "--trace", str(trace), "--policies", "tocsin,keda").splitlines()
    assert [line.split()[0] for line in lines] == ["policy", "tocsin", "keda"]


def test_a_picture_shows_every_policy_and_the_promise(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "load.svg"
    simulate(capsys, "--trace", str(trace), "--policies", "tocsin,keda", "--picture", str(path))
    root = ET.parse(path).getroot()
    assert len(root.findall(f"{SVG}polyline")) == 5
    assert [text.text for text in root.findall(f"{SVG}text")][:3] == ["load", "tocsin", "keda"]
    assert any(line.get("stroke-dasharray") for line in root.findall(f"{SVG}line"))


def test_the_command_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(find_block("docs/scaling.md", "simulate").split()[1:]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("tocsin")
    assert (tmp_path / "backlog.svg").is_file()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("300\nmany\n", "line 2: 'many' is no number of arrivals per second"),
        ("300\n-1\n", "line 2: '-1'"),
        ("300\nnan\n", "line 2: 'nan'"),
        ("", "holds no figures"),
        ("# nothing\n\n", "holds no figures"),
        ("1\n" * 200, "200 s are all warm-up"),
    ],
)
def test_a_trace_that_cannot_be_used_names_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert words in refuse(capsys, "--trace", str(path))


def test_a_trace_that_does_not_exist_names_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be read" in refuse(capsys, "--trace", "nowhere.csv")
    with pytest.raises(TraceError, match="neither a file nor one of step, ramp"):
        build_trace("nowhere")


def test_a_range_the_wrong_way_round_is_refused(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refuse(capsys, "--trace", str(trace), "--min-replicas", "9", "--max-replicas", "3")
    assert "--min-replicas must be at most --max-replicas" in error


def test_no_policy_is_refused(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "names none" in refuse(capsys, "--trace", str(trace), "--policies", ",")


def test_a_csv_may_have_a_header_comments_and_a_column_of_times(tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    path.write_text("second,arrivals\n0,300\n1,301.5 # the second\n\n")
    assert read_csv(path) == [300, 301.5]


def test_no_trace_is_both_tuned_and_held_out() -> None:
    assert not set(TUNED) & set(HELD_OUT)


@pytest.mark.parametrize("name", NAMED)
def test_every_named_trace_is_longer_than_its_warm_up(name: str) -> None:
    scenario = build_trace(name)
    assert scenario.name == name
    assert scenario.seconds > scenario.warmup_seconds + 1_000
    assert min(scenario.arrivals) >= 0
