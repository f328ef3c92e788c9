"""libcurl's transfers in the event loop: asks libcurl what it waits for, waits, and tells it what has come.

pycurl's own AsyncCurlMulti gives the loop each socket anew for each request, which with uvloop takes nine system calls
and a handle that is made and closed: more than all that libcurl does for a request. Here the sockets stand in an epoll
of their own, and only that stands in the loop: it says in one callback what has come on all of them. Python's selectors
were refused: they look a socket up four times for each request, for half of what this saves.

    perform ──► libcurl ──┬─ "watch this socket" ──► epoll ──► loop ──┬──► socket_action ──► answers ──► futures
                          └─ "wake me in so many ms" ──────► timer ───┘
"""

from __future__ import annotations

import asyncio
import select

import pycurl

# What libcurl waits for, in epoll's words; and what epoll has seen, in libcurl's: a socket that fails can be read.
WAITS = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
READABLE = ~select.EPOLLOUT
WRITABLE = select.EPOLLOUT


class EpollMulti:
    """All transfers of one pool of connections, in the loop that the first of them was begun in.

    It has those of AsyncCurlMulti's methods that Tocsin uses, which takes its place where there is no epoll.
    """

    def __init__(self) -> None:
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_alarm)
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._answers: dict[pycurl.Curl, asyncio.Future[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_turn_due = False
        self._alarm_at: float | None = None
        self._timer: asyncio.Handle | None = None
        self._rings_at = 0.0  # not asked of the timer: uvloop's does not know when it is due at once

    def setopt(self, option: int, value: int) -> None:
        """Set an option of libcurl's for all of them."""
        self._multi.setopt(option, value)

    async def perform(self, curl: pycurl.Curl) -> None:
        """Return when the transfer has ended. Raise pycurl.error if it failed."""
        loop = self._loop or self._join_loop()
        try:
            self._multi.add_handle(curl)
        except pycurl.error as error:
            raise _given_up(error) from error
        answer = self._answers[curl] = loop.create_future()
        try:
            await answer
        finally:
            if self._answers.pop(curl, None) is not None:  # cancelled
                self._multi.remove_handle(curl)

    async def aclose(self) -> None:
        """Cancel what runs and close all connections."""
        if self._multi.closed:
            return
        for curl, answer in self._answers.items():
            self._multi.remove_handle(curl)
            answer.cancel()
        self._answers.clear()
        if self._loop is not None:
            self._loop.remove_reader(self._epoll)
        if self._timer is not None:
            self._timer.cancel()
        self._multi.close()
        self._epoll.close()

    def _join_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll, self._read_sockets)
        return self._loop

    def _watch(self, what: int, socket: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        """Watch a socket from now on, for what libcurl waits for (libcurl calls this)."""
        events = WAITS.get(what, 0)
        if not events:
            if socket in self._watched:
                self._watched.remove(socket)
                self._epoll.unregister(socket)
        elif socket in self._watched:
            self._epoll.modify(socket, events)
        else:
            self._watched.add(socket)
            self._epoll.register(socket, events)

    def _set_alarm(self, milliseconds: int) -> None:
        """Come back after so much time in place of what was said before, or never if negative (libcurl calls this).

        It says so for every request, and nearly always a later moment: the timer is left where it stands.
        """
        if self._loop is None:
            return
        self._alarm_at = None if milliseconds < 0 else self._loop.time() + milliseconds / 1000
        if milliseconds == 0:
            if not self._is_turn_due:
                self._is_turn_due = True
                self._loop.call_soon(self._take_turn)
        elif self._alarm_at is not None and (self._timer is None or self._rings_at > self._alarm_at):
            self._set_timer(self._loop, self._alarm_at)

    def _set_timer(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = loop.call_at(at, self._ring, loop), at

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._alarm_at is None:
            return
        if self._alarm_at > loop.time():
            self._set_timer(loop, self._alarm_at)
        else:
            self._take_turn()

    def _take_turn(self) -> None:
        """Have libcurl do what does not wait for a socket: begin what was added, end what takes too long."""
        self._is_turn_due = False
        if not self._multi.closed:
            self._act(pycurl.SOCKET_TIMEOUT, 0)
            self._hand_out()

    def _read_sockets(self) -> None:
        for socket, events in self._epoll.poll(0):
            seen = (pycurl.CSELECT_IN if events & READABLE else 0) | (pycurl.CSELECT_OUT if events & WRITABLE else 0)
            self._act(socket, seen)
        self._hand_out()

    def _act(self, socket: int, events: int) -> None:
        try:
            self._multi.socket_action(socket, events)
        except pycurl.error as error:  # libcurl has lost its way: there will be no answers
            for curl in list(self._answers):
                self._end(curl, _given_up(error))

    def _hand_out(self) -> None:
        _, ended, failed = self._multi.info_read()
        for curl in ended:
            self._end(curl, None)
        for curl, code, text in failed:
            self._end(curl, pycurl.error(code, text))

    def _end(self, curl: pycurl.Curl, error: pycurl.error | None) -> None:
        self._multi.remove_handle(curl)
        answer = self._answers.pop(curl)
        if answer.done():  # cancelled a moment ago
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)


def _given_up(error: pycurl.error) -> pycurl.error:
    """Return how a transfer ended that libcurl could not go on with; its codes for that mean other things of one."""
    return pycurl.error(pycurl.E_ABORTED_BY_CALLBACK, str(error))
