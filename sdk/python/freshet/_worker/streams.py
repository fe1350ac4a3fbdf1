"""Connections that the host opens to a web app, over the frames: the guest's side of package stream of the Go SDK, on the event loop."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Coroutine, Optional

from freshet._worker import wire

_MAX_CHUNK = 64 << 10


class Gone(ConnectionError):
    """The other side closed the stream."""


class Stream:
    """One connection. At most wire.STREAM_WINDOW bytes are on their way in each direction."""

    def __init__(self, streams: Streams, number: int) -> None:
        self._streams = streams
        self.number = number
        self._received = bytearray()
        self._taken = 0
        self._credit = wire.STREAM_WINDOW
        self._ended = False  # by this side
        self._peer_ended = False
        self.over = False
        self._changed = asyncio.Event()
        #: Set when the stream is over.
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        """What has come, as soon as there is something; empty at the end."""
        while not self._received:
            if self._peer_ended or self.over:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._received)
        self._received.clear()
        self._taken += len(data)
        if self._taken >= wire.STREAM_WINDOW // 2 and not self._peer_ended and not self.over:
            self._streams.writer.write(wire.GUEST_CREDIT, self.number, {"bytes": self._taken})
            self._taken = 0
        return data

    async def write(self, data: bytes) -> None:
        """Sends bytes, waiting for the other side to take them. Gone when it does not any more."""
        view = memoryview(data)
        while len(view):
            if self.over or self._ended:
                raise Gone("the other side closed the connection")
            size = min(len(view), self._credit, _MAX_CHUNK)
            if size == 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            self._credit -= size
            self._streams.writer.write(wire.GUEST_DATA, self.number, None, bytes(view[:size]))
            view = view[size:]

    def close(self, reason: str = "") -> None:
        """Ends the stream; the other side still gets what was written before."""
        if self.over:
            return
        meta = {"kind": "user", "message": reason} if reason else None
        self._streams.writer.write(wire.GUEST_CLOSE, self.number, meta)
        self.end()

    def end(self) -> None:
        self.over = True
        self._streams.forget(self.number)
        self._changed.set()
        self.closed.set()

    def got(self, message: wire.Message) -> None:
        if message.type == wire.DATA:
            if len(self._received) + self._taken + len(message.payload) > wire.STREAM_WINDOW:
                raise wire.ProtocolError(f"more bytes on stream {self.number} than were granted")
            self._received += message.payload
        elif message.type == wire.END:
            self._peer_ended = True
        elif message.type == wire.CREDIT:
            self._credit += int(message.decode().get("bytes", 0))
        else:
            self.end()
        self._changed.set()


class Streams:
    """All streams of a session. Each is given to serve, and ends when that returns."""

    def __init__(self, writer: wire.Writer, serve: Callable[[Stream], Coroutine[Any, Any, None]]) -> None:
        self.writer = writer
        self._serve = serve
        self._last = 0
        self._open: dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, message: wire.Message) -> None:
        """Takes a message of the host for a stream."""
        if message.type == wire.OPEN:
            if message.call <= self._last:
                raise wire.ProtocolError(f"stream {message.call} was opened after stream {self._last}")
            self._last = message.call
            stream = self._open[message.call] = Stream(self, message.call)
            self.writer.write(wire.OPENED, message.call)
            task = asyncio.get_running_loop().create_task(self._run(stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        if message.call > self._last:
            raise wire.ProtocolError(f"message 0x{message.type:02x} for stream {message.call}, which was never opened")
        found: Optional[Stream] = self._open.get(message.call)
        if found is not None:
            found.got(message)

    async def _run(self, stream: Stream) -> None:
        reason = ""
        try:
            await self._serve(stream)
        except Gone:
            pass
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        finally:
            stream.close(reason)

    def forget(self, number: int) -> None:
        self._open.pop(number, None)
