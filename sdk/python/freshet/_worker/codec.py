"""Inputs and outputs as bytes: JSON, text, bytes, or pickle between Python programs."""

from __future__ import annotations

import json
from typing import Any

from freshet._errors import InputError, OutputError

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
#: A pickled (args, kwargs) as input, a pickled value as output. It is unpickled in the sandbox and by the caller, nowhere else.
PICKLE = "application/vnd.freshet.pickle"

# What curl says of its data unless told otherwise.
_FORM = "application/x-www-form-urlencoded"


class Body:
    """A result that is sent as it is, under a content type."""

    __slots__ = ("content_type", "data")

    def __init__(self, data: bytes, content_type: str) -> None:
        self.data = data
        self.content_type = content_type


def media(content_type: str) -> str:
    """The content type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def decode_value(content_type: str, body: bytes) -> Any:
    """What a body stands for."""
    kind = media(content_type)
    if kind in ("", JSON, _FORM) or kind.endswith("+json"):
        try:
            return json.loads(body)
        except RecursionError:
            raise InputError("the input is not JSON that can be read: it is nested too deeply") from None
        except ValueError as error:
            raise InputError(f"the input is not JSON: {error}") from None
    if kind.startswith("text/"):
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"the input is not text in UTF-8: {error}") from None
    return body


def decode_pickled(body: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a Python caller."""
    import pickle

    try:
        args, kwargs = pickle.loads(body)
        return tuple(args), dict(kwargs)
    except Exception as error:  # a pickle can raise anything
        raise InputError(f"the pickled input cannot be read here: {type(error).__name__}: {error}") from error


def encode(value: Any, pickled: bool) -> tuple[str, bytes]:
    """A result as its content type and bytes."""
    if isinstance(value, Body):
        return value.content_type, value.data
    if pickled:
        return PICKLE, _pickle(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BYTES, bytes(value)
    if isinstance(value, str):
        return TEXT, value.encode("utf-8", "surrogatepass")
    return JSON, encode_json(value)


def encode_json(value: Any) -> bytes:
    """A value as JSON: of what JSON knows, and not NaN."""
    try:
        return _encoder.encode(value).encode("utf-8", "surrogatepass")
    except RecursionError:
        raise OutputError("the result cannot be written as JSON: it is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise OutputError(
            f"the result, a {_name(value)}, cannot be written as JSON: {error}: return what JSON knows, bytes, or a freshet.Body"
        ) from None


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _pickle(value: Any) -> bytes:
    import pickle

    try:
        return pickle.dumps(value, protocol=4)  # what every Python from 3.9 on reads
    except Exception as error:  # a __reduce__ can raise anything
        raise OutputError(f"the result, a {_name(value)}, cannot be pickled: {error}") from None


def _name(value: Any) -> str:
    return type(value).__qualname__
