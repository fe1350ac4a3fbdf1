"""What a worker runs: a function, the methods of a class, or a web app, found by its entry."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from typing import Any, Callable, Optional

from freshet._errors import InputError
from freshet._worker import codec

HOOKS = ("enter", "exit", "before_freeze", "after_thaw")
_MARK = "__freshet_hook__"


class EntryError(Exception):
    """The entry names nothing that can be called."""


class Function:
    """Something of the user's that calls run."""

    __slots__ = ("_extra", "_keywords", "_one", "_required", "_signature", "asynchronous", "call", "generator", "name", "raw")

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name = name
        self.call = call
        plain = call if inspect.isroutine(call) else type(call).__call__
        self.asynchronous = inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain)
        self.generator = inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)
        try:
            self._signature: Optional[inspect.Signature] = inspect.signature(call)
        except (TypeError, ValueError):  # some built-in functions do not tell
            self._signature = None
        self._read_signature()

    def _read_signature(self) -> None:
        parameters = list(self._signature.parameters.values()) if self._signature else []
        kinds = inspect.Parameter
        #: A function of one parameter gets the whole input as it.
        self._one = len(parameters) == 1 and parameters[0].kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        named = [p for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
        self._keywords = frozenset(p.name for p in named)
        self._required = frozenset(p.name for p in named if p.default is kinds.empty)
        self._extra = self._signature is None or any(p.kind in (kinds.VAR_KEYWORD, kinds.POSITIONAL_ONLY) for p in parameters)
        #: Its parameter is bytes, whatever the input's content type.
        self.raw = self._one and parameters[0].annotation in (bytes, "bytes")

    def arguments(self, content_type: str, body: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that an input stands for. InputError when the function cannot take them."""
        if codec.media(content_type) == codec.PICKLE:
            args, kwargs = codec.decode_pickled(body)
            self._check(args, kwargs)
            return args, kwargs
        if self.raw:
            return (body,), {}
        if not body:
            self._check((), {})
            return (), {}
        value = codec.decode_value(content_type, body)
        if self._one:
            return (value,), {}
        if isinstance(value, dict):
            names = value.keys()
            if self._extra or not (names <= self._keywords and names >= self._required):
                self._check((), value)
            return (), value
        args = tuple(value) if isinstance(value, list) else () if value is None else (value,)
        self._check(args, {})
        return args, {}

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._signature is None:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(f"{self.name}{self._signature} does not take the input: {error}") from None


class Target:
    """What an entry names, with its hooks."""

    def __init__(self) -> None:
        self.name = ""
        self.functions: dict[str, Function] = {}
        self.hooks: dict[str, list[Callable[[], Any]]] = {name: [] for name in HOOKS}
        #: "asgi" or "wsgi" for a web app, which is then app.
        self.web = ""
        self.app: Any = None

    @property
    def asynchronous(self) -> bool:
        """Whether it needs an event loop."""
        hooks = [hook for hooks in self.hooks.values() for hook in hooks]
        return (
            bool(self.web)
            or any(f.asynchronous for f in self.functions.values())
            or any(inspect.iscoroutinefunction(hook) for hook in hooks)
        )

    def find(self, method: str) -> Function:
        """The function that a call wants. InputError when there is none."""
        function = self.functions.get(method)
        if function is not None:
            return function
        names = ", ".join(sorted(name for name in self.functions if name)) or "none"
        if method:
            raise InputError(f"{self.name} has no method {method!r}; its methods: {names}")
        raise InputError(f"{self.name} has several methods, so the call must name one: {names}")


_ENTRY = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def load(entry: str) -> Target:
    """Imports the entry's module and finds what it names. A class is made here; its hooks are run later."""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise EntryError(f"the entry {entry!r} is none: write module:function or module:Class")
    module = importlib.import_module(match[1])
    found: Any = module
    for name in match[2].split("."):
        if not hasattr(found, name):
            raise EntryError(f"the module {match[1]} ({getattr(module, '__file__', '?')}) has no {match[2]!r}")
        found = getattr(found, name)
    target = Target()
    target.name = match[2]
    _module_hooks(target, module)
    target.web = web_kind(found)
    if target.web:
        target.app = found
    elif inspect.isclass(found):
        _methods(target, found())
    elif callable(found):
        target.functions[""] = Function(target.name, found)
    else:
        raise EntryError(f"{entry} is a {type(found).__name__}, which nobody can call: name a function, a class or a web app")
    return target


def _module_hooks(target: Target, module: Any) -> None:
    """Functions of the module that are marked as hooks."""
    for value in list(vars(module).values()):
        kind = getattr(value, _MARK, None) if inspect.isfunction(value) else None
        if kind in target.hooks:
            target.hooks[kind].append(value)


def _methods(target: Target, made: Any) -> None:
    """The methods of an object: those without an underscore; enter, exit, before_freeze and after_thaw are its hooks."""
    for name in dir(type(made)):
        if name.startswith("_"):
            continue
        value = getattr(made, name)
        if not inspect.ismethod(value) and not inspect.isfunction(value):
            continue
        kind = getattr(value, _MARK, name)
        if kind in target.hooks:
            target.hooks[kind].append(value)
        else:
            target.functions[name] = Function(f"{target.name}.{name}", value)
    if callable(made):
        target.functions[""] = Function(target.name, made.__call__)
    elif len(target.functions) == 1:
        target.functions[""] = next(iter(target.functions.values()))
    if not target.functions:
        raise EntryError(f"the class {target.name} has no method that can be called: those of functions begin with no underscore")


def web_kind(found: Any) -> str:
    """Whether an object is a web app: by the parameters that the two interfaces give it, or by what its framework calls itself."""
    if inspect.isclass(found) or not callable(found):
        return ""
    function = found if inspect.isroutine(found) else type(found).__call__
    if hasattr(found, "wsgi_app"):
        return "wsgi"
    try:
        names = tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ""
    if names[:1] == ("self",):
        names = names[1:]
    if names[:3] == ("scope", "receive", "send") and inspect.iscoroutinefunction(function):
        return "asgi"
    if names[:2] == ("environ", "start_response"):
        return "wsgi"
    return ""


def prepare_path(code: str) -> None:
    """Lets the user's modules be found before anything else: those shipped with the function, then the working directory's."""
    import os

    own = sys.path.pop(0) if sys.path else ""
    for folder in (os.getcwd(), code):
        if folder in sys.path:
            sys.path.remove(folder)
        if os.path.isdir(folder):
            sys.path.insert(0, folder)
    if own not in sys.path:
        sys.path.append(own)
