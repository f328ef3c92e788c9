"""What a real run leaves behind for whoever asks why: every sample, and what both scalers said of themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bench.cluster.arms import Arm
from bench.cluster.judge import Sample
from bench.peers import BINARIES
from e2e.cluster import Kubectl

FOLDER = BINARIES.parent / "cluster"


def keep(trace: str, samples: Mapping[Arm, Sequence[Sample]], kubectl: Kubectl) -> None:
    """Write `<trace>.json` and `<trace>.txt` into `.bench/cluster`; those of an earlier run are replaced."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    seen = {arm.policy: [sample._asdict() for sample in found] for arm, found in samples.items()}
    (FOLDER / f"{trace}.json").write_text(json.dumps(seen), encoding="utf-8")
    said = [
        kubectl.ask("get", "npl", "-o", "yaml").out,
        kubectl.ask("describe", "scaledobjects,hpa").out,
        kubectl.ask("get", "events", "--sort-by=.lastTimestamp").out,
    ]
    (FOLDER / f"{trace}.txt").write_text("\n".join(said), encoding="utf-8")
