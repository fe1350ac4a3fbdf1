"""What can go wrong with a call, for those who write functions and those who call them."""

from __future__ import annotations

from typing import Optional


class Error(Exception):
    """A call that ended without a result.

    kind tells what ended it: user, input, timeout, crash, oom, protocol, lost, start, cancelled, expired, or one of the
    gateway's own, such as not_found. type is the error's type in the function's own language, and traceback its stack there.
    """

    def __init__(self, message: str, kind: str = "user", type: str = "", traceback: str = "", call: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.type = type
        self.traceback = traceback
        self.call = call
        self.status = status

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.type else self.message


class InputError(ValueError):
    """Raise it for an input that the function cannot take: the caller gets status 400, and the call is not tried again."""


class OutputError(TypeError):
    """A result that cannot be sent to its caller."""


class Cancelled(BaseException):
    """Raised in a function whose call was cancelled. Clean up, and let it pass."""

    def __init__(self, message: Optional[str] = None) -> None:
        super().__init__(message or "the call was cancelled")


class TimedOut(Cancelled):
    """Raised in a function whose call took longer than its timeout."""

    def __init__(self, message: Optional[str] = None) -> None:
        super().__init__(message or "the call took longer than its timeout")
