"""Runs WSGI apps (PEP 3333), each request in a thread of a pool."""

from __future__ import annotations

import asyncio
import contextvars
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Coroutine, Optional
from urllib.parse import unquote_to_bytes

from freshet._worker.http import Request


class App:
    """A WSGI app."""

    def __init__(self, app: Any, pool: ThreadPoolExecutor) -> None:
        self._app = app
        self._pool = pool

    async def start(self) -> None:
        """There is nothing to begin."""

    async def stop(self) -> None:
        """There is nothing to end."""

    async def run(self, request: Request) -> None:
        """Answers a request."""
        loop = asyncio.get_running_loop()

        def wait(work: Coroutine[Any, Any, Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        context = contextvars.copy_context()
        await loop.run_in_executor(self._pool, context.run, _Answer(self._app, request, wait).run)
        await request.finish()


class _Answer:
    """One request, in its thread. What touches the connection is done on the event loop, for which wait waits."""

    def __init__(self, app: Any, request: Request, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._app = app
        self._request = request
        self._wait = wait
        self._head: Optional[tuple[int, list[tuple[bytes, bytes]]]] = None

    def run(self) -> None:
        values = self._app(self._environ(), self._start_response)
        try:
            for value in values:
                if value:
                    self._write(value)
            if not self._request.started:
                self._begin()
        finally:
            close = getattr(values, "close", None)
            if close is not None:
                close()

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info is not None:
            if self._request.started:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self._head is not None:
            raise AssertionError("start_response was called twice")
        self._head = int(status.split(" ")[0]), [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        return self._write

    def _begin(self) -> None:
        if self._head is None:
            raise AssertionError("the app did not call start_response")
        self._wait(self._request.start(*self._head))

    def _write(self, data: bytes) -> None:
        if not self._request.started:
            self._begin()
        self._wait(self._request.send(data))

    def _environ(self) -> dict[str, Any]:
        request = self._request
        path, _, query = request.target.partition("?")
        host, _, port = request.header(b"host").decode("latin-1").partition(":")
        scheme = "https" if request.header(b"x-forwarded-proto").lower() == b"https" else "http"
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": host or "localhost",
            "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
            "SERVER_PROTOCOL": f"HTTP/{request.version}",
            "REMOTE_ADDR": request.header(b"x-forwarded-for").partition(b",")[0].strip().decode("latin-1"),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.input": io.BufferedReader(_Input(request, self._wait), 64 << 10),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name in {name for name, _ in request.headers}:
            key = name.decode("latin-1").upper().replace("-", "_")
            if "_" not in name.decode("latin-1"):  # else it could pose as another header
                value = request.header(name).decode("latin-1")
                environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
        return environ


class _Input(io.RawIOBase):
    """The request's body as a file."""

    def __init__(self, request: Request, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._request = request
        self._wait = wait
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._wait(self._request.body())
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)
