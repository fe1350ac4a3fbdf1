"""One call from its arguments to its answer, on whatever thread runs it, and how it is interrupted there."""

from __future__ import annotations

import contextvars
import ctypes
import os
import signal
import threading
from types import FrameType
from typing import Any, Optional

from freshet._context import CURRENT, Call
from freshet._errors import Cancelled, OutputError, TimedOut
from freshet._worker import codec, failure, wire
from freshet._worker.entry import Function, Target
from freshet._worker.logs import Logs

# Wakes the main thread out of what it waits for. No program is known to use it for anything.
_SIGNAL = signal.SIGRTMIN + 7


class Performer:
    """Runs calls of functions that are not async, in the thread that asks for it."""

    def __init__(self, target: Target, writer: wire.Writer, logs: Logs, max_payload: int) -> None:
        self.target = target
        self.writer = writer
        self.logs = logs
        self.max_payload = max_payload
        self._ending = threading.Lock()
        self._on_main: Optional[Call] = None
        self._main = threading.main_thread().ident

    def catch_signals(self) -> None:
        """Lets calls on the main thread be interrupted. To be called there."""
        signal.signal(_SIGNAL, self._signalled)

    def perform(self, call: Call, function: Optional[Function] = None) -> None:
        """Runs a call and answers it. Its values, where they are wanted, go before."""
        call.thread = threading.get_ident()
        if call.thread == self._main:
            self._on_main = call
        answer: Optional[bytes] = None
        with self._ending:
            if call.interrupted is None:
                call.running = True
        while True:
            try:
                if not call.running and answer is None:
                    raise Cancelled  # before it began
                if answer is None:
                    answer = contextvars.copy_context().run(self._attempt, call, function)
                self._settle(call)
                break
            except Cancelled as error:  # an interruption that came when the user's code had ended
                if answer is None:
                    answer = failure.frame(call.number, error)
                call.running = False
        self.end(call, answer)

    def end(self, call: Call, answer: bytes) -> None:
        """Sends what ends a call. A child process that came back from the user's function ends here: the call is its parent's."""
        self.logs.finish(call)
        if self.writer.dead:
            os._exit(0)
        self.writer.send((answer,))

    def _settle(self, call: Call) -> None:
        """Ends the time in which a call may be interrupted."""
        with self._ending:
            call.running = False
        if call.thread == self._main:
            self._on_main = None
        elif call.interrupted is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.thread), None)

    def _attempt(self, call: Call, function: Optional[Function]) -> bytes:
        CURRENT.set(call)
        pickled = False
        try:
            if function is None:
                function = self.target.find(call.method)
            args, kwargs = function.arguments(call.content_type, call.payload)
            pickled = call.content_type == codec.PICKLE
            value = function.call(*args, **kwargs)
            if function.generator:
                value = self._generate(call, value, pickled)
            return self.result(call, value, pickled, function.generator)
        except BaseException as error:
            return failure.frame(call.number, error, pickled)

    def _generate(self, call: Call, values: Any, pickled: bool) -> list[Any]:
        """Sends each value as it comes, or keeps them all for a caller who waits for the end."""
        if not call.stream:
            return list(values)
        try:
            for value in values:
                self.send_value(call, value, pickled)
        finally:
            values.close()
        return []

    def send_value(self, call: Call, value: Any, pickled: bool) -> None:
        self.writer.send((self._encoded(wire.YIELD, call, value, pickled),))

    def result(self, call: Call, value: Any, pickled: bool, generated: bool) -> bytes:
        """The message that ends a call. A caller who asked for values gets one also from what is no generator."""
        if not call.stream:
            if generated and not pickled:
                value = [_in_list(one) for one in value]
            return self._encoded(wire.RESULT, call, value, pickled)
        if not generated:
            self.send_value(call, value, pickled)
        return wire.frames(wire.RESULT, call.number, {})

    def _encoded(self, kind: int, call: Call, value: Any, pickled: bool) -> bytes:
        content_type, data = codec.encode(value, pickled)
        if len(data) > self.max_payload:
            raise OutputError(f"the result takes {len(data)} bytes, and at most {self.max_payload} can be sent: store it, and return where")
        return wire.frames(kind, call.number, {"content_type": content_type}, data)

    def interrupt(self, call: Call, kind: str) -> None:
        """Raises Cancelled in the thread that runs a call; from another thread."""
        reason = TimedOut if kind == "timeout" else Cancelled
        with self.writer.held(), self._ending:  # so no message is cut short
            if call.interrupted is not None:
                return
            call.interrupted = reason
            if not call.running:
                return
            if call.thread == self._main:
                signal.pthread_kill(call.thread, _SIGNAL)
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.thread), ctypes.py_object(reason))

    def _signalled(self, _: int, frame: Optional[FrameType]) -> None:
        if self.writer.defer(frame, self._raise):
            return
        self._raise()

    def _raise(self) -> None:
        call = self._on_main
        if call is None or not call.running or call.interrupted is None or call.raised:
            return
        call.raised = True
        raise call.interrupted


def _in_list(value: Any) -> Any:
    """One of many values, as an element of a JSON list."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        import base64

        return base64.b64encode(bytes(value)).decode()  # as the Go SDK writes bytes
    return value
