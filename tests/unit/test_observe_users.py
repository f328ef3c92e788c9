"""What the operator says of where users are known."""

from __future__ import annotations

from typing import cast

import pytest

from pipelines import Changes, parse_stored
from tocsin_operator.apply import KubernetesAPI
from tocsin_operator.observe import observe_users


@pytest.mark.parametrize("users", [{"redis": {"url": "redis://people"}}, {"http": {"url": "http://users/{id}"}}])
async def test_a_directory_that_is_no_config_map_is_looked_at_by_the_pods_alone(users: Changes) -> None:
    nobody = cast("KubernetesAPI", None)
    assert await observe_users(nobody, parse_stored({"spec.users": users})) == []
