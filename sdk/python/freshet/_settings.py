"""The few lines of settings that stand beside a function's code. They change nothing about it: `freshet deploy` reads them."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

_T = TypeVar("_T", bound=Callable[..., Any])


def app(name: str, **defaults: Any) -> None:
    """Names the app that a file's functions are deployed as, with settings for all of them. Default name: the file's.

    The settings are those of function(). Write them as plain values: `freshet deploy` reads the file without running it.
    """


def function(**settings: Any) -> Callable[[_T], _T]:
    """Makes a function, or a class with its methods, one that `freshet deploy` deploys.

    Settings are such as image, gpu, memory, timeout, concurrency, retries, scale, schedule, web, env and secrets, each with its default
    where it is left out.
    docs/python.md says what each means. Durations are numbers of seconds, or texts such as "5m".
    """

    def keep(decorated: _T) -> _T:
        return decorated

    return keep


def _hook(kind: str) -> Callable[[_T], _T]:
    def mark(decorated: _T) -> _T:
        decorated.__freshet_hook__ = kind  # type: ignore[attr-defined]
        return decorated

    return mark


#: Marks a function without arguments that runs before a worker takes its first call: load what every call needs.
enter = _hook("enter")
#: Marks a function that runs when a worker ends.
exit = _hook("exit")
#: Marks a function that runs before a worker is frozen: close what cannot be frozen, such as connections.
before_freeze = _hook("before_freeze")
#: Marks a function that runs when a frozen worker wakes, in the original too: open again what was closed, seed your own generators.
after_thaw = _hook("after_thaw")
