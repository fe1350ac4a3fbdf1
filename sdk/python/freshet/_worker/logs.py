"""What the user's code prints becomes log lines of the call that printed it, from threads too."""

from __future__ import annotations

import contextvars
import datetime
import io
import os
import sys
import threading
from typing import Any, Callable, Optional

from freshet._context import CURRENT, Call
from freshet._worker import wire

# What is printed outside of calls has this in a call's place.
_NOBODY = Call(0, {}, b"")
_MAX_LINE = 64 << 10


class _Bytes(io.RawIOBase):
    """What stands behind a stream for those who write bytes to it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def close(self) -> None:
        """Closing would silence the calls that come later."""


class Stream(io.TextIOBase):
    """Standard output or error of the user's code."""

    def __init__(self, writer: wire.Writer, level: str, fd: int) -> None:
        self._writer = writer
        self._level = level
        self._fd = fd
        self._lock = threading.Lock()
        self._bytes = _Bytes(self)

    @property
    def buffer(self) -> Any:
        return self._bytes

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> Optional[str]:  # type: ignore[override]
        return "backslashreplace"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """Closing would silence the calls that come later."""

    def reconfigure(self, **_: Any) -> None:
        """Part of what programs expect of standard output."""

    def write(self, text: str) -> int:
        call = CURRENT.get() or _NOBODY
        lines = None
        with self._lock:
            rest = call.partial.get(self._level, "") + text
            if "\n" in text or len(rest) > _MAX_LINE:
                *lines, rest = rest.split("\n")
                while len(rest) > _MAX_LINE:
                    lines.append(rest[:_MAX_LINE])
                    rest = rest[_MAX_LINE:]
            call.partial[self._level] = rest
        if lines:
            self._emit(call, lines)
        return len(text)

    def finish(self, call: Call) -> None:
        """Logs what a call printed last, without the end of its line."""
        with self._lock:
            rest = call.partial.pop(self._level, "")
        if rest:
            self._emit(call, [rest])

    def _emit(self, call: Call, lines: list[str]) -> None:
        if self._writer.dead:
            os.write(2, ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
            return
        meta = {"time": datetime.datetime.now(datetime.timezone.utc).isoformat(), "level": self._level}
        self._writer.send([wire.frames(wire.LOG, call.number, meta, piece) for line in lines for piece in _pieces(line)])

    def renew(self) -> None:
        """For a child process: whoever held the lock is not in it."""
        self._lock = threading.Lock()


def _pieces(line: str) -> list[bytes]:
    data = line.encode("utf-8", "backslashreplace")
    return [data[at : at + _MAX_LINE] for at in range(0, len(data), _MAX_LINE)] or [b""]


class Logs:
    """Takes the place of the interpreter's standard streams."""

    def __init__(self, writer: wire.Writer) -> None:
        self._streams = (Stream(writer, "info", 1), Stream(writer, "warn", 2))

    def install(self) -> None:
        sys.stdout, sys.stderr = self._streams
        sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc,assignment]
        threading.Thread.start = _carrying(threading.Thread.start)  # type: ignore[method-assign]
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        for stream in self._streams:
            stream.renew()

    def finish(self, call: Call) -> None:
        if call.partial:
            for stream in self._streams:
                stream.finish(call)


def _carrying(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """Makes threads belong to the call that starts them."""

    def carry(thread: threading.Thread) -> None:
        if CURRENT.get() is not None:
            context, run = contextvars.copy_context(), thread.run
            thread.run = lambda: context.run(run)  # type: ignore[method-assign]
        start(thread)

    return carry


def carry_into_pools() -> None:
    """Makes what a pool runs belong to the call that submitted it; pools outlive calls. Once, when the module is there."""
    module = sys.modules.get("concurrent.futures.thread")
    pool = getattr(module, "ThreadPoolExecutor", None)
    if pool is None or hasattr(pool.submit, "freshet"):
        return
    submit = pool.submit

    def carry(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if CURRENT.get() is None:
            return submit(self, fn, *args, **kwargs)
        return submit(self, contextvars.copy_context().run, fn, *args, **kwargs)

    carry.freshet = True  # type: ignore[attr-defined]
    pool.submit = carry
