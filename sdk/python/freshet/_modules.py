"""Which files a function needs: the local modules that its own imports, and what those import, however deep."""

from __future__ import annotations

import ast
import fnmatch
import os
from typing import Iterable, Iterator, Optional

from freshet import _read

# Folders that are no code of the user's.
_SKIP = ("__pycache__", "node_modules")


def root_of(path: str) -> str:
    """The folder from which a file's module is imported: that above all its packages."""
    folder = os.path.dirname(path)
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder = os.path.dirname(folder)
    return folder


def name_of(root: str, path: str) -> str:
    """The module's name that a file has below a root."""
    parts = os.path.splitext(os.path.relpath(path, root))[0].split(os.sep)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    for part in parts:
        if not part.isidentifier():
            raise _read.Wrong(f"{path}: {part!r} is no name that Python can import: rename the file")
    return ".".join(parts)


def entries(root: str, names: Iterable[str]) -> Iterator[str]:
    """The files of entries, where they are local."""
    for name in names:
        found = _find(root, name.partition(":")[0].split("."))
        if found is not None:
            yield found


def collect(root: str, starts: Iterable[str], include: Iterable[str]) -> list[tuple[str, str]]:
    """The files to ship, as their names below the root with their paths, in the order of the names."""
    collector = _Collector(root)
    for path in starts:
        collector.file(path)
    for pattern in include:
        collector.pattern(pattern)
    return sorted(collector.files.items())


class _Collector:
    def __init__(self, root: str) -> None:
        self._root = root
        self.files: dict[str, str] = {}

    def file(self, path: str) -> None:
        """Adds a file, with what it imports. Of a package it is in, everything is added: data too, and what is imported by name."""
        name = os.path.relpath(path, self._root)
        if name in self.files:
            return
        self.files[name] = path
        first = name.split(os.sep)[0]
        if first != name:
            self._package(os.path.join(self._root, first))
        if not path.endswith(".py"):
            return
        for node in ast.walk(_read.parse(path)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._module(alias.name.split("."))
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                self._module(node.module.split("."))

    def _module(self, parts: list[str]) -> None:
        """Adds a module if it is local. Those of this package never are: the worker has them."""
        if parts[0] == "freshet":
            return
        found = _find(self._root, parts[:1])
        if found is not None:
            self.file(found)
            return
        folder = os.path.join(self._root, parts[0])  # a package without __init__.py
        if os.path.isdir(folder) and _find(self._root, parts) is not None:
            self._package(folder)

    def _package(self, folder: str) -> None:
        for path in _below(folder):
            self.file(path)

    def pattern(self, pattern: str) -> None:
        """Adds files by a pattern below the root, such as data/*.json; a folder with all that is in it."""
        before = len(self.files)
        for path in _below(self._root):
            name = os.path.relpath(path, self._root)
            if fnmatch.fnmatch(name, pattern) or name.startswith(pattern.rstrip("/") + os.sep):
                self.files[name] = path
        if len(self.files) == before:
            raise _read.Wrong(f"include: {pattern!r} names no file below {self._root} that is not shipped already")


def _find(root: str, parts: list[str]) -> Optional[str]:
    """The file of a local module: its own, or that of its package."""
    path = os.path.join(root, *parts)
    for candidate in (os.path.join(path, "__init__.py"), path + ".py"):
        if os.path.isfile(candidate):
            return candidate
    return None


def _below(folder: str) -> Iterator[str]:
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f not in _SKIP and not os.path.isfile(os.path.join(at, f, "pyvenv.cfg"))
        )
        for file in sorted(files):
            if not file.startswith(".") and not file.endswith(".pyc"):
                yield os.path.join(at, file)
