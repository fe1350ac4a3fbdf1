"""Calls functions of a freshet cluster over HTTP, whatever language they are written in."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Iterable, Iterator, NamedTuple, Optional

from freshet._errors import Error
from freshet._worker import codec

#: Where `freshet up` listens.
DEFAULT_ADDRESS = "http://127.0.0.1:8600"

# How long one request for a spawned call's result waits.
_RESULT_WAIT = 30


class Result(NamedTuple):
    """A call's answer as it came."""

    body: bytes
    content_type: str
    call: str
    worker: str
    attempt: int

    def value(self) -> Any:
        """What the body stands for: JSON, text, or bytes. A pickle is read: call only functions that you trust in that way."""
        return _decode(self.content_type, self.body)


class Spawned:
    """A call that goes on by itself. Its result is kept for seven days."""

    def __init__(self, client: Client, call: str) -> None:
        self._client = client
        self.id = call

    def result(self, timeout: Optional[float] = None) -> Any:
        """Waits for the call's end and returns its value, or raises its error. TimeoutError after so many seconds without one."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = _RESULT_WAIT if until is None else max(0.0, min(_RESULT_WAIT, until - time.monotonic()))
            status, answer = self._client._send("GET", f"/v1/calls/{self.id}/result?wait={wait:.3f}s", b"", {}, wait + 30)
            if status != 202:
                return answer.value()
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"call {self.id} has not ended within {timeout} s")

    def cancel(self) -> None:
        """Ends the call, whether it waits or runs. It is an Error of kind conflict when the call has ended before."""
        self._client._send("POST", f"/v1/calls/{self.id}/cancel", b"", {}, 30)


class Client:
    """Calls functions through one gateway. It is safe to use from several threads.

    address is the gateway's, by default that of FRESHET_ADDR or of `freshet up`; token is shown to it, by default that of
    FRESHET_TOKEN. patience is for how many seconds to keep trying while the gateway is away or a queue full.

    pickle makes arguments and results travel as pickles: any Python objects, and the exceptions that the function raised. Both sides then
    need the same classes. It is for functions of your own: a pickle can run code where it is read.
    """

    def __init__(
        self,
        address: Optional[str] = None,
        token: Optional[str] = None,
        namespace: str = "default",
        patience: float = 60.0,
        pickle: bool = False,
    ) -> None:
        self._address = (address or os.environ.get("FRESHET_ADDR") or DEFAULT_ADDRESS).rstrip("/")
        self._token = token or os.environ.get("FRESHET_TOKEN", "")
        self._namespace = namespace
        self._patience = patience
        self._pickle = pickle

    def call(self, function: str, *args: Any, method: str = "", **kwargs: Any) -> Any:
        """Calls APP.FUNCTION and returns its value. Raises the function's own error: as it was with pickle, else as an Error.

        One argument is the input as it is; keywords are a JSON object, several arguments a JSON list.
        """
        return self.request(function, *args, method=method, **kwargs).value()

    def request(self, function: str, *args: Any, method: str = "", **kwargs: Any) -> Result:
        """As call, with the answer as it came."""
        return self._input("call", function, method, args, kwargs)[1]

    def spawn(self, function: str, *args: Any, method: str = "", **kwargs: Any) -> Spawned:
        """Makes a call that goes on by itself, as soon as the cluster has it for certain."""
        return Spawned(self, self._input("spawn", function, method, args, kwargs)[1].call)

    def map(self, function: str, inputs: Iterable[Any], method: str = "", concurrency: int = 32) -> Iterator[Any]:
        """Calls the function once for each input, some at a time, and yields the values in the inputs' order.

        The first error of a call is raised in its place. Inputs are taken as there is room.
        """
        pool = ThreadPoolExecutor(max(1, concurrency))
        waiting: deque[Future[Any]] = deque()
        try:
            for one in inputs:
                waiting.append(pool.submit(self.call, function, one, method=method))
                if len(waiting) >= 2 * concurrency:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown(wait=True)

    def stream(self, function: str, *args: Any, method: str = "", **kwargs: Any) -> Iterator[Any]:
        """Calls a generator and yields each of its values as it comes. Who stops early ends the call."""
        body, headers = self._encoded(args, kwargs)
        request = self._request("POST", self._path(function, "stream", method), body, headers)
        try:
            with urllib.request.urlopen(request) as answer:
                for line in answer:
                    if not line.strip():
                        continue
                    said = json.loads(line)
                    if said.get("error"):
                        raise self._error(said["error"], answer.headers.get("Freshet-Call", ""), answer.status)
                    if "done" in said:
                        return
                    if "value_base64" in said:
                        data = base64.b64decode(said["value_base64"])
                        yield _decode(codec.PICKLE, data) if self._pickle else data
                    else:
                        yield said.get("value")
                raise ConnectionError(f"call {function}: the stream was cut off")
        except urllib.error.HTTPError as error:
            failed = self._failed(error)
            raise failed from failed.__cause__

    def _input(self, way: str, function: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, Result]:
        body, headers = self._encoded(args, kwargs)
        headers["Idempotency-Key"] = uuid.uuid4().hex
        return self._send("POST", self._path(function, way, method), body, headers, None)

    def _encoded(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        if self._pickle:
            import pickle

            return pickle.dumps((args, kwargs), protocol=4), {"Content-Type": codec.PICKLE}
        if args and kwargs:
            raise TypeError("give arguments or keywords: an input of JSON cannot be both")
        if not args and not kwargs:
            return b"", {"Content-Type": codec.JSON}
        content_type, body = codec.encode(kwargs or (args[0] if len(args) == 1 else list(args)), False)
        return body, {"Content-Type": content_type}

    def _path(self, function: str, way: str, method: str) -> str:
        app, dot, name = function.partition(".")
        if not dot:
            raise ValueError(f"call {function!r}: write APP.FUNCTION")
        query = {"method": method} if method else {}
        if self._namespace != "default":
            query["namespace"] = self._namespace
        path = f"/v1/functions/{urllib.parse.quote(app, '')}/{urllib.parse.quote(name, '')}/{way}"
        return path + ("?" + urllib.parse.urlencode(query) if query else "")

    def _request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> urllib.request.Request:
        if self._token:
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        return urllib.request.Request(self._address + path, data=body if method == "POST" else None, headers=headers, method=method)

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str], timeout: Optional[float]) -> tuple[int, Result]:
        """Sends a request until it is answered or the patience is over; its key makes the call happen once."""
        give_up = time.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                with urllib.request.urlopen(self._request(method, path, body, headers), timeout=timeout) as answer:
                    told = answer.headers
                    return answer.status, Result(
                        answer.read(),
                        told.get("Content-Type", ""),
                        told.get("Freshet-Call", ""),
                        told.get("Freshet-Worker", ""),
                        int(told.get("Freshet-Attempt") or 0),
                    )
            except urllib.error.HTTPError as error:
                wait = error.headers.get("Retry-After") if error.code in (429, 503) else None
                if wait is None or time.monotonic() + float(wait) > give_up:
                    failed = self._failed(error)
                    raise failed from failed.__cause__
                error.close()
                pause = max(pause, float(wait))
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() + pause > give_up:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _failed(self, error: urllib.error.HTTPError) -> BaseException:
        """The error that an answer is."""
        call, status = error.headers.get("Freshet-Call", ""), error.code
        try:
            said = json.loads(error.read())["error"]
        except (ValueError, KeyError, TypeError):
            return Error(f"the gateway answered {status} {error.reason}", kind="unknown", call=call, status=status)
        finally:
            error.close()
        return self._error(said, call, status)

    def _error(self, said: dict[str, Any], call: str, status: int) -> BaseException:
        """The function's own exception where it came along and its class is here, else an Error that tells of it."""
        message = said.get("message", "")
        if said.get("near"):
            message += f" (did you mean {' or '.join(said['near'])}?)"
        told = Error(message, said.get("kind", "unknown"), said.get("type", ""), said.get("traceback", ""), call, status)
        if not self._pickle or not said.get("exception"):
            return told
        import pickle

        try:
            own = pickle.loads(base64.b64decode(said["exception"]))
        except Exception:  # its class is not here, or another one
            return told
        if not isinstance(own, BaseException):
            return told
        own.__cause__ = told
        return own


def _decode(content_type: str, body: bytes) -> Any:
    kind = codec.media(content_type)
    if kind == codec.PICKLE:
        import pickle

        return pickle.loads(body)
    if kind == codec.JSON:
        return json.loads(body)
    if kind.startswith("text/"):
        return body.decode()
    return body
