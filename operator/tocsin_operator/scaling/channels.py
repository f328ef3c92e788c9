"""Rule 3 for channels: one whose provider is away, or holds it back, is no reason for pods.

A commit says where every channel of a pipeline stands in a partition (`tocsin_core.commits`); its offset is the lowest
of them. So one channel that stands still would make the whole group look as if it finished nothing, and buy pods that
wait for the same provider. Such a channel is left out of all that the number of pods is decided by: what counts is
what the others have finished. It is told apart by what the pods say (the share of their time in which its provider
held it back), and by its commits alone where pods cannot be read, or know no reason. Where all channels are held back
nothing is left out: then the rules for a downstream's limit, and for a group that finishes nothing, have their say.
A channel that is only slow is not held back: another pod has slots for it, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from tocsin_core.lag import CAUGHT_UP, measure_lag_seconds
from tocsin_operator.scaling.busy import STALE_SECONDS, Busy
from tocsin_operator.scaling.demand import forget_progress
from tocsin_operator.scaling.model import ChannelInputs, ChannelProgress, Config, Hold, Observation, State

# Pods are kept for so much more than a provider lets through, so that the provider and not they are the limit.
HELD_UTILISATION = 0.80


def leave_out(observation: Observation, channels: frozenset[str]) -> Observation:
    """Return the observation as if these channels were not there."""
    if not channels:
        return observation
    partitions = tuple(each.leave_out(channels) for each in observation.partitions)
    return msgspec.structs.replace(observation, partitions=partitions)


def note_channels(observation: Observation, state: State, config: Config, busy: Busy | None) -> State:
    """Return the state with what each channel has finished and what holds it back.

    Where other channels count from now on, what was learned from where the group stood is forgotten.
    """
    names = config.channels if len(config.channels) > 1 else ()  # a channel is compared with another
    known = {each.name: each for each in state.channels}
    moved = [_note_progress(observation, name, known.get(name)) for name in names]
    shares = {} if busy is None else busy.held_shares
    holds = [_find_hold(each, moved, state, config, observation, share=shares.get(each.name)) for each in moved]
    is_any_served = None in holds
    channels = tuple(
        msgspec.structs.replace(each, hold=hold if is_any_served else None)
        for each, hold in zip(moved, holds, strict=True)
    )
    noted = msgspec.structs.replace(state, channels=channels)
    return noted if noted.held_channels == state.held_channels else forget_progress(noted)


def measure_channels(observation: Observation, state: State) -> tuple[ChannelInputs, ...]:
    """Return how far behind each channel is, in records and in seconds."""
    return tuple(_measure_channel(observation, state, each) for each in state.channels)


def measure_kept(state: State, busy: Busy | None, replicas: int) -> int:
    """Return how many pods use up what the providers of held channels let through.

    A provider that held the pods back for most of their time needs the rest of it, and that may be more than one pod's.
    """
    if busy is None:
        return 0
    held = [each.name for each in state.channels if each.hold is Hold.PROVIDER]
    shares = [busy.held_shares[name] for name in held if name in busy.held_shares]
    return max((math.ceil((1 - share) * replicas / HELD_UTILISATION - 0.1) for share in shares), default=0)


def _note_progress(observation: Observation, name: str, known: ChannelProgress | None) -> ChannelProgress:
    now_seconds = observation.time_seconds
    position = sum(each.position_of(name) for each in observation.partitions)
    known = known or ChannelProgress(name=name)
    has_moved = known.position is not None and position > known.position
    is_still = not has_moved and _count_lag(observation, name) > 0
    since_seconds = now_seconds if known.stalled_since is None else known.stalled_since
    return msgspec.structs.replace(
        known,
        position=position,
        moved_seconds=now_seconds if has_moved else known.moved_seconds,
        stalled_since=since_seconds if is_still else None,
    )


def _find_hold(
    channel: ChannelProgress,
    channels: Sequence[ChannelProgress],
    state: State,
    config: Config,
    observation: Observation,
    *,
    share: float | None,
) -> Hold | None:
    if _count_lag(observation, channel.name) == 0:
        return None
    if _is_held_by_provider(channel, state, config, observation, share):
        return Hold.PROVIDER
    since_seconds = channel.stalled_since
    if since_seconds is None:
        return None
    is_alone = any(other.moved_seconds is not None and other.moved_seconds >= since_seconds for other in channels)
    is_long = observation.time_seconds - since_seconds >= config.channel_seconds
    return Hold.STANDING_STILL if channel.hold is not None or (is_alone and is_long) else None


def _is_held_by_provider(
    channel: ChannelProgress, state: State, config: Config, observation: Observation, share: float | None
) -> bool:
    """Return whether the channel's provider holds it back; a hold ends when hardly anything is left of it.

    What an earlier process knew holds until the pods were read twice.
    """
    if share is not None:
        return share >= (config.released_share if channel.hold is Hold.PROVIDER else config.throttled_share)
    since_seconds = state.observed_since_seconds
    is_new = since_seconds is None or observation.time_seconds - since_seconds < STALE_SECONDS
    return channel.hold is Hold.PROVIDER and is_new


def _count_lag(observation: Observation, name: str) -> int:
    return sum(max(0, each.log_end - each.position_of(name)) for each in observation.partitions)


def _measure_channel(observation: Observation, state: State, channel: ChannelProgress) -> ChannelInputs:
    ordered = sorted(observation.partitions, key=lambda offsets: offsets.partition)
    ages = (
        measure_lag_seconds(index, offsets.position_of(channel.name), state.history)
        for index, offsets in enumerate(ordered)
    )
    age = max(ages, default=CAUGHT_UP)
    return ChannelInputs(
        name=channel.name,
        lag=_count_lag(observation, channel.name),
        lag_seconds=age.seconds,
        is_lag_seconds_at_least=age.is_at_least,
        hold=channel.hold,
    )
