"""What a file of functions is, for `freshet deploy`. The file is read and never run: whoever deploys need not have what it imports."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from freshet import _modules, _read

# Settings by the spec's names; what is not here is read by _setting.
_PLAIN = {
    "image": str,
    "user": str,
    "concurrency": int,
    "max_pending": int,
    "max_running": int,
    "priority": int,
    "args": list,
    "secrets": list,
    "env": dict,
}
_DURATIONS = ("timeout", "startup_timeout", "queue_timeout", "drain")
_OTHER = ("name", "python", "cpu", "memory", "retries", "snapshot", "scale", "egress", "allow", "mounts", "volumes", "include")


def describe(path: str) -> dict[str, Any]:
    """The manifest of a file's functions, and the files to ship. _read.Wrong when something about it is wrong."""
    path = os.path.abspath(path)
    file = _read.File(path)
    root = _modules.root_of(path)
    beside = _read.beside(path)
    app: dict[str, Any] = {"name": os.path.splitext(os.path.basename(path))[0]}
    functions = beside.pop("functions", {})
    app.update(beside)
    app.update(file.app)
    module = _modules.name_of(root, path)
    name = app.pop("name")
    include = app.pop("include", [])
    described = []
    for found in file.functions:
        described.append(_function(found.where, f"{module}:{found.name}", {"name": found.name, **app, **found.settings}))
    for key, settings in functions.items():
        where, entry = f"pyproject.toml: tool.freshet.functions.{key}", settings.get("entry", "")
        own = {name: value for name, value in settings.items() if name != "entry"}
        described.append(_function(where, entry, {"name": key, **app, **own}))
    if not described:
        raise _read.Wrong(f"{path} has no functions: write @freshet.function() above one, or name it in pyproject.toml")
    for one in described:
        one["app"] = name
    starts = [path, *_modules.entries(root, (str(one["handler"]["entry"]) for one in described))]
    return {
        "manifest": {"format": 1, "app": name, "functions": described},
        "files": [{"name": shipped, "path": source} for shipped, source in _modules.collect(root, starts, include)],
    }


def _function(where: str, entry: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A function of the spec."""
    spec: dict[str, Any] = {"handler": {"type": "python", "entry": entry}, "snapshot": {"enabled": True}}
    for name, value in settings.items():
        try:
            _setting(spec, name, value)
        except (TypeError, ValueError) as error:
            raise _read.Wrong(f"{where}: {name} = {value!r}: {error}") from None
    return spec


def _setting(spec: dict[str, Any], name: str, value: Any) -> None:
    if name in _PLAIN:
        spec[name] = _of(_PLAIN[name], value)
    elif name in _DURATIONS:
        spec[name] = _duration(value)
    elif name == "name":
        spec["name"] = _of(str, value)
    elif name == "python":
        spec["command"] = _of(str, value)
    elif name in ("cpu", "memory"):
        spec.setdefault("resources", {})[name] = _of(int, value)
    elif name == "retries":
        spec["retries"] = _retries(value)
    elif name == "snapshot":
        spec["snapshot"] = {"enabled": _of(bool, value)}
    elif name == "scale":
        spec["scaling"] = _scale(value)
    elif name == "egress":
        spec.setdefault("network", {})["egress"] = _of(bool, value)
    elif name == "allow":
        spec.setdefault("network", {}).update(egress=True, allow=_of(list, value))
    elif name == "mounts":
        spec["mount"] = [{"source": source, "target": target, "readonly": True} for target, source in _of(dict, value).items()]
    elif name == "volumes":
        spec["volume"] = [_volume(target, text) for target, text in _of(dict, value).items()]
    else:
        raise ValueError(f"there is no such setting: use one of {', '.join(sorted((*_PLAIN, *_DURATIONS, *_OTHER)))}")


def _of(kind: type, value: Any) -> Any:
    if kind is list and isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"write a {kind.__name__}")
    return value


def _volume(target: str, text: Any) -> dict[str, Any]:
    """A volume's name, with ":ro" after it where it is only to be read."""
    name, _, mode = _of(str, text).partition(":")
    if mode not in ("", "ro"):
        raise ValueError('write a volume\'s name, or "name:ro"')
    return {"name": name, "target": target, **({"readonly": True} if mode else {})}


def _duration(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.9f}".rstrip("0").rstrip(".") + "s"
    if isinstance(value, str):
        return value
    raise TypeError('write a number of seconds, or a text such as "90s"')


def _retries(value: Any) -> dict[str, Any]:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"max": value}
    policy = dict(_of(dict, value))
    for name in ("initial", "max_delay"):
        if name in policy:
            policy[name] = _duration(policy[name])
    return policy


def _scale(value: Any) -> dict[str, Any]:
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError("write (least, most), or a dict of the spec's scaling")
        return {"min": _of(int, value[0]), "max": _of(int, value[1])}
    scaling = dict(_of(dict, value))
    for name in ("scaledown_window", "zero_window", "backlog_target", "predict_period"):
        if name in scaling:
            scaling[name] = _duration(scaling[name])
    return scaling


def main(args: list[str]) -> int:
    """Prints what the file named by the argument is, as JSON. What is wrong with it goes to standard error."""
    try:
        described = describe(args[0])
    except SyntaxError as error:
        sys.stderr.write(f"{error.filename}:{error.lineno}: {error.msg}: {(error.text or '').strip()}\n")
        return 1
    except (_read.Wrong, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    json.dump(described, sys.stdout)
    return 0
