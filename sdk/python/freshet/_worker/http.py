"""HTTP/1.1 as a web app's server speaks it with the host's proxy, over a stream."""

from __future__ import annotations

import asyncio
from typing import Iterable, Optional

from freshet._worker.streams import Gone, Stream

_MAX_HEAD = 64 << 10
_MAX_CHUNK_HEAD = 4 << 10

Headers = list[tuple[bytes, bytes]]


class BadRequest(Exception):
    """What came is no request."""


class Connection:
    """Reads requests from a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def head(self) -> Optional[bytes]:
        """The next request's head; None when the other side is done."""
        while True:
            at = self._buffer.find(b"\r\n\r\n")
            if at >= 0:
                head = bytes(self._buffer[:at])
                del self._buffer[: at + 4]
                return head
            if len(self._buffer) > _MAX_HEAD:
                raise BadRequest(f"the head is longer than {_MAX_HEAD} bytes")
            if not await self._more():
                if self._buffer.strip():
                    raise BadRequest("the head is cut short")
                return None

    async def _more(self) -> bool:
        data = await self.stream.read()
        self._buffer += data
        return bool(data)

    async def some(self, most: int) -> bytes:
        """At least one byte and at most so many; Gone at the end."""
        if not self._buffer and not await self._more():
            raise Gone("the other side closed the connection within a request")
        data = bytes(self._buffer[:most])
        del self._buffer[: len(data)]
        return data

    async def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not await self._more():
                raise Gone("the other side closed the connection within a message")
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > _MAX_CHUNK_HEAD or not await self._more():
                raise BadRequest("a chunk's head is wrong")
        line, _, rest = bytes(self._buffer).partition(b"\r\n")
        self._buffer[:] = rest
        return line


class Request:
    """One request, with its body to be read and its answer to be sent. What runs the app knows nothing else."""

    def __init__(self, method: str, target: str, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.version = "1.1"
        self.started = False
        self.finished = asyncio.Event()

    def header(self, name: bytes) -> bytes:
        """The values of a header, joined."""
        return b", ".join(value for key, value in self.headers if key == name)

    async def body(self) -> bytes:
        """The next piece of the body, empty at its end. Gone when the client went away."""
        raise NotImplementedError

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        raise NotImplementedError

    async def send(self, data: bytes) -> None:
        raise NotImplementedError

    async def finish(self) -> None:
        raise NotImplementedError

    async def gone(self) -> None:
        """Waits until the client goes away."""
        raise NotImplementedError


class StreamRequest(Request):
    """A request that came over a stream."""

    def __init__(self, connection: Connection, head: bytes) -> None:
        method, target, version, headers = _parse(head)
        super().__init__(method, target, headers)
        self.version = version
        self.connection = connection
        self._chunked = b"chunked" in self.header(b"transfer-encoding").lower()
        self._left = 0 if self._chunked else _length(self.header(b"content-length"))
        self._first = True
        self._read = not self._chunked and self._left == 0
        self._continue = self.header(b"expect").lower() == b"100-continue"
        self._answer_chunked = False
        self._no_body = False
        self.keep = version == "1.1" and b"close" not in self.header(b"connection").lower()

    @property
    def websocket(self) -> bool:
        return self.header(b"upgrade").lower() == b"websocket" and b"upgrade" in self.header(b"connection").lower()

    async def body(self) -> bytes:
        if self._read:
            return b""
        if self._continue:
            self._continue = False
            await self.connection.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._chunked and self._left == 0:
            await self._chunk()
            if self._read:
                return b""
        data = await self.connection.some(min(self._left, 64 << 10))
        self._left -= len(data)
        if not self._chunked and self._left == 0:
            self._read = True
        return data

    async def _chunk(self) -> None:
        """Reads a chunk's head; after the last one the trailers, which no app gets."""
        if not self._first and await self.connection.line():
            raise BadRequest("a chunk does not end where it says")
        self._first = False
        text = (await self.connection.line()).partition(b";")[0].strip()
        try:
            self._left = int(text, 16)
        except ValueError:
            raise BadRequest(f"a chunk's size is {text[:20]!r}") from None
        if self._left == 0:
            self._read = True
            while await self.connection.line():
                pass

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.started = True
        sent = [(bytes(name).lower(), bytes(value)) for name, value in headers]
        self._no_body = self.method == "HEAD" or status in (204, 304)
        known = any(name == b"content-length" for name, _ in sent)
        lines = [b"HTTP/1.1 %d %s" % (status, _REASONS.get(status, b""))]
        lines += [name + b": " + _one_line(value) for name, value in sent if name not in (b"transfer-encoding", b"connection")]
        if not known and not self._no_body:
            if self.version == "1.1":
                self._answer_chunked = True
                lines.append(b"transfer-encoding: chunked")
            else:
                self.keep = False
        if not self.keep:
            lines.append(b"connection: close")
        await self.connection.stream.write(b"\r\n".join(lines) + b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        if not data or self._no_body:
            return
        if self._answer_chunked:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        await self.connection.stream.write(data)

    async def finish(self) -> None:
        if self.finished.is_set():
            return
        self.finished.set()
        if self._answer_chunked:
            await self.connection.stream.write(b"0\r\n\r\n")
        if not self._read:  # what nobody wanted would be read as the next request
            self.keep = False

    async def gone(self) -> None:
        await self.connection.stream.closed.wait()


def _parse(head: bytes) -> tuple[str, str, str, Headers]:
    first, *lines = head.lstrip(b"\r\n").split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0") or not words[0].isalpha():
        raise BadRequest(f"no request begins with {first[:50]!r}")
    headers: Headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.strip() != name:
            raise BadRequest(f"no header is {line[:50]!r}")
        headers.append((name.lower(), value.strip()))
    return words[0].decode(), words[1].decode("latin-1"), words[2][5:].decode(), headers


def _length(text: bytes) -> int:
    if not text:
        return 0
    if not text.isdigit():
        raise BadRequest(f"no content-length is {text[:20]!r}")
    return int(text)


def _one_line(value: bytes) -> bytes:
    """A header's value without what would begin another one."""
    return value.replace(b"\r", b" ").replace(b"\n", b" ")


def _reasons() -> dict[int, bytes]:
    from http import HTTPStatus

    return {status.value: status.phrase.encode() for status in HTTPStatus}


_REASONS = _reasons()
