"""The client, with a server that answers as a gateway does."""

import base64
import http.server
import json
import pickle
import threading
import unittest
from typing import Any, ClassVar

import freshet
from freshet._worker import codec


class Odd(Exception):
    """An error that travels."""


class Gateway(http.server.BaseHTTPRequestHandler):
    """Answers by the function's name, and echoes."""

    refusals = 0
    seen: ClassVar[list[tuple[str, str, bytes]]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        Gateway.seen.append((self.path, self.headers.get("Idempotency-Key", ""), body))
        path = self.path.partition("?")[0]
        if "/busy/" in path and Gateway.refusals > 0:
            Gateway.refusals -= 1
            self.answer(429, b"{}", {"Retry-After": "0"})
        elif "/odd/" in path or "/lacking/" in path:
            error = pickle.dumps(Odd("as it was")).replace(b"Odd", b"Ode" if "/lacking/" in path else b"Odd")
            self.problem(500, kind="user", type="tests.Odd", message="as it was", traceback="…", exception=base64.b64encode(error).decode())
        elif "/none/" in path:
            self.problem(404, kind="not_found", message="there is none", near=["app.some"])
        elif "/broken/" in path:
            self.answer(502, b"<html>", {})
        elif path.endswith("/stream"):
            lines = [{"index": 0, "value": 1}, {"index": 1, "value_base64": "AP8="}, {"done": True, "values": 2}]
            self.answer(200, b"\n\n".join(json.dumps(line).encode() for line in lines), {"Content-Type": "application/x-ndjson"})
        elif path.endswith("/spawn"):
            self.answer(202, b"", {"Freshet-Call": "01X"})
        elif path.endswith("/cancel"):
            self.answer(200, b"{}", {})
        elif path.endswith("/result"):
            Gateway.refusals -= 1
            self.answer(202 if Gateway.refusals >= 0 else 200, b"7", {"Content-Type": "application/json"})
        else:
            kind = self.headers["Content-Type"]
            if kind == codec.PICKLE:
                body = pickle.dumps(pickle.loads(body))
            self.answer(200, body or b"null", {"Content-Type": kind, "Freshet-Call": "01Y", "Freshet-Attempt": "1"})

    def problem(self, status: int, **error: Any) -> None:
        self.answer(status, json.dumps({"error": error}).encode(), {"Content-Type": "application/problem+json", "Freshet-Call": "01Z"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Calls(unittest.TestCase):
    def setUp(self) -> None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.address = f"http://127.0.0.1:{server.server_port}"
        self.client = freshet.Client(self.address, patience=5)
        Gateway.refusals = 0
        Gateway.seen = []

    def test_values_go_there_and_back(self) -> None:
        for value in ({"a": [1, None]}, "text é", b"\x00\xff", 7, [1, 2], None):
            self.assertEqual(self.client.call("app.echo", value), value)
        self.assertEqual(self.client.call("app.echo", a=1, b="c"), {"a": 1, "b": "c"})
        self.assertEqual(self.client.call("app.echo", 1, 2), [1, 2])
        self.assertIsNone(self.client.call("app.echo"))
        with self.assertRaises(TypeError):
            self.client.call("app.echo", 1, a=2)
        with self.assertRaises(ValueError):
            self.client.call("echo")
        self.client.call("app.echo", 1, method="m n")
        self.assertEqual(Gateway.seen[-1][0], "/v1/functions/app/echo/call?method=m+n")

    def test_pickles(self) -> None:
        client = freshet.Client(self.address, pickle=True)
        self.assertEqual(client.call("app.echo", {1, 2}, key=(3,)), (({1, 2},), {"key": (3,)}))
        with self.assertRaises(Odd) as caught:
            client.call("app.odd")
        self.assertIsInstance(caught.exception.__cause__, freshet.Error)
        with self.assertRaises(freshet.Error) as lacking:
            client.call("app.lacking")
        self.assertEqual((lacking.exception.type, lacking.exception.message), ("tests.Odd", "as it was"))

    def test_errors_are_typed(self) -> None:
        with self.assertRaises(freshet.Error) as odd:
            self.client.call("app.odd")
        error = odd.exception
        self.assertEqual((error.kind, error.type, error.call, error.status, error.traceback), ("user", "tests.Odd", "01Z", 500, "…"))
        with self.assertRaises(freshet.Error) as none:
            self.client.call("app.none")
        self.assertIn("did you mean app.some?", str(none.exception))
        with self.assertRaises(freshet.Error) as broken:
            self.client.call("app.broken")
        self.assertEqual(broken.exception.status, 502)

    def test_a_full_queue_is_waited_for_with_the_same_key(self) -> None:
        Gateway.refusals = 2
        self.assertEqual(self.client.call("app.busy", 1), 1)
        self.assertEqual(len({key for _, key, _ in Gateway.seen}), 1)
        self.assertEqual(len(Gateway.seen), 3)

    def test_spawn_map_and_stream(self) -> None:
        Gateway.refusals = 1
        spawned = self.client.spawn("app.echo", 1)
        self.assertEqual((spawned.id, spawned.result()), ("01X", 7))
        spawned.cancel()
        Gateway.refusals = 1 << 30
        with self.assertRaises(TimeoutError):
            spawned.result(timeout=0.01)
        self.assertEqual(list(self.client.map("app.echo", range(100), concurrency=8)), list(range(100)))
        self.assertEqual(list(self.client.stream("app.echo")), [1, b"\x00\xff"])
