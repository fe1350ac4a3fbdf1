"""freshet: functions on your own Nomad cluster, which start from frozen memory and go back to zero.

Functions need nothing of this package; it has their settings, what they may ask about their call, and a client to call others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from freshet._context import Call, current, worker
from freshet._errors import Cancelled, Error, InputError, OutputError, TimedOut
from freshet._settings import after_thaw, app, before_freeze, enter, exit, function

if TYPE_CHECKING:
    from freshet._client import Client, Result, Spawned
    from freshet._worker.codec import Body

__all__ = [
    "Body",
    "Call",
    "Cancelled",
    "Client",
    "Error",
    "InputError",
    "OutputError",
    "Result",
    "Spawned",
    "TimedOut",
    "after_thaw",
    "app",
    "before_freeze",
    "current",
    "enter",
    "exit",
    "function",
    "worker",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports what workers seldom need when it is first used: it would take a tenth of a cold start."""
    if name in ("Client", "Result", "Spawned"):
        from freshet import _client

        return getattr(_client, name)
    if name == "Body":
        from freshet._worker.codec import Body

        return Body
    raise AttributeError(f"module 'freshet' has no attribute {name!r}")
