"""Web apps: requests that come over streams, and calls as requests."""

from __future__ import annotations

import asyncio
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterable, Union

from freshet._context import Call
from freshet._errors import InputError, OutputError
from freshet._worker import asgi, wire, wsgi
from freshet._worker.http import BadRequest, Connection, Headers, Request, StreamRequest
from freshet._worker.session import Session
from freshet._worker.streams import Stream, Streams

# What a caller may repeat later although the status says that the request is wrong.
_NOT_INPUT = (408, 425, 429)


class RequestFailed(Exception):
    """A web app answered a call with a status that is an error."""


class Server:
    """Serves a web app."""

    def __init__(self, session: Session, pool: ThreadPoolExecutor) -> None:
        self._session = session
        target = session.target
        self._app: Union[asgi.App, wsgi.App] = wsgi.App(target.app, pool) if target.web == "wsgi" else asgi.App(target.app)
        self._streams = Streams(session.writer, self._serve)
        self._idle: set[Stream] = set()
        self._busy = 0
        self._stopping = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def start(self) -> None:
        """Begins the app's life. Failed when it does not want to."""
        try:
            await self._app.start()
        except Exception as error:
            raise self._session.fail(error) from None

    def handle(self, message: wire.Message) -> None:
        """Takes a message for a stream."""
        self._streams.handle(message)

    async def quiesce(self) -> None:
        """Lets requests finish and closes what connections there are."""
        self._close_idle()
        await self._quiet.wait()
        self._close_idle()

    async def stop(self) -> None:
        """Ends the app's life, after its last request."""
        self._stopping = True
        await self.quiesce()
        await self._app.stop()

    def _close_idle(self) -> None:
        for stream in list(self._idle):
            stream.close()

    async def _serve(self, stream: Stream) -> None:
        """Answers a connection's requests, one after another."""
        connection = Connection(stream)
        keep = True
        while keep and not self._stopping:
            self._idle.add(stream)
            try:
                head = await connection.head()
            except BadRequest as error:
                await _answer_bad(stream, error)
                return
            finally:
                self._idle.discard(stream)
            if head is None:
                return
            keep = await self._answer(connection, head)

    async def _answer(self, connection: Connection, head: bytes) -> bool:
        """Answers one request, and tells whether another one may come."""
        self._busy += 1
        self._quiet.clear()
        try:
            request = StreamRequest(connection, head)
        except BadRequest as error:
            await _answer_bad(connection.stream, error)
            return False
        else:
            await self._run(request)
            return request.keep
        finally:
            self._busy -= 1
            if not self._busy:
                self._quiet.set()

    async def _run(self, request: StreamRequest) -> None:
        try:
            if request.websocket and isinstance(self._app, asgi.App):
                await self._app.run_websocket(request)
            else:
                await self._app.run(request)
        except BadRequest as error:
            request.keep = False
            if request.started:
                raise
            await _answer_bad(request.connection.stream, error)
        except ConnectionError:
            raise
        except Exception:
            request.keep = False
            traceback.print_exc()
            if request.started:
                raise  # the client must see that the answer is cut short
            await request.start(500, [(b"content-type", b"text/plain; charset=utf-8")])
            await request.send(b"Internal Server Error")
            await request.finish()

    async def call(self, call: Call) -> bytes:
        """Runs a call as a request. One that describes a whole request gets the whole answer, whatever its status."""
        request = _CallRequest(call)
        await self._app.run(request)
        body = b"".join(request.parts)
        most = self._session.performer.max_payload
        if len(body) > most:
            raise OutputError(f"the answer takes {len(body)} bytes, and at most {most} can be sent: ask for it over a stream")
        content_type = request.answer_header(b"content-type")
        if call.http is not None:
            headers: dict[str, list[str]] = {}
            for name, value in request.answer:
                headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
            meta: dict[str, Any] = {"content_type": content_type, "http": {"status": request.status, "header": headers}}
            return wire.frames(wire.RESULT, call.number, meta, body)
        if request.status >= 300:
            told = f"HTTP {request.status}: {body[:1000].decode(errors='replace')}"
            if 400 <= request.status < 500 and request.status not in _NOT_INPUT:
                raise InputError(told)
            raise RequestFailed(told)
        if call.stream:
            self._session.writer.write(wire.YIELD, call.number, {"content_type": content_type}, body)
            return wire.frames(wire.RESULT, call.number, {})
        return wire.frames(wire.RESULT, call.number, {"content_type": content_type}, body)


async def _answer_bad(stream: Stream, error: BadRequest) -> None:
    text = str(error).encode()
    head = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n\r\n"
    await stream.write(head % len(text) + text)


class _CallRequest(Request):
    """A call as a request: as it says itself, else a POST of its input to / or to its method."""

    def __init__(self, call: Call) -> None:
        http = call.http or {}
        headers: Headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, values in http.get("header", {}).items() for value in values
        ]
        names = {name for name, _ in headers}
        given = [
            (b"host", http.get("host") or "localhost"),
            (b"content-length", str(len(call.payload))),
            (b"content-type", call.content_type),
            (b"freshet-call", call.id),
            (b"freshet-attempt", str(call.attempt)),
            (b"traceparent", call.traceparent),
        ]
        headers += [(name, value.encode("latin-1")) for name, value in given if value and name not in names]
        super().__init__(http.get("method", "POST"), http.get("target") or f"/{call.method}", headers)
        self._payload = call.payload
        self.status = 0
        self.answer: Headers = []
        self.parts: list[bytes] = []

    async def body(self) -> bytes:
        payload, self._payload = self._payload, b""
        return payload

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.started = True
        self.status = status
        self.answer = [(bytes(name).lower(), bytes(value)) for name, value in headers]

    async def send(self, data: bytes) -> None:
        self.parts.append(data)

    async def finish(self) -> None:
        self.finished.set()

    async def gone(self) -> None:
        await self.finished.wait()

    def answer_header(self, name: bytes) -> str:
        return next((value.decode("latin-1") for key, value in self.answer if key == name), "")
