"""Frames, also those of a host that means harm."""

import os
import random
import unittest

from freshet._worker import wire


def read_all(data: bytes, most: int = wire.DEFAULT_MAX_PAYLOAD) -> list:
    """Reads bytes as a peer's, to their end."""
    out, into = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(out)
        while data:
            data = data[os.write(into, data) :]
        os._exit(0)
    os.close(into)
    reader = wire.Reader(out, most)
    messages = []
    try:
        while True:
            messages += reader.read()
    except EOFError:
        return messages
    finally:
        os.close(out)
        os.waitpid(writer, 0)


class Frames(unittest.TestCase):
    def test_messages_come_as_they_were_sent(self) -> None:
        sent = [(wire.CALL, 1, {"id": "é"}, b"x" * size) for size in (0, 1, wire.MAX_FRAME - 20, wire.MAX_FRAME, 3 * wire.MAX_FRAME + 1)]
        data = b"".join(wire.frames(*message) for message in sent)
        got = [(m.type, m.call, m.decode(), m.payload) for m in read_all(data)]
        self.assertEqual(got, sent)

    def test_frames_of_different_calls_interleave(self) -> None:
        one = wire.frames(wire.CALL, 1, {}, b"1" * (2 * wire.MAX_FRAME))
        two = wire.frames(wire.CALL, 2, {}, b"2" * (2 * wire.MAX_FRAME))
        size = 16 + wire.MAX_FRAME
        mixed = b"".join(part[at : at + size] for at in range(0, len(one), size) for part in (one, two))
        self.assertEqual([(m.call, set(m.payload)) for m in read_all(mixed)], [(1, {ord("1")}), (2, {ord("2")})])

    def test_limits_hold(self) -> None:
        for data in (
            b"not a frame at all",
            wire.frames(wire.CALL, 1, {}, b"x" * 100)[:4] + b"\xff" * 12,
            wire.frames(wire.CALL, 1, {}, b"x" * 2000),
        ):
            with self.assertRaises(wire.ProtocolError):
                read_all(data, 1000)
        with self.assertRaises(ValueError):
            wire.frames(wire.LOG, 1, {"x": "y" * wire.MAX_META})

    def test_bytes_at_random_are_read_or_refused(self) -> None:
        seed = random.randrange(1 << 32)
        draw = random.Random(seed)
        whole = b"".join(wire.frames(wire.CALL, i, {"id": str(i)}, b"x" * draw.randrange(50)) for i in range(5))
        for _ in range(150):
            broken = bytearray(whole)
            for _ in range(draw.randrange(1, 4)):
                broken[draw.randrange(len(broken))] = draw.randrange(256)
            try:
                for message in read_all(bytes(broken[: draw.randrange(len(broken))])):
                    message.decode()
            except wire.ProtocolError:
                continue
            except Exception as error:
                self.fail(f"seed {seed}: {error!r} for {bytes(broken)!r}")

    def test_versions(self) -> None:
        self.assertEqual(wire.negotiate({"min_version": 1, "version": 1}), 1)
        self.assertEqual(wire.negotiate({"min_version": 1, "version": 9}), wire.VERSION)
        for hello in ({"min_version": 8, "version": 9}, {}, {"min_version": "1", "version": []}):
            with self.assertRaises(wire.ProtocolError):
                wire.negotiate(hello)
