"""Which call the running code belongs to."""

from __future__ import annotations

import datetime
import threading
from contextvars import ContextVar
from typing import Any, Optional


class Call:
    """One attempt of a call, while it runs. Code of the function gets its own from current()."""

    __slots__ = (
        "_deadline",
        "attempt",
        "content_type",
        "http",
        "id",
        "interrupted",
        "method",
        "number",
        "partial",
        "payload",
        "raised",
        "running",
        "stream",
        "task",
        "thread",
        "traceparent",
    )

    def __init__(self, number: int, meta: dict[str, Any], payload: bytes) -> None:
        self.number = number
        #: The call's id, and which attempt of it this is, from 1.
        self.id: str = meta.get("id", "")
        self.attempt: int = meta.get("attempt", 0)
        #: The method that was called; empty for a plain function.
        self.method: str = meta.get("method", "")
        self.content_type: str = meta.get("content_type", "")
        #: The W3C trace context of the caller.
        self.traceparent: str = meta.get("traceparent", "")
        self.stream: bool = meta.get("stream", False)
        self.http: Optional[dict[str, Any]] = meta.get("http")
        self._deadline: str = meta.get("deadline", "")
        self.payload = payload
        self.running = False
        self.interrupted: Optional[type[BaseException]] = None
        self.raised = False
        self.thread: int = 0
        self.task: Any = None
        self.partial: dict[str, str] = {}

    @property
    def deadline(self) -> Optional[datetime.datetime]:
        """When this attempt times out."""
        text = self._deadline
        if not text:
            return None
        if text.endswith("Z"):
            text = text[:-1] + "+00:00"
        head, dot, rest = text.partition(".")
        if dot:  # nanoseconds are more than Python reads
            digits = len(rest) - len(rest.lstrip("0123456789"))
            text = f"{head}.{rest[:digits][:6]:0<6}{rest[digits:]}"
        return datetime.datetime.fromisoformat(text)


CURRENT: ContextVar[Optional[Call]] = ContextVar("freshet_call", default=None)


class _Worker:
    """Who this worker is; copies of a snapshot get an identity of their own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.identity: dict[str, Any] = {}


WORKER = _Worker()


def current() -> Call:
    """The call that the running code belongs to. LookupError outside of one."""
    call = CURRENT.get()
    if call is None:
        raise LookupError("no call is running here: ask within the function that is called")
    return call


def worker() -> dict[str, Any]:
    """The identity of this worker: namespace, app, function, version, alloc. Empty outside of a worker."""
    return dict(WORKER.identity)
