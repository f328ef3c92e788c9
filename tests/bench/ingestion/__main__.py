"""`make bench-ingestion`: Tocsin beside its peers, in turn, on one real Kafka; the last line is JSON.

Every run is checked: the topic must have grown by what was answered 202, or nothing is reported.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

from bench.errors import BenchError
from bench.ingestion.contestants import BATCH, CONTESTANTS, GIN_SARAMA, ONE, TOCSIN, Contestant
from bench.ingestion.pause import Paused, run_pause
from bench.ingestion.report import build_pause_table, build_result, build_table
from bench.ingestion.stage import Load, Measured, Stage
from bench.peers import INGESTION, build_peers
from bench.proc import describe_machine
from tocsin_cli.embedded.kafka import EmbeddedKafka

CONNECTIONS = (64, 256)
BATCH_CONNECTIONS, BATCH_ITEMS = 16, 100
WARM_SECONDS = 2.0
PAUSES_SECONDS = (2.0, 15.0, 60.0)
COMPARED = (TOCSIN, GIN_SARAMA)


def run_round(stage: Stage, contestants: list[Contestant], seconds: float) -> list[Measured]:
    """Run every contestant once, in a random order; then both compared ones at half of the slower one's best."""
    found: list[Measured] = []
    for contestant in random.sample(contestants, len(contestants)):
        with stage.serve(contestant) as (server, topic):
            stage.press(server, Load(ONE, CONNECTIONS[0], WARM_SECONDS))
            loads = [Load(ONE, connections, seconds) for connections in CONNECTIONS]
            if contestant.name == TOCSIN:
                loads.append(Load(BATCH, BATCH_CONNECTIONS, seconds, batch=BATCH_ITEMS))
            found += [stage.measure(contestant, server, topic, load) for load in loads]
        say(f"{contestant.name}: " + ", ".join(f"{each.server_microseconds:.1f} us" for each in found[-len(loads) :]))
    rate = find_common_rate(found)
    for contestant in random.sample(contestants, len(contestants)):
        if contestant.name in COMPARED and rate:
            with stage.serve(contestant) as (server, topic):
                stage.press(server, Load(ONE, CONNECTIONS[1], WARM_SECONDS, rate=rate))
                found.append(stage.measure(contestant, server, topic, Load(ONE, CONNECTIONS[1], seconds, rate=rate)))
    return found


def find_common_rate(found: list[Measured]) -> float:
    """Return half of the slower one's best: a rate that both can keep."""
    best = [
        max((each.per_second for each in found if each.contestant == name and not each.load.batch), default=0.0)
        for name in COMPARED
    ]
    return min(best) / 2


def run_all(options: argparse.Namespace) -> dict[str, float | int | None]:
    """Run what was asked for and print it; return the last line's numbers."""
    binaries = build_peers("peers_ingestion", INGESTION)
    contestants = [each for each in CONTESTANTS if options.only is None or each.name in options.only]
    rounds: list[list[Measured]] = []
    pauses: list[Paused] = []
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka() as kafka:
        stage = Stage(kafka, binaries, Path(folder))
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            rounds.append(run_round(stage, contestants, options.seconds))
        for seconds in options.pauses:
            say(f"a pause of {seconds:g} s")
            pauses.append(run_pause(stage, Path(folder), pause_seconds=seconds, rate=options.pause_rate))
    print(describe_machine())
    print("\n".join([*build_table(rounds), *build_pause_table(pauses)]))
    return build_result(rounds, pauses)


def say(text: str) -> None:
    """Tell of progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="bench-ingestion", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each run lasts")
    parser.add_argument("--only", nargs="*", choices=[each.name for each in CONTESTANTS], help="only these")
    parser.add_argument("--pauses", type=float, nargs="*", default=PAUSES_SECONDS, metavar="SECONDS")
    parser.add_argument("--pause-rate", type=float, default=500.0, help="requests per second during a pause")
    try:
        result = run_all(parser.parse_args())
    except BenchError as error:
        say(f"bench-ingestion: {error}")
        return 2
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
