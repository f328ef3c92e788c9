"""An identity provider: signing keys, a real HTTP server with its JWKS, and the tokens it gives out."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tocsin_core.settings import JWTSettings

ISSUER = "https://id.example.org"
AUDIENCE = "orders"
PATH = "/keys"
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def make_private_key(algorithm: str, name: str = "a", bits: int = 2048) -> Any:
    """Return a private key; the same arguments give the same key, as making one takes a while."""
    return _make_private_key(algorithm, name, bits)


@cache
def _make_private_key(algorithm: str, name: str, bits: int) -> Any:
    del name
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    return (
        ed25519.Ed25519PrivateKey.generate()
        if algorithm == "EdDSA"
        else rsa.generate_private_key(public_exponent=65_537, key_size=bits)
    )


def build_jwk(algorithm: str, name: str = "a", *, bits: int = 2048, **fields: Any) -> dict[str, Any]:
    """Return the public half; a field of None is left out."""
    kinds: dict[str, Any] = {"EdDSA": OKPAlgorithm, **dict.fromkeys(CURVES, ECAlgorithm)}
    public = make_private_key(algorithm, name, bits).public_key()
    jwk = kinds.get(algorithm, RSAAlgorithm).to_jwk(public, as_dict=True)
    whole = dict(jwk) | {"kid": name, "alg": algorithm, "use": "sig"} | fields
    return {field: value for field, value in whole.items() if value is not None}


def sign(
    algorithm: str = "ES256",
    name: str = "a",
    *,
    headers: Mapping[str, Any] | None = None,
    bits: int = 2048,
    **claims: Any,
) -> str:
    """Return a token that is good for ten minutes unless `claims` say otherwise; a claim of None is left out."""
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "2", "iat": now, "exp": now + 600} | claims
    present = {claim: value for claim, value in whole.items() if value is not None}
    key = make_private_key(algorithm, name, bits)
    return jwt.encode(present, key, algorithm, headers={"kid": name} | dict(headers or {}))


class Issuer:
    """A JWKS at an address of its own. `status` and `keys` may be changed while it serves."""

    def __init__(self, *keys: dict[str, Any], status: int = 200) -> None:
        self.keys = list(keys)
        self.status = status
        self.asked = 0
        self.url = ""

    @property
    def settings(self) -> JWTSettings:
        return JWTSettings(issuer=ISSUER, audience=AUDIENCE, jwks_url=self.url)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        self.asked += 1
        headers = {"location": f"{self.url}/elsewhere"} if 300 <= self.status < 400 else {}
        return self.status, headers, json.dumps({"keys": self.keys}).encode()


@contextmanager
def serving(issuer: Issuer) -> Iterator[Issuer]:
    """Serve an issuer's keys over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = issuer.answer()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_port}{PATH}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
