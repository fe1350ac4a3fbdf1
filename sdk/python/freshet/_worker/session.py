"""A worker's session with its supervisor: greeting, hooks, freeze and thaw, and the end."""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Any

from freshet._context import WORKER
from freshet._worker import entry, failure, logs, quiet, wire
from freshet._worker.perform import Performer

#: Where the function's own modules are in the sandbox.
CODE = "/.freshet/code"

# Above the descriptors that a program is likely to close without looking.
_HIGH = 700


class Done(Exception):
    """The session is over, as the host asked."""


class Failed(Exception):
    """This worker cannot serve, and the host was told why."""


class Session:
    """What both ways to run calls have in common: those of threads and that of an event loop."""

    def __init__(self, reader: wire.Reader, writer: wire.Writer) -> None:
        self.reader = reader
        self.writer = writer
        self.logs = logs.Logs(writer)
        self.target: entry.Target
        self.performer: Performer
        self.concurrency = 1
        self._early: list[wire.Message] = []

    def greet(self) -> dict[str, Any]:
        """Answers the host's greeting, and returns it."""
        while not self._early:
            self._early = self.reader.read()
        message = self._early.pop(0)
        if message.type != wire.HELLO:
            raise wire.ProtocolError(f"the host sent message 0x{message.type:02x} before its greeting")
        hello = message.decode()
        try:
            version = wire.negotiate(hello)
        except wire.ProtocolError as error:
            raise self.fail(error) from None
        # Whether the entry is a web app is known only when its module is loaded, which may take long. One that is none refuses.
        sdk = f"python/{sys.version_info[0]}.{sys.version_info[1]}"
        self.writer.write(wire.WELCOME, 0, {"version": version, "sdk": sdk, "streams": True})
        WORKER.identity = hello.get("identity") or {}
        self.concurrency = max(1, int(hello.get("concurrency") or 1))
        return hello

    def load(self, hello: dict[str, Any], code: str) -> None:
        """Imports what the entry names."""
        entry.prepare_path(code)
        try:
            self.target = entry.load(str(hello.get("entry", "")))
        except BaseException as error:  # SystemExit of a module that is a program, too
            raise self.fail(error) from None
        logs.carry_into_pools()
        most = int(hello.get("max_payload") or wire.DEFAULT_MAX_PAYLOAD)
        self.performer = Performer(self.target, self.writer, self.logs, most)

    def fail(self, error: BaseException) -> Failed:
        """Tells the host why this worker cannot serve."""
        self.writer.write(wire.FAILED, 0, failure.meta(error))
        return Failed(str(error))

    def hooks(self, name: str) -> None:
        """Runs the hooks of a kind. Failed when one of them does."""
        for hook in self.target.hooks[name]:
            try:
                hook()
            except BaseException as error:
                raise self.fail(error) from None

    def ready(self) -> None:
        self.writer.write(wire.READY)

    def handle(self, message: wire.Message) -> None:
        """Handles a message about the whole worker, on which no call runs. Done when it was the last one."""
        if message.type == wire.FREEZE:
            self.hooks("before_freeze")
            quiet.collect()
            self.writer.write(wire.FROZEN)
        elif message.type == wire.THAWED:
            self.thaw(message)
            self.hooks("after_thaw")
            self.ready()
        elif message.type == wire.DRAIN:
            self.hooks("exit")
            self.writer.write(wire.DRAINED)
            raise Done
        elif message.type == wire.OPEN:
            reason = {"kind": "user", "message": f"{self.target.name} is no web app, so it takes calls and no connections"}
            self.writer.write(wire.GUEST_CLOSE, message.call, reason)
        elif not wire.DATA <= message.type <= wire.CLOSE:  # what is left of a refused stream
            raise wire.ProtocolError(f"the host sent message 0x{message.type:02x}, which a guest does not take")

    def thaw(self, message: wire.Message) -> None:
        """Makes a frozen worker, or a copy of it, one of its own."""
        import base64

        meta = message.decode()
        WORKER.identity = meta.get("identity") or {}
        quiet.renew(base64.b64decode(meta.get("entropy") or ""))


def _take_descriptors() -> tuple[int, int]:
    """Keeps the protocol's descriptors where nobody prints on them, and leaves harmless ones in their places."""
    try:
        incoming = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        outgoing = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except OSError:  # a low limit of open files
        incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


def main(code: str = CODE) -> int:
    """Serves calls until the host closes the input or asks for the end."""
    sys.dont_write_bytecode = True
    incoming, outgoing = _take_descriptors()
    writer = wire.Writer(outgoing)
    session = Session(wire.Reader(incoming), writer)
    os.register_at_fork(after_in_child=lambda: _leave(writer, incoming, outgoing))
    session.logs.install()
    try:
        session.load(session.greet(), code)
        if session.target.asynchronous:
            from freshet._worker import loop

            loop.serve(session)
        else:
            from freshet._worker import threads

            session.hooks("enter")
            session.ready()
            threads.serve(session)
    except (Done, EOFError):
        return 0
    except Failed:
        return 1
    except wire.ProtocolError as error:
        sys.stderr.write(f"freshet: {error}\n")
        return 1
    return 1


def _leave(writer: wire.Writer, *descriptors: int) -> None:
    """In a child process: the host knows nothing of it, and hears nothing from it."""
    writer.silence()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)
