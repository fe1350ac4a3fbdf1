"""WebSockets (RFC 6455), the server's side."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Iterable, Union

from freshet._worker.http import BadRequest, Connection, StreamRequest
from freshet._worker.streams import Gone

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_MESSAGE = 16 << 20

_CONTINUED, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Closed(Exception):
    """The other side ended the conversation."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"closed with {code}")
        self.code = code
        self.reason = reason


class WebSocket:
    """A conversation over a connection that was upgraded."""

    def __init__(self, request: StreamRequest) -> None:
        self._request = request
        self._connection: Connection = request.connection
        self._key = request.header(b"sec-websocket-key")
        if request.header(b"sec-websocket-version") != b"13" or len(self._key) != 24:
            raise BadRequest("this server speaks version 13 of WebSocket")
        self._closed = False

    async def accept(self, subprotocol: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Answers the client that the conversation begins."""
        accept = base64.b64encode(hashlib.sha1(self._key + _GUID).digest())
        lines = [b"HTTP/1.1 101 Switching Protocols", b"upgrade: websocket", b"connection: Upgrade", b"sec-websocket-accept: " + accept]
        if subprotocol:
            lines.append(b"sec-websocket-protocol: " + subprotocol.encode("latin-1"))
        lines += [bytes(name) + b": " + bytes(value) for name, value in headers]
        self._request.started = True
        self._request.keep = False
        await self._connection.stream.write(b"\r\n".join(lines) + b"\r\n\r\n")

    async def receive(self) -> Union[str, bytes]:
        """The next message. Closed when there is none."""
        parts: list[bytes] = []
        kind = 0
        while True:
            try:
                final, opcode, data = await self._frame(sum(map(len, parts)))
            except Gone:
                raise Closed(1006) from None
            if opcode == _CLOSE:
                await self._answer_close(data)
            elif opcode == _PING:
                await self._send(_PONG, data)
            elif opcode == _PONG:
                continue
            elif opcode not in (_CONTINUED, _TEXT, _BINARY) or (opcode == _CONTINUED) != bool(parts or kind):
                await self._fail(1002, "a frame that is not due")
            else:
                kind = kind or opcode
                parts.append(data)
                if final:
                    return await self._message(kind, b"".join(parts))

    async def _message(self, kind: int, data: bytes) -> Union[str, bytes]:
        if kind == _BINARY:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            await self._fail(1007, "text that is not UTF-8")
            raise AssertionError from None

    async def _frame(self, held: int) -> tuple[bool, int, bytes]:
        first, second = await self._connection.exactly(2)
        opcode, size = first & 0x0F, second & 0x7F
        if first & 0x70 or not second & 0x80:
            await self._fail(1002, "a frame that is not masked, or has reserved bits")
        if opcode >= _CLOSE and (size > 125 or not first & 0x80):
            await self._fail(1002, "a control frame that is long or in pieces")
        if size == 126:
            (size,) = struct.unpack(">H", await self._connection.exactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await self._connection.exactly(8))
        if size + held > _MAX_MESSAGE:
            await self._fail(1009, f"a message of more than {_MAX_MESSAGE} bytes")
        mask = await self._connection.exactly(4)
        return bool(first & 0x80), opcode, _unmask(mask, await self._connection.exactly(size))

    async def _answer_close(self, data: bytes) -> None:
        code = struct.unpack(">H", data[:2])[0] if len(data) >= 2 else 1005
        await self.close(1000 if code == 1005 else code)
        raise Closed(code, data[2:].decode(errors="replace"))

    async def _fail(self, code: int, reason: str) -> None:
        await self.close(code, reason)
        raise Closed(code, reason)

    async def send(self, message: Union[str, bytes]) -> None:
        if isinstance(message, str):
            await self._send(_TEXT, message.encode())
        else:
            await self._send(_BINARY, bytes(message))

    async def _send(self, opcode: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", 0x80 | opcode, size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
        await self._connection.stream.write(head + data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Ends the conversation."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._send(_CLOSE, struct.pack(">H", code) + reason.encode()[:123])
        except Gone:
            pass


def _unmask(mask: bytes, data: bytes) -> bytes:
    """Takes the mask off: as one large number, which is much faster than byte by byte."""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
