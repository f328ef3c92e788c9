"""What the tests of a running consumer share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tocsin_cli.embedded.kafka import EmbeddedKafka
from world import World


@pytest.fixture
async def world(kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[World]:
    """Topics, a group and processes of the test's own on `kafka`."""
    world = await World(kafka.bootstrap_servers, tmp_path).create()
    yield world
    await world.close()
