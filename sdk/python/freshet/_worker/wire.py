"""The frames between a worker's supervisor and this process; package wire of the Go SDK says what each means."""

from __future__ import annotations

import json
import os
import struct
import threading
from types import FrameType
from typing import Any, Callable, Iterable, NamedTuple, Optional

VERSION = 2
MIN_VERSION = 1

MAX_FRAME = 256 << 10
MAX_META = 64 << 10
DEFAULT_MAX_PAYLOAD = 64 << 20
STREAM_WINDOW = 256 << 10
MAX_PARTIAL = 4096

# The host's messages.
HELLO, CALL, CANCEL, FREEZE, THAWED, DRAIN = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
OPEN, DATA, END, CREDIT, CLOSE = 0x07, 0x08, 0x09, 0x0A, 0x0B

# The guest's messages.
WELCOME, READY, FAILED, RESULT, FAILURE, YIELD, LOG = 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87
FROZEN, DRAINED = 0x88, 0x89
OPENED, GUEST_DATA, GUEST_END, GUEST_CREDIT, GUEST_CLOSE = 0x8A, 0x8B, 0x8C, 0x8D, 0x8E

_MAGIC = 0xF552
_MORE = 1
_HEADER = struct.Struct(">HBBQI")
_FIRST = struct.Struct(">HBBQII")
_LENGTH = struct.Struct(">I")
_READ = 256 << 10


class ProtocolError(Exception):
    """The host sent what is no frame. Nothing more can be read from it."""


class Message(NamedTuple):
    """One whole message."""

    type: int
    call: int
    meta: bytes
    payload: bytes

    def decode(self) -> dict[str, Any]:
        """The meta as the JSON object that it must be."""
        try:
            meta = json.loads(self.meta)
        except ValueError as error:
            raise ProtocolError(f"malformed meta of message 0x{self.type:02x}: {error}") from None
        if not isinstance(meta, dict):
            raise ProtocolError(f"malformed meta of message 0x{self.type:02x}: it is no JSON object")
        return meta


class Reader:
    """Cuts what comes from a descriptor into messages. One thread at a time may use it."""

    def __init__(self, fd: int, max_payload: int = DEFAULT_MAX_PAYLOAD) -> None:
        self.fd = fd
        self._max_payload = max_payload
        self._rest = b""
        self._partial: dict[tuple[int, int], tuple[bytes, list[bytes]]] = {}
        self._held = 0

    def read(self) -> list[Message]:
        """Waits for bytes, and returns the messages that they complete: none or several. EOFError when the host is gone."""
        data = os.read(self.fd, _READ)
        if not data:
            raise EOFError("the host is gone")
        if self._rest:
            data = self._rest + data
        messages: list[Message] = []
        at, end = 0, len(data)
        while end - at >= 16:
            magic, kind, flags, call, size = _HEADER.unpack_from(data, at)
            if magic != _MAGIC or flags & ~_MORE or not _known(kind):
                raise ProtocolError(f"the host sent no frame: {data[at : at + 16]!r}")
            if size > MAX_FRAME:
                raise ProtocolError(f"a frame of {size} bytes is over the limit of {MAX_FRAME}")
            after = at + 16 + size
            if after > end:
                break
            if not flags and (kind, call) not in self._partial:  # nearly all are of one frame
                messages.append(self._whole(kind, call, data, at + 16, after))
            else:
                self._continued(messages, kind, call, flags, data, at + 16, after)
            at = after
        self._rest = data[at:] if at else data
        return messages

    def _whole(self, kind: int, call: int, data: bytes, at: int, end: int) -> Message:
        start = _split(data, at, end)
        if end - start > self._max_payload:
            raise ProtocolError(f"a payload is over the limit of {self._max_payload} bytes")
        return Message(kind, call, data[at + 4 : start], data[start:end])

    def _continued(self, messages: list[Message], kind: int, call: int, flags: int, data: bytes, at: int, end: int) -> None:
        key = (kind, call)
        partial = self._partial.get(key)
        if partial is None:
            start = _split(data, at, end)
            partial = self._partial[key] = (data[at + 4 : start], [])
            at = start
        partial[1].append(data[at:end])
        self._held += end - at
        if len(self._partial) > MAX_PARTIAL or self._held > 4 * self._max_payload:
            raise ProtocolError(f"{len(self._partial)} incomplete messages of {self._held} bytes are over the limit")
        size = sum(map(len, partial[1]))
        if size > self._max_payload:
            raise ProtocolError(f"a payload is over the limit of {self._max_payload} bytes")
        if not flags:
            del self._partial[key]
            self._held -= size
            messages.append(Message(kind, call, partial[0], b"".join(partial[1])))


