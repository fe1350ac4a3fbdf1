"""Calls of functions that are not async: on the main thread where a worker runs one at a time, else each on its own."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Optional

from freshet._context import Call
from freshet._errors import Cancelled
from freshet._worker import wire

if TYPE_CHECKING:
    from freshet._worker.session import Session

# How long a call runs on the main thread before another one listens to the host in its place.
_TICK = 0.05
# After so many quiet ticks the other one sleeps until there is a call again.
_QUIET_TICKS = 20


def serve(session: Session) -> None:
    """Takes the host's messages until the end."""
    if session.concurrency == 1:
        MainThread(session).serve()
    else:
        ManyThreads(session).serve()


class MainThread:
    """Runs one call at a time, on the main thread, which also reads: a call then waits for no other thread to wake up.

    While a call runs for longer than a moment, the watch reads in its place, so that the call can be cancelled.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._backlog: deque[wire.Message] = deque()
        self._arrived = threading.Semaphore(0)
        # Guarded by the lock: which call runs, how many began, whether the watch reads.
        self._running: Optional[Call] = None
        self._began = 0
        self._watching = False
        self._parked = True
        self._wake = threading.Semaphore(0)
        self._failed: Optional[BaseException] = None

    def serve(self) -> None:
        """Takes the host's messages until the end."""
        self._session.performer.catch_signals()
        threading.Thread(target=self._watch, name="freshet-watch", daemon=True).start()
        while True:
            message = self._next()
            if message.type == wire.CALL:
                self._run(Call(message.call, message.decode(), message.payload))
            elif message.type != wire.CANCEL:  # a cancel read here is for a call that has ended
                self._session.handle(message)

    def _run(self, call: Call) -> None:
        if any(m.type == wire.CANCEL and m.call == call.number for m in self._backlog):
            call.interrupted = Cancelled  # while it waited for the one before
        with self._lock:
            self._running = call
            self._began += 1
            if self._parked:
                self._parked = False
                self._wake.release()
        self._session.performer.perform(call)
        with self._lock:
            self._running = None

    def _next(self) -> wire.Message:
        while True:
            if self._backlog:
                return self._backlog.popleft()
            with self._lock:
                watching = self._watching
            if watching:
                self._arrived.acquire()
            elif self._failed is None:
                self._backlog.extend(self._session.reader.read())
            if self._failed is not None and not self._backlog:
                raise self._failed

    def _watch(self) -> None:
        last, quiet = -1, 0
        while self._failed is None:
            if quiet < _QUIET_TICKS:
                self._wake.acquire(timeout=_TICK)
            else:
                with self._lock:
                    self._parked = True
                self._wake.acquire()
                quiet = 0
            with self._lock:
                began, running = self._began, self._running is not None
                self._watching = running and began == last
            quiet = 0 if began != last or running else quiet + 1
            last = began
            if self._watching:
                self._listen()

    def _listen(self) -> None:
        """Reads until there is something for the main thread."""
        while True:
            try:
                messages = self._session.reader.read()
            except BaseException as error:
                self._failed = error
                messages = []
            for message in messages:
                running = self._running
                if message.type == wire.CANCEL and running is not None and running.number == message.call:
                    self._session.performer.interrupt(running, message.decode().get("kind", ""))
                else:
                    self._backlog.append(message)
            if self._backlog or self._failed is not None:
                with self._lock:
                    self._watching = False
                self._arrived.release()
                return


class ManyThreads:
    """Runs calls beside each other. Whoever reads a call runs it, and another one reads on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._calls: dict[int, Call] = {}
        self._waiting = 0
        self._backlog: deque[wire.Message] = deque()
        self._ended = threading.Event()
        self._failed: Optional[BaseException] = None

    def serve(self) -> None:
        """Takes the host's messages until the end."""
        self._more()
        self._ended.wait()
        if self._failed is not None:
            raise self._failed

    def _more(self) -> None:
        threading.Thread(target=self._take_turns, name="freshet-call", daemon=True).start()

    def _take_turns(self) -> None:
        while True:
            with self._lock:
                self._waiting += 1
            self._reading.acquire()
            with self._lock:
                self._waiting -= 1
                alone = self._waiting == 0
            try:
                call = self._next()
            except BaseException as error:
                self._failed = error
                self._ended.set()
                return  # with the lock: nobody reads any more
            if alone:
                self._more()
            self._reading.release()
            self._session.performer.perform(call)
            with self._lock:
                del self._calls[call.number]
                if not self._calls:
                    self._idle.notify_all()

    def _next(self) -> Call:
        """Handles messages up to a call."""
        while True:
            while self._backlog:
                message = self._backlog.popleft()
                if message.type == wire.CALL:
                    call = Call(message.call, message.decode(), message.payload)
                    with self._lock:
                        self._calls[call.number] = call
                    return call
                if message.type == wire.CANCEL:
                    self._cancel(message)
                    continue
                if message.type in (wire.FREEZE, wire.DRAIN):
                    with self._idle:
                        self._idle.wait_for(lambda: not self._calls)
                self._session.handle(message)
            self._backlog.extend(self._session.reader.read())

    def _cancel(self, message: wire.Message) -> None:
        with self._lock:
            call = self._calls.get(message.call)
        if call is not None:
            self._session.performer.interrupt(call, message.decode().get("kind", ""))
