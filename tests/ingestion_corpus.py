"""Good and bad requests, as bytes: what the hot path and the routes must agree on."""

from __future__ import annotations

import gzip

from gates import GOOD_KEY, OTHER_KEY
from ingestion_api import BATCH, GOOD, ONE
from raw_http import build_request
from tocsin_core.message import MAX_BODY_BYTES

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEY = ("Idempotency-Key", "order-17")
CHUNKED = ("Transfer-Encoding", "chunked")


def chunk(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


def ndjson(*lines: bytes) -> bytes:
    return build_request(b"\n".join(lines), target=BATCH, content_type="application/x-ndjson")


GOOD_BYTES = b'{"fromID":1,"toID":2,"message":"hi"}'
FORM = "application/x-www-form-urlencoded"
DEEP = b'{"fromID":1,"toID":2,"message":"hi","data":' + b'{"a":' * 40 + b"1" + b"}" * 41

OFFER = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA")]
# Each is one good request.
OFFERS: dict[str, bytes] = {
    "offer of HTTP/2": build_request(GOOD, headers=OFFER),
    "offer of HTTP/2, chunked": build_request(chunk(GOOD_BYTES), content_length=None, headers=[*OFFER, CHUNKED]),
    "offer of HTTP/2, expect": build_request(GOOD, headers=[*OFFER, ("Expect", "100-continue")]),
    "offer of HTTP/2 in two lines": build_request(
        GOOD, headers=[("Connection", "keep-alive"), ("Connection", "upgrade"), ("Upgrade", "h2c"), ("Upgrade", "x")]
    ),
    "offer of HTTP/2 for a proxy": build_request(GOOD, headers=[("Proxy-Connection", "upgrade"), ("Upgrade", "h2c")]),
    "offer of a WebSocket that is not served": build_request(
        GOOD, headers=[("Connection", "Upgrade"), ("Upgrade", "websocket")]
    ),
    "offer of a batch": build_request([GOOD], target=BATCH, headers=OFFER),
}

CORPUS: dict[str, bytes] = {
    **OFFERS,
    "good": build_request(GOOD),
    "good, every field": build_request(
        GOOD | {"title": "t", "data": {"a": [1, {}]}, "channels": ["push"], "expiresAt": "2099-01-01T00:00:00Z"}
    ),
    "string ids": build_request(GOOD | {"fromID": "1", "toID": "2"}),
    "not ASCII": build_request(GOOD | {"message": "número 🔔"}),
    "raw UTF-8": build_request('{"fromID":1,"toID":2,"message":"número 🔔"}'.encode()),
    "with charset": build_request(GOOD, content_type="application/json; charset=utf-8"),
    "with another charset": build_request(GOOD, content_type="application/json; charset=latin-1"),
    "upper-case type": build_request(GOOD, content_type="Application/JSON"),
    "no type": build_request(GOOD, content_type=None),
    "empty type": build_request(GOOD, content_type=""),
    "another type": build_request(b"hi", content_type="text/plain"),
    "two types": build_request(GOOD, headers=[("Content-Type", "text/plain")]),
    "form": build_request(b"fromID=1&toID=2&message=hi", content_type=FORM),
    "form with an unknown field": build_request(b"fromID=1&toID=2&message=hi&x=1", content_type=FORM),
    "form that is JSON": build_request(GOOD, content_type=FORM),
    "form that is nothing": build_request(b"hi", content_type=FORM),
    "empty body": build_request(b""),
    "empty body, no length": build_request(b"", content_length=None),
    "not JSON": build_request(b"{"),
    "not UTF-8": build_request(b'{"fromID":1,"toID":2,"message":"\xff"}'),
    "lone surrogate": build_request(b'{"fromID":1,"toID":2,"message":"\\ud800"}'),
    "NaN": build_request(b'{"fromID":1,"toID":2,"message":"hi","data":{"a":NaN}}'),
    "huge number": build_request(b'{"fromID":1,"toID":2,"message":"hi","data":{"a":1e999}}'),
    "an array": build_request([GOOD]),
    "too deep": build_request(DEEP),
    "far too deep": build_request(b"[" * 100_000),
    "deep at the root": build_request(b'{"data":' * 5_000),
    "missing fields": build_request({"fromID": 1}),
    "wrong fields": build_request({"fromID": True, "toID": 2.5, "message": "", "mesage": 1, "channels": []}),
    "unknown channel": build_request(GOOD | {"channels": ["fax", "fax"]}),
    "expired": build_request(GOOD | {"expiresAt": "2020-01-01T00:00:00Z"}),
    "moment without zone": build_request(GOOD | {"expiresAt": "2099-01-01T00:00:00"}),
    "integer beyond 64 bits": build_request(GOOD | {"toID": 2**64}),
    "unknown recipient": build_request(GOOD | {"toID": 77}),
    "unknown sender": build_request(GOOD | {"fromID": 77}),
    "a recipient to look up": build_request(GOOD | {"toID": 3}),
    "a directory that stumbles": build_request(GOOD | {"toID": 666}),
    "a directory that is down": build_request(GOOD | {"toID": 503}),
    "a directory that is down, with a key, repeated": build_request(GOOD | {"toID": 503}, headers=[KEY]) * 2,
    "at the limit": build_request(GOOD_BYTES + b" " * (MAX_BODY_BYTES - len(GOOD_BYTES))),
    "above the limit": build_request(GOOD_BYTES + b" " * (MAX_BODY_BYTES - len(GOOD_BYTES) + 1)),
    "message above its limit": build_request(GOOD | {"message": "x" * 32_769}),
    "trace": build_request(GOOD, headers=[("traceparent", TRACE)]),
    "trace on a refusal": build_request({}, headers=[("traceparent", TRACE)]),
    "wrong trace": build_request(GOOD, headers=[("traceparent", "mine")]),
    "two traces": build_request(GOOD, headers=[("traceparent", TRACE), ("traceparent", "mine")]),
    "trace beyond ASCII": build_request(GOOD, headers=[("traceparent", "\xe9")]),
    "key": build_request(GOOD, headers=[KEY]),
    "key, repeated": build_request(GOOD, headers=[KEY]) * 2,
    "key, another body": build_request(GOOD, headers=[KEY]) + build_request(GOOD | {"message": "ho"}, headers=[KEY]),
    "two keys": build_request(GOOD, headers=[KEY, KEY]),
    "empty key": build_request(GOOD, headers=[("Idempotency-Key", "")]),
    "key with a space": build_request(GOOD, headers=[("Idempotency-Key", "a b")]),
    "long key": build_request(GOOD, headers=[("Idempotency-Key", "k" * 256)]),
    "key beyond ASCII": build_request(GOOD, headers=[("Idempotency-Key", "\xe9")]),
    "pipelined": build_request(GOOD) * 5,
    "pipelined with refusals": build_request(GOOD) + build_request(b"{") + build_request({}) + build_request(GOOD),
    "pipelined with other paths": build_request(GOOD)
    + build_request(method="GET", target="/x", content_type=None, content_length=None)
    + build_request(GOOD),
    "behind the last": build_request(b"{", headers=[("Connection", "close")]) + build_request(GOOD),
    "close": build_request(GOOD, headers=[("Connection", "close")]),
    "close on a refusal": build_request({}, headers=[("Connection", "close")]),
    "keep-alive": build_request(GOOD, headers=[("Connection", "keep-alive")]),
    "HTTP/1.0": build_request(GOOD, version="1.0"),
    "HTTP/1.0 kept": build_request(GOOD, version="1.0", headers=[("Connection", "keep-alive")]),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "chunked": build_request(chunk(GOOD_BYTES[:5], GOOD_BYTES[5:]), content_length=None, headers=[CHUNKED]),
    "chunked, too large": build_request(chunk(*[b" " * 65_536] * 5), content_length=None, headers=[CHUNKED]),
    "chunked, broken": build_request(b"xyz\r\n", content_length=None, headers=[CHUNKED]),
    "chunked, with trailers": build_request(
        chunk(GOOD_BYTES)[:-2] + b"traceparent: x\r\n\r\n", content_length=None, headers=[CHUNKED]
    ),
    "chunked and a length": build_request(chunk(GOOD_BYTES), headers=[CHUNKED]),
    "expect": build_request(GOOD, headers=[("Expect", "100-continue")]),
    "offer of HTTP/2, behind a request": build_request(GOOD) + build_request(GOOD, headers=OFFER),
    "offer of HTTP/2 that is broken": build_request(GOOD, headers=[*OFFER, ("Transfer-Encoding", "x")]),
    "offer of HTTP/2 without a body": build_request(
        method="GET", headers=OFFER, content_type=None, content_length=None
    ),
    "tunnel": build_request(GOOD, method="CONNECT") + build_request(GOOD),
    "tunnel to another server": build_request(GOOD, method="CONNECT", target="a:443") + build_request(GOOD),
    "compressed": build_request(gzip.compress(GOOD_BYTES), headers=[("Content-Encoding", "gzip")]),
    "zeros before the length": build_request(GOOD, content_length="0" * 30 + "41"),
    "thousands of zeros before the length": build_request(GOOD, content_length="0" * 5_000 + "41"),
    "length beyond 64 bits": build_request(GOOD, content_length="9" * 30),
    "negative length": build_request(GOOD, content_length="-1"),
    "two lengths": build_request(GOOD, headers=[("Content-Length", "3")]),
    "query": build_request(GOOD, target=ONE + "?a=1"),
    "fragment": build_request(GOOD, target=ONE + "#a"),
    "escaped path": build_request(GOOD, target="/v1/%6Eotifications"),
    "trailing slash": build_request(GOOD, target=ONE + "/"),
    "absolute target": build_request(GOOD, target="http://tocsin" + ONE),
    "another method": build_request(method="GET", content_type=None, content_length=None),
    "PUT": build_request(GOOD, method="PUT"),
    "HEAD": build_request(method="HEAD", content_type=None, content_length=None),
    "another path": build_request(GOOD, target="/v2"),
    "not HTTP": b"hello\r\n\r\n",
    "a space in a header name": build_request(GOOD, headers=[("a b", "c")]),
    "lines that end too soon": b"POST /v1/notifications HTTP/1.1\nHost: t\n\n",
    "batch": build_request([GOOD, GOOD], target=BATCH),
    "batch of NDJSON": ndjson(GOOD_BYTES, b"", GOOD_BYTES),
    "batch with a form's type": build_request([GOOD], target=BATCH, content_type=FORM),
    "mixed batch": ndjson(GOOD_BYTES, b"{oops", b"{}", b'{"fromID":1,"toID":77,"message":"hi"}', GOOD_BYTES),
    "batch with a recipient to look up": build_request([GOOD, GOOD | {"toID": 3}], target=BATCH),
    "batch while the directory is down": build_request(
        [GOOD, GOOD | {"toID": 503}, GOOD | {"toID": 77}, GOOD | {"fromID": 503, "toID": 77}], target=BATCH
    ),
    "batch of nothing": build_request([], target=BATCH),
    "batch of no array": build_request(GOOD, target=BATCH),
    "batch that is broken": build_request(b"[{]", target=BATCH),
    "batch too long": build_request([GOOD] * 1_001, target=BATCH),
    "batch of many": build_request([GOOD] * 99, target=BATCH),
    "batch above the limit": build_request(b" " * (16 * MAX_BODY_BYTES + 1), target=BATCH),
    "batch with a key, repeated": build_request([GOOD, GOOD], target=BATCH, headers=[KEY]) * 2,
}

BEARER = ("Authorization", f"Bearer {GOOD_KEY}")
BATCH_OF_TEN = [GOOD | {"message": str(number)} for number in range(10)]
# For an API that asks for keys, knows GOOD_KEY, and lets it send BURST notifications.
BURST = 5
KEYED_CORPUS: dict[str, bytes] = {
    "good": build_request(GOOD, headers=[BEARER]),
    "good, X-API-Key": build_request(GOOD, headers=[("X-API-Key", GOOD_KEY)]),
    "scheme in lower case": build_request(GOOD, headers=[("authorization", f"bearer {GOOD_KEY}")]),
    "no credentials": build_request(GOOD),
    "another key": build_request(GOOD, headers=[("Authorization", f"Bearer {OTHER_KEY}")]),
    "no key": build_request(GOOD, headers=[("Authorization", "Bearer hunter2")]),
    "beyond ASCII": build_request(GOOD, headers=[("Authorization", "Bearer \xe9")]),
    "nothing behind the scheme": build_request(GOOD, headers=[("Authorization", "Bearer")]),
    "an empty header": build_request(GOOD, headers=[("Authorization", "")]),
    "another scheme": build_request(GOOD, headers=[("Authorization", "Basic YTpi")]),
    "two credentials": build_request(GOOD, headers=[BEARER, ("X-API-Key", GOOD_KEY)]),
    "a credential twice": build_request(GOOD, headers=[BEARER, BEARER]),
    "refused, then let in": build_request(GOOD) + build_request(GOOD, headers=[BEARER]),
    "refused before what is wrong is seen": build_request(b"{"),
    "let in and wrong": build_request(b"{", headers=[BEARER]),
    "let in and not valid": build_request({}, headers=[BEARER]),
    "refused, and to be closed": build_request(GOOD, headers=[("Connection", "close")]),
    "refused, above the limit": build_request(GOOD_BYTES + b" " * MAX_BODY_BYTES),
    "let in, above the limit": build_request(GOOD_BYTES + b" " * MAX_BODY_BYTES, headers=[BEARER]),
    "refused, chunked": build_request(chunk(GOOD_BYTES), content_length=None, headers=[CHUNKED]),
    "let in, chunked": build_request(chunk(GOOD_BYTES), content_length=None, headers=[CHUNKED, BEARER]),
    "refused, expects to be asked": build_request(GOOD, headers=[("Expect", "100-continue")]),
    "let in, expects to be asked": build_request(GOOD, headers=[("Expect", "100-continue"), BEARER]),
    "a recipient to look up": build_request(GOOD | {"toID": 3}, headers=[BEARER]) * 3,
    "a directory that stumbles": build_request(GOOD | {"toID": 666}, headers=[BEARER]),
    "an unknown recipient": build_request(GOOD | {"toID": 77}, headers=[BEARER]),
    "more than the limit": build_request(GOOD, headers=[BEARER]) * (BURST + 2),
    "an Idempotency-Key, repeated": build_request(GOOD, headers=[BEARER, KEY]) * 2,
    "batch": build_request([GOOD, GOOD], target=BATCH, headers=[BEARER]),
    "batch, no credentials": build_request([GOOD, GOOD], target=BATCH),
    "batch, more than the limit": build_request(BATCH_OF_TEN, target=BATCH, headers=[BEARER]) * 2,
    "batch, more than the limit, users to look up": build_request(
        [each | {"toID": 3} for each in BATCH_OF_TEN], target=BATCH, headers=[BEARER]
    )
    * 2,
    "batch that is broken": build_request(b"[{]", target=BATCH, headers=[BEARER]) * 2,
    "batch with invalid items": build_request([GOOD, {}, GOOD], target=BATCH, headers=[BEARER]),
    "another method": build_request(method="GET", content_type=None, content_length=None),
    "another path": build_request(GOOD, target="/v2"),
    "the description": build_request(method="GET", target="/openapi.json", content_type=None, content_length=None),
}
