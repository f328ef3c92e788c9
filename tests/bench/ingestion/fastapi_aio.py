"""A notification service as tutorials have it today: FastAPI, pydantic in and out, confluent-kafka's AIOProducer."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from confluent_kafka.aio import AIOProducer
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel


class Notification(BaseModel):
    """What a client sends."""

    fromID: int  # noqa: N815 - the name on the wire
    toID: int  # noqa: N815
    message: str
    title: str | None = None


class Stored(BaseModel):
    """What a client gets."""

    status: str


def build_app(brokers: str, topic: str, users: int) -> FastAPI:
    """Return the application."""
    known = {number: f"User {number}" for number in range(1, users + 1)}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.producer = AIOProducer({"bootstrap.servers": brokers, "acks": "all", "enable.idempotence": True})
        yield
        await app.state.producer.close()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/notifications", status_code=202)
    async def post(notification: Notification) -> Stored:
        if notification.fromID not in known or notification.toID not in known:
            raise HTTPException(404, "no such user")
        value = notification.model_dump_json().encode()
        delivered = await app.state.producer.produce(topic, value=value, key=str(notification.toID).encode())
        await delivered
        return Stored(status="stored")

    return app


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-listen", default="127.0.0.1:8080")
    parser.add_argument("-brokers", default="127.0.0.1:9092")
    parser.add_argument("-topic", default="notifications")
    parser.add_argument("-users", type=int, default=1_000)
    options = parser.parse_args()
    host, _, port = options.listen.partition(":")
    app = build_app(options.brokers, options.topic, options.users)
    uvicorn.run(app, host=host, port=int(port), access_log=False, log_level="warning", timeout_keep_alive=75)


if __name__ == "__main__":
    main()
