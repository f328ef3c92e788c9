"""Where every channel of a pipeline stands in one partition, as the one offset that Kafka remembers. Pure.

A channel whose provider is slow or away must not hold up the others, nor may what the others did be forgotten because
of it. So each channel has a cursor of its own. The committed offset is the lowest of them, which is what lag is
measured by and where reading begins again; how far the others are ahead of it stands in the commit's metadata. A
consumer group per channel was refused: it would multiply rebalances and fetches, and a new channel would begin with
the whole history. A spill topic for the slow one was refused too: it reorders, and writes what Kafka holds already.

    offset 5000, metadata {"hook":95000,"mail":0,"":95000}      the hook stands at 100000, the mail server was away

The cursor "" stands for what belongs to no channel of the pipeline: records nobody can read, and channels that a
notification names and the pipeline does not have.
Kafka bounds metadata to 4 KiB (`offset.metadata.max.bytes`): 16 names of 63 characters are less than half of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

NO_CHANNEL = ""

_decode = msgspec.json.Decoder(dict[str, int]).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


class Commit(NamedTuple):
    """What is committed for one partition."""

    offset: int
    metadata: str = ""


def build_commit(positions: Mapping[str, int]) -> Commit:
    """Return the commit that says where each cursor stands; where all stand together it needs no metadata."""
    offset = min(positions.values())
    leads = {name: position - offset for name, position in positions.items()}
    return Commit(offset, _encode(leads).decode() if any(leads.values()) else "")


def resume_positions(names: Iterable[str], commit: Commit) -> dict[str, int]:
    """Return where each of the named cursors goes on after `commit`.

    A channel that the commit does not know begins where the foremost stands: what came before it was not meant for it.
    What a channel that is gone had not finished, and was addressed to it by name, is left to the cursor "".
    Metadata that somebody else wrote means nothing: then all begin at the committed offset.
    """
    known = {name: commit.offset + lead for name, lead in read_leads(commit.metadata).items()}
    wanted = {NO_CHANNEL, *names}
    foremost = max(known.values(), default=commit.offset)
    positions = {name: known.get(name, foremost) for name in wanted}
    positions[NO_CHANNEL] = min([positions[NO_CHANNEL], *(known[name] for name in known.keys() - wanted)])
    return positions


def read_leads(metadata: str) -> dict[str, int]:
    """Return how far each cursor is ahead of the committed offset; nothing where all stand together there.

    What we wrote names the cursor "" and one that stands at the offset itself. To take anything else for leads, be it
    JSON of numbers as well, would be to pass over what nobody has delivered.
    """
    if not metadata:
        return {}
    try:
        leads = _decode(metadata)
    except msgspec.DecodeError:
        return {}
    return leads if NO_CHANNEL in leads and min(leads.values()) == 0 else {}
