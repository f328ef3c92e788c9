"""The demo's resource passes the same checks as anybody's."""

from __future__ import annotations

from tocsin_cli.demo.resource import build_demo_file, make_webhook_secret
from tocsin_cli.resource.manifest import parse_manifest


def test_the_demo_is_the_pipeline_it_promises() -> None:
    manifest = parse_manifest(build_demo_file("http://127.0.0.1:1/hook", "whsec_eA=="), name="demo")
    spec = manifest.pipeline.spec
    assert (spec.consumer.concurrency, spec.kafka.topic.partitions, len(manifest.user_ids)) == (10, 12, 1000)
    scaling = spec.consumer.scaling
    assert (scaling.interval_seconds, scaling.cooldown_seconds) == (1, 5)
    assert (scaling.down_window_seconds, scaling.max_lag_seconds, scaling.capacity_per_second) == (10, 5, None)
    assert manifest.secrets["demo-hook"] == {"secret": b"whsec_eA=="}


def test_secrets_are_new_every_time() -> None:
    assert make_webhook_secret() != make_webhook_secret()
