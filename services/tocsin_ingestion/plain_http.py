"""uvicorn's HTTP protocol, for clients that offer to go on in another one.

Such an offer (`Connection: Upgrade` with `Upgrade: h2c`; Java's client makes it on every new connection) may be ignored
(RFC 9110, section 7.8). But the parser takes what follows the head for the other protocol already: uvicorn would answer
without the body, or take it for the next request. So the head is read once more, without its offer, by a new parser,
which then gets the rest. A 426 in its place was refused: these clients do not choose to make the offer.

WebSockets, where they are served, are uvicorn's as ever.
"""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_CONNECT = b"CONNECT"


class PlainProtocol(HttpToolsProtocol):
    """One connection, on which everything is HTTP/1.1 unless it becomes a WebSocket."""

    def data_received(self, data: bytes) -> None:
        """Read what arrived."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_on(upgrade, data)
        except httptools.HttpParserError:
            self._refuse_garbage()

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is to be read once more."""
        if self._is_offer_ignored:
            return
        super().on_headers_complete()
        if self.parser.get_method() == _CONNECT:
            self.cycle.keep_alive = False  # what follows may be anything

    def on_message_complete(self) -> None:
        """End the request; behind an offer it has not even begun."""
        if not self._is_offer_ignored:
            super().on_message_complete()

    @property
    def _is_offer_ignored(self) -> bool:
        parser = self.parser
        return parser.should_upgrade() and parser.get_method() != _CONNECT and not self._should_upgrade()

    def _read_on(self, upgrade: httptools.HttpParserUpgrade, data: bytes) -> None:
        """Go on behind a head with an offer, and behind all others that the same read brought."""
        rest = memoryview(data)
        while True:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
                return
            if not self._is_offer_ignored:
                return
            rest = rest[upgrade.args[0] :]
            try:
                self._read_head_again()
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as another:
                upgrade = another
            except httptools.HttpParserError:
                self._refuse_garbage()
                return
            else:
                return

    def _read_head_again(self) -> None:
        """Give a new parser the head without its offer; what `Connection` says of it then means nothing."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.parser.feed_data(b"\r\n".join((*lines, b"", b"")))

    def _refuse_garbage(self) -> None:
        reason = "Invalid HTTP request received."
        self.logger.warning(reason)
        self.send_400_response(reason)
