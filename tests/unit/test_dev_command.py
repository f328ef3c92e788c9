"""`tocsin dev` and the demo: flags, refusals that name the field, tallies and exit codes. No broker is started."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tocsin_cli.__main__ import main
from tocsin_cli.demo.verdict import decide_demo_exit_code, explain_demo
from tocsin_cli.dev.ledger import Count
from tocsin_cli.dev.settle import Patience
from tocsin_cli.dev.tally import KafkaFacts, Move, Tally, build_tally, decide_exit_code, format_tally

QUICKSTART = Path(__file__).parents[2] / "manifests" / "samples" / "quickstart.yaml"


def tally(count: Count, *, replicas_max: int = 4, replicas_end: int = 1) -> Tally:
    return build_tally(
        count,
        refused=0,
        replicas_max=replicas_max,
        replicas_end=replicas_end,
        moves=[Move(1.0, 1, 4, "DemandExceedsCapacity", "more")],
        kafka=KafkaFacts(brokers="b:1", is_embedded=True, version="4.4.0"),
        seconds=1.23,
    )


FINE = Count(accepted=5, delivered=4, dead_lettered=1, dropped=0, open=0, duplicates=0)
LOST = FINE._replace(delivered=3, open=1)
TWICE = FINE._replace(duplicates=1)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["dev", *words]) == 2
    return capsys.readouterr().err


def changed(folder: Path, before: str, after: str) -> str:
    path = folder / "changed.yaml"
    path.write_text(QUICKSTART.read_text().replace(before, after))
    return str(path)


def test_a_wrong_key_ends_with_2_and_names_the_near_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = refusal(capsys, "-f", changed(tmp_path, "bootstrapServers", "bootstrapServer"))
    assert "spec.kafka.bootstrapServer: unknown field; did you mean 'bootstrapServers'?" in text


def test_a_suspended_pipeline_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(tmp_path, "spec:\n  kafka", "spec:\n  suspend: true\n  kafka")
    assert "spec.suspend: nothing runs while it is true" in refusal(capsys, "-f", path)


def test_load_for_users_whom_only_a_directory_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    text = refusal(capsys, "-f", str(QUICKSTART.parent / "directory.yaml"), "--rate", "5")
    assert "--rate: posts to the users of users.configMapRef, and this file has none; use --input" in text


def test_a_missing_input_file_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--input gone.ndjson: no such file" in refusal(capsys, "-f", str(QUICKSTART), "--input", "gone.ndjson")


def test_json_that_cannot_be_written_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    text = refusal(capsys, "-f", str(QUICKSTART), "--json", "/nowhere/out.json")
    assert "--json /nowhere/out.json: No such file or directory" in text


@pytest.mark.parametrize("words", [["--rate", "0"], ["--seconds", "-1"], ["--rate", "5", "--input", "x"]])
def test_wrong_flags_end_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["dev", "-f", str(QUICKSTART), *words])
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_json_has_the_promised_keys() -> None:
    assert list(msgspec.to_builtins(tally(FINE))) == [
        "accepted",
        "delivered",
        "dead_lettered",
        "refused",
        "lost",
        "duplicates",
        "replicas_max",
        "replicas_end",
        "decisions",
        "kafka",
        "seconds",
        "waiting",
    ]


def test_exit_codes_put_loss_above_refusals() -> None:
    assert decide_exit_code(tally(FINE), refused_lines=0) == 0
    assert decide_exit_code(tally(FINE), refused_lines=1) == 3
    assert decide_exit_code(tally(LOST), refused_lines=1) == 1


def test_the_tally_in_words_says_what_was_lost() -> None:
    assert format_tally(tally(LOST)) == (
        "5 accepted · 3 delivered · 1 dead-lettered · 1 lost · 0 duplicates · at most 4 consumers · 1 s"
    )


@pytest.mark.parametrize("count", [LOST, TWICE, Count(0, 0, 0, 0, 0, 0)])
def test_the_demo_fails_on_loss_on_duplicates_and_on_silence(count: Count) -> None:
    assert decide_demo_exit_code(tally(count)) == 1
    assert explain_demo(tally(count)).startswith("THE PROMISE IS BROKEN")


def test_the_demo_says_whether_consumers_went_out_and_came_in() -> None:
    assert "went out to 4 and came in to 1" in explain_demo(tally(FINE))
    assert "have NOT come in yet: 2" in explain_demo(tally(FINE, replicas_end=2))
    assert "never went out" in explain_demo(tally(FINE, replicas_max=1))


def test_patience_ends_when_nothing_moves_or_when_somebody_hurries() -> None:
    assert not Patience().is_over(waited_seconds=10_000, quiet_seconds=59)
    assert Patience().is_over(waited_seconds=60, quiet_seconds=60)
    assert Patience(at_most_seconds=30).is_over(waited_seconds=30, quiet_seconds=0)
