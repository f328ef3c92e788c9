"""The policies by the names that `--policies` takes."""

from __future__ import annotations

from collections.abc import Callable

from tocsin_cli.simulate.policies.base import Policy, Terms
from tocsin_cli.simulate.policies.flink import FAST, Flink
from tocsin_cli.simulate.policies.keda import Keda
from tocsin_cli.simulate.policies.numaflow import Numaflow
from tocsin_cli.simulate.policies.pinned import Pinned
from tocsin_cli.simulate.policies.tocsin import Tocsin
from tocsin_core.errors import TocsinError

KEDA_SECONDS = 5  # lagThreshold is what a pod does in so many seconds
KEDA_DEFAULT = 10


class PolicyError(TocsinError):
    """No such policy; the text names those that exist."""


def _keda(seconds: float, *, is_even: bool = False, tolerance: float = 0.1) -> Callable[[Terms], Policy]:
    def build(terms: Terms) -> Policy:
        threshold = seconds * terms.capacity_per_second
        return Keda(terms, threshold=threshold, is_even=is_even, tolerance=tolerance)

    return build


POLICIES: dict[str, Callable[[Terms], Policy]] = {
    "tocsin": Tocsin,
    "tocsin-offsets": lambda terms: Tocsin(terms, reads_pods=False),
    "keda": _keda(KEDA_SECONDS),
    "keda-even": _keda(KEDA_SECONDS, is_even=True),
    "keda-exact": _keda(KEDA_SECONDS, tolerance=0.0),
    "keda-2s": _keda(2),
    "keda-10s": _keda(10),
    "keda-30s": _keda(30),
    "keda-default": lambda terms: Keda(terms, threshold=KEDA_DEFAULT),
    "flink": Flink,
    "flink-fast": lambda terms: Flink(terms, FAST),
    "numaflow": Numaflow,
    "pinned": Pinned,
}


def build_policy(name: str, terms: Terms) -> Policy:
    """Return a policy by name. Raise PolicyError for one that does not exist."""
    build = POLICIES.get(name)
    if build is None:
        raise PolicyError(f"--policies: {name!r} is none of {', '.join(POLICIES)}")
    return build(terms)
