"""Whether a dead letter may be replayed, and as what. Pure.

The value and the key stay byte for byte what they were, so what a replay has to say stands in headers: how often it
has been tried, and the one channel that failed, because the others have delivered it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tocsin_cli.dlq.letter import CHANNEL, Letter
from tocsin_consumer.dead_letters import REPLAY_COUNT
from tocsin_consumer.planning import REPLAY_CHANNEL
from tocsin_core.codec import accepted_at_of, decode
from tocsin_core.errors import MessageError

OWN_PREFIX = "dlq-"


def decide_refusal(
    letter: Letter, *, topic: str, max_replays: int, ttl_seconds: int | None, now: datetime
) -> str | None:
    """Return why a letter must not be replayed to `topic`, or None if it may. `ttl_seconds` None: not known."""
    if not letter.topic:
        return "not a dead letter of Tocsin's: it does not say which topic it came from"
    if letter.topic != topic and not letter.topic.startswith(f"{topic}.retry."):
        return f"it came from topic {letter.topic}, not from {topic}"
    if letter.omitted_bytes is not None:
        return (
            f"its value of {letter.omitted_bytes:,} bytes is not here, because the dead-letter topic did not take it: "
            f"the original stands at {letter.origin} of {letter.topic}, while that topic keeps it"
        )
    if letter.replay_count >= max_replays:
        return f"replayed {letter.replay_count} times already; mend the cause, then raise --max-replays"
    expired_at = _find_expiry(letter, ttl_seconds=ttl_seconds, now=now)
    if expired_at is not None and expired_at <= now:
        return f"expired at {expired_at.isoformat(timespec='seconds')}: the consumers would drop it unsent"
    return None


def build_replay_headers(letter: Letter) -> list[tuple[str, bytes | None]]:
    """Return the original headers in their order, then the count of replays and the channel that is meant."""
    original = [
        (name, value)
        for name, value in letter.record.headers
        if not name.startswith(OWN_PREFIX) and name != REPLAY_CHANNEL
    ]
    channel = [(REPLAY_CHANNEL, letter.record.header(CHANNEL))] if letter.channel else []
    return [*original, (REPLAY_COUNT, str(letter.replay_count + 1).encode()), *channel]


def _find_expiry(letter: Letter, *, ttl_seconds: int | None, now: datetime) -> datetime | None:
    try:
        own = decode(letter.record.value).expires_at
    except MessageError:
        return None
    # A replay gets a new timestamp from Kafka, so only the header can make it old.
    accepted_at = accepted_at_of(letter.record._replace(timestamp_ms=int(now.timestamp() * 1000)), now=now)
    by_pipeline = accepted_at + timedelta(seconds=ttl_seconds) if ttl_seconds else None
    return min((each for each in (own, by_pipeline) if each is not None), default=None)
