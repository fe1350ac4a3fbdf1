"""What a file of functions is, for `freshet deploy`. The file is read and never run: whoever deploys need not have what it imports."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from freshet import _fields, _modules, _read


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
    described, where = [], []
    for found in file.functions:
        where.append(found.where)
        described.append(_function(found.where, f"{module}:{found.name}", {"name": found.name, **app, **found.settings}))
    for key, settings in functions.items():
        entry = settings.get("entry", "")
        own = {name: value for name, value in settings.items() if name != "entry"}
        where.append(f"pyproject.toml: tool.freshet.functions.{key}")
        described.append(_function(where[-1], entry, {"name": key, **app, **own}))
    if not described:
        raise _read.Wrong(f"{path} has no functions: write @freshet.function() above one, or name it in pyproject.toml")
    for one in described:
        one["app"] = name
    starts = [path, *_modules.entries(root, (str(one["handler"]["entry"]) for one in described))]
    return {
        "manifest": {"format": 1, "app": name, "functions": described},
        "where": where,
        "files": [{"name": shipped, "path": source} for shipped, source in _modules.collect(root, starts, include)],
    }


def _function(where: str, entry: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A function of the spec."""
    spec: dict[str, Any] = {"handler": {"type": "python", "entry": entry}, "snapshot": {"enabled": True}}
    for name, value in settings.items():
        try:
            _fields.put(spec, name, value)
        except (TypeError, ValueError) as error:
            raise _read.Wrong(f"{where}: {name} = {value!r}: {error}") from None
    return spec


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
