"""The operator's own configuration: `TOCSIN_OPERATOR_*` environment variables and nothing else.

A prefix of its own, because the services' `TOCSIN_*` variables may stand in the same shell. The chart sets these; each
has a default under which `tocsin operator` runs from a shell against $KUBECONFIG.
"""

from __future__ import annotations

import socket
import uuid
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tocsin_core.errors import SettingsError
from tocsin_operator.kafka_clusters import SECRET_READER

ENV_PREFIX = "TOCSIN_OPERATOR_"


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[list[str], NoDecode, BeforeValidator(_split_commas)]


def _invent_identity() -> str:
    """Return a name no other process has: neither another on this host nor this container's next life."""
    return f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"


class OperatorSettings(BaseSettings):
    """Everything the operator needs to know before it asks a cluster."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="ignore", frozen=True)

    image: str = Field(default="docker.io/library/tocsin:0.1.0", min_length=1, description="what pipelines' pods run")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    namespace: str = Field(default="default", min_length=1, description="where the Lease lives")
    image_pull_secrets: Names = Field(default=[], description="Secrets of pipelines' namespaces that pull the image")
    secret_reader: str = Field(default=SECRET_READER, min_length=1, description="the ClusterRole that may read Secrets")
    watch_namespaces: Names = Field(default=[], description="where pipelines are looked after; empty: everywhere")
    lease_name: str = Field(default="tocsin-operator", min_length=1)
    lease_seconds: int = Field(default=15, ge=3, description="how long a silent leader keeps the Lease")
    identity: str = Field(default_factory=_invent_identity, min_length=1, description="who holds the Lease")
    workers: int = Field(default=10, ge=1, le=200)
    resync_seconds: float = Field(default=600.0, ge=1)
    health_port: int = Field(default=9090, ge=0, le=65_535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def load_settings() -> OperatorSettings:
    """Read the environment. Raise SettingsError naming the variable and what is wrong with it."""
    try:
        return OperatorSettings()
    except ValidationError as error:
        wrong = [f"{ENV_PREFIX}{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors()]
        raise SettingsError("; ".join(wrong)) from error
