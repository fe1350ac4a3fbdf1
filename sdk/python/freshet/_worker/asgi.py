"""Runs ASGI apps: requests, WebSockets, and their lifespan."""

from __future__ import annotations

import asyncio
from typing import Any, Optional
from urllib.parse import unquote

from freshet._worker.http import Request, StreamRequest
from freshet._worker.streams import Gone
from freshet._worker.websocket import Closed, WebSocket


class LifespanFailed(Exception):
    """The app said that it cannot start."""


class App:
    """An ASGI app."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._lifespan: Optional[asyncio.Task[None]] = None

    async def start(self) -> None:
        """Begins the app's life, if it wants to know of that."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        self._lifespan = asyncio.get_running_loop().create_task(self._live(scope))
        await self._tell("lifespan.startup")

    async def _live(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, self._events.get, self._answers.put)
        except Exception:  # it knows nothing of lifespans
            pass

    async def _tell(self, event: str) -> None:
        if self._lifespan is None or self._lifespan.done():
            return
        await self._events.put({"type": event})
        answered = asyncio.get_running_loop().create_task(self._answers.get())
        await asyncio.wait({answered, self._lifespan}, return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            answered.cancel()
            return
        answer = answered.result()
        if answer.get("type") == event + ".failed":
            raise LifespanFailed(answer.get("message", "") or f"the app failed at {event}")

    async def stop(self) -> None:
        """Ends the app's life."""
        await self._tell("lifespan.shutdown")

    async def run(self, request: Request) -> None:
        """Answers a request."""
        scope = self._scope("http", request)
        scope["method"] = request.method
        done = False

        async def receive() -> dict[str, Any]:
            nonlocal done
            if not done:
                try:
                    data = await request.body()
                except Gone:
                    return {"type": "http.disconnect"}
                done = not data
                return {"type": "http.request", "body": data, "more_body": not done}
            await _first(request.gone(), request.finished.wait())
            return {"type": "http.disconnect"}

        async def send(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.start":
                await request.start(event["status"], event.get("headers", ()))
            elif event["type"] == "http.response.body":
                if not request.started:
                    raise RuntimeError("the app sent a body before http.response.start")
                await request.send(bytes(event.get("body", b"")))
                if not event.get("more_body", False):
                    await request.finish()
            else:
                raise RuntimeError(f"the app sent {event['type']!r} to a request")

        await self._app(scope, receive, send)
        if not request.started:
            raise RuntimeError("the app returned without an answer")
        await request.finish()

    async def run_websocket(self, request: StreamRequest) -> None:
        """Holds a WebSocket's conversation."""
        socket = WebSocket(request)
        scope = self._scope("websocket", request)
        protocols = request.header(b"sec-websocket-protocol").decode("latin-1")
        scope["subprotocols"] = [p.strip() for p in protocols.split(",") if p.strip()]
        state = "connecting"

        async def receive() -> dict[str, Any]:
            nonlocal state
            if state == "connecting":
                state = "asked"
                return {"type": "websocket.connect"}
            try:
                message = await socket.receive()
            except Closed as closed:
                state = "closed"
                return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
            if isinstance(message, str):
                return {"type": "websocket.receive", "text": message}
            return {"type": "websocket.receive", "bytes": message}

        async def send(event: dict[str, Any]) -> None:
            nonlocal state
            kind = event["type"]
            if kind == "websocket.accept":
                await socket.accept(event.get("subprotocol") or "", event.get("headers", ()))
                state = "open"
            elif kind == "websocket.send" and state == "open":
                text = event.get("text")
                await socket.send(text if text is not None else event.get("bytes") or b"")
            elif kind == "websocket.close" and state == "open":
                state = "closed"
                await socket.close(event.get("code") or 1000, event.get("reason") or "")
            elif kind == "websocket.close":
                state = "closed"
                await _refuse(request)
            elif state == "closed":
                raise Gone("the conversation has ended")
            else:
                raise RuntimeError(f"the app sent {kind!r} to a WebSocket that is {state}")

        try:
            await self._app(scope, receive, send)
        except Exception:
            if state == "open":
                await socket.close(1011)
            raise
        if state == "open":
            await socket.close()
        elif not request.started:
            await _refuse(request)

    def _scope(self, kind: str, request: Request) -> dict[str, Any]:
        path, _, query = request.target.partition("?")
        secure = request.header(b"x-forwarded-proto").lower() == b"https"
        schemes = {"http": ("http", "https"), "websocket": ("ws", "wss")}[kind]
        host, _, port = request.header(b"host").decode("latin-1").partition(":")
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "scheme": schemes[secure],
            "path": unquote(path),
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": request.headers,
            "server": (host or "localhost", int(port) if port.isdigit() else (443 if secure else 80)),
            "client": _client(request),
            "state": dict(self._state),
        }


def _client(request: Request) -> Optional[tuple[str, int]]:
    """Who asks, as the proxy says."""
    first = request.header(b"x-forwarded-for").partition(b",")[0].strip().decode("latin-1")
    return (first, 0) if first else None


async def _refuse(request: StreamRequest) -> None:
    request.keep = False
    await request.start(403, [(b"content-length", b"0")])


async def _first(*waits: Any) -> None:
    """Waits until one of them is over."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