def _known(kind: int) -> bool:
    return HELLO <= kind <= CLOSE or WELCOME <= kind <= GUEST_CLOSE


def _split(data: bytes, at: int, end: int) -> int:
    """Where the payload begins behind the meta."""
    if end - at < 4:
        raise ProtocolError("a message has no meta length")
    (size,) = _LENGTH.unpack_from(data, at)
    if size > MAX_META or size > end - at - 4:
        raise ProtocolError(f"a meta of {size} bytes does not fit")
    return at + 4 + size


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def frames(kind: int, call: int, meta: Optional[dict[str, Any]], payload: bytes = b"") -> bytes:
    """A message as its frames."""
    head = _encode(meta).encode("utf-8", "replace") if meta is not None else b""
    if len(head) > MAX_META:
        raise ValueError(f"meta of {len(head)} bytes is over the limit of {MAX_META}")
    size = 4 + len(head) + len(payload)
    if size <= MAX_FRAME:
        return b"".join((_FIRST.pack(_MAGIC, kind, 0, call, size, len(head)), head, payload))
    room = MAX_FRAME - 4 - len(head)
    view = memoryview(payload)
    parts: list[Any] = [_FIRST.pack(_MAGIC, kind, _MORE, call, MAX_FRAME, len(head)), head, view[:room]]
    for at in range(room, len(payload), MAX_FRAME):
        piece = view[at : at + MAX_FRAME]
        more = _MORE if at + len(piece) < len(payload) else 0
        parts += (_HEADER.pack(_MAGIC, kind, more, call, len(piece)), piece)
    return b"".join(parts)


class Writer:
    """Writes messages. It is safe for concurrent use.

    An exception that another thread raises in this one must never leave half a message behind. So a message is given to a
    buffered writer in one call: that writes all of it before any Python code runs again.
    """

    def __init__(self, fd: int) -> None:
        self._out = open(fd, "wb", buffering=MAX_FRAME, closefd=False)  # noqa: SIM115 - lives as long as the process
        self._lock = threading.Lock()
        self._deferred: Optional[Callable[[], None]] = None
        self.dead = False

    def write(self, kind: int, call: int = 0, meta: Optional[dict[str, Any]] = None, payload: bytes = b"") -> None:
        self.send((frames(kind, call, meta, payload),))

    def send(self, messages: Iterable[bytes]) -> None:
        """Writes whole messages that frames made."""
        data = b"".join(messages)
        with self._lock:
            if self.dead:
                return
            self._out.write(data)
            self._out.flush()
        if self._deferred is not None:
            deferred, self._deferred = self._deferred, None
            deferred()

    def held(self) -> threading.Lock:
        """A lock under which no message is being written."""
        return self._lock

    def defer(self, frame: Optional[FrameType], action: Callable[[], None]) -> bool:
        """For a signal's handler that would raise: whether it came while its thread writes a message, and will be made up for."""
        if frame is None or frame.f_code is not Writer.send.__code__:
            return False
        self._deferred = action
        return True

    def silence(self) -> None:
        """Writes nothing from now on: this process is a copy that the host knows nothing of."""
        self._lock = threading.Lock()  # the one who held it is not in this process
        self.dead = True


def negotiate(hello: dict[str, Any]) -> int:
    """The version to speak with a host that offers a range; ProtocolError when there is none in common."""
    low, high = hello.get("min_version", 0), hello.get("version", 0)
    if not isinstance(low, int) or not isinstance(high, int) or low > VERSION or high < MIN_VERSION:
        raise ProtocolError(f"no protocol version in common: the host speaks {low} to {high}, this runtime {MIN_VERSION} to {VERSION}")
    return min(high, VERSION)
