"""Exceptions as their callers read them."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import freshet
from freshet._errors import Cancelled, Error, InputError
from freshet._worker import wire
from freshet._worker.entry import EntryError

_OWN = os.path.dirname(os.path.abspath(freshet.__file__)) + os.sep
# What stands between this runtime and the user's module while that is imported.
_IMPORTING = ("<frozen importlib", os.path.dirname(os.path.abspath(sys.modules["importlib"].__file__ or "")) + os.sep)

_MAX_MESSAGE = 8 << 10
_MAX_TRACEBACK = 24 << 10
_MAX_PICKLE = 16 << 10


def meta(error: BaseException, pickled: bool = False) -> dict[str, Any]:
    """The meta of a failure. pickled adds the exception itself, for a caller in Python."""
    message = _cut(_text(error), _MAX_MESSAGE)
    if isinstance(error, InputError):
        found: dict[str, Any] = {"kind": "input", "message": message}
        if type(error) is not InputError:
            found["type"] = type_name(error)
        return found
    if isinstance(error, (Cancelled, asyncio.CancelledError)):
        return {"kind": "cancelled", "message": message or "the call was cancelled"}
    if isinstance(error, (EntryError, wire.ProtocolError)):  # none of the user's code
        return {"kind": "user", "message": message}
    name = type_name(error)
    if isinstance(error, Error) and error.type:  # of another function, which this one called
        name = error.type
    found = {"kind": "user", "type": name, "message": message}
    found["traceback"] = _traceback(error)
    if pickled:
        data = _pickled(error)
        if data:
            found["exception"] = data
    return found


def type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"its message cannot be read: {type_name(broken)}"


def _cut(text: str, most: int) -> str:
    """Keeps both ends of a text that is too long, counted as JSON holds it."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text.encode()) <= most:
        return text
    half = most // 8  # a control character takes six bytes in JSON
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _traceback(error: BaseException) -> str:
    """The stack from the user's code on."""
    import traceback

    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith((_OWN, *_IMPORTING)):
        frame = frame.tb_next
    try:
        return _cut("".join(traceback.format_exception(type(error), error, frame)), _MAX_TRACEBACK)
    except Exception as broken:
        return f"the traceback cannot be read: {type_name(broken)}"


def _pickled(error: BaseException) -> str:
    import base64
    import pickle

    try:
        data = pickle.dumps(error, protocol=4)
        pickle.loads(data)  # some exceptions are pickled and cannot be read again
    except Exception:
        return ""
    return base64.b64encode(data).decode() if len(data) <= _MAX_PICKLE else ""


def frame(call: int, error: BaseException, pickled: bool = False) -> bytes:
    """The message that ends a call with an error."""
    found = meta(error, pickled)
    try:
        return wire.frames(wire.FAILURE, call, found)
    except ValueError:  # characters that take more room in JSON than was thought
        short = ascii(found["message"][:1000])
        return wire.frames(wire.FAILURE, call, {"kind": found["kind"], "type": found.get("type", "")[:200], "message": short})
