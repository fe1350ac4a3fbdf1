"""Reads the settings of functions out of a source file, and out of the pyproject.toml beside it."""

from __future__ import annotations

import ast
import operator
import os
from typing import Any, Optional


class Wrong(Exception):
    """Something is wrong with what is to be deployed; the message says where, and what to write."""


class Found:
    """A function or class that is to be deployed."""

    def __init__(self, name: str, where: str, settings: dict[str, Any]) -> None:
        self.name = name
        self.where = where
        self.settings = settings


class File:
    """A source file's app and functions: what stands in calls of freshet.app() and freshet.function()."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: dict[str, str] = {}  # how the file calls this package's functions
        self._constants: dict[str, Any] = {}
        self.app: dict[str, Any] = {}
        self.functions: list[Found] = []
        for statement in parse(path).body:
            self._statement(statement)

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                if alias.name == "freshet":
                    prefix = alias.asname or "freshet"
                    self._names.update({f"{prefix}.app": "app", f"{prefix}.function": "function"})
        elif isinstance(statement, ast.ImportFrom) and statement.module == "freshet":
            for alias in statement.names:
                self._names[alias.asname or alias.name] = alias.name
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
            try:
                self._constants[statement.targets[0].id] = self._value(statement.value)
            except Wrong:
                pass  # no constant, which is known only when it is used as one
        elif isinstance(statement, ast.Expr) and self._calls(statement.value, "app"):
            self._read_app(statement.value)
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for decorator in statement.decorator_list:
                if self._calls(decorator, "function"):
                    where = f"{self._path}:{decorator.lineno}: {statement.name}"
                    self.functions.append(Found(statement.name, where, self._keywords(decorator)))

    def _calls(self, node: ast.expr, what: str) -> bool:
        """Whether an expression is a call of this package's function, or for a decorator its bare name."""
        target = node.func if isinstance(node, ast.Call) else node
        name = ast.unparse(target) if isinstance(target, (ast.Name, ast.Attribute)) else ""
        return self._names.get(name) == what

    def _read_app(self, node: ast.expr) -> None:
        settings = self._keywords(node)
        if isinstance(node, ast.Call) and len(node.args) == 1:
            settings["name"] = self._value(node.args[0])
        if not isinstance(settings.get("name"), str):
            raise Wrong(f'{self._path}:{node.lineno}: name the app: freshet.app("name")')
        self.app = settings

    def _keywords(self, node: ast.expr) -> dict[str, Any]:
        if not isinstance(node, ast.Call):
            return {}
        if node.args and self._calls(node, "function"):
            raise Wrong(f"{self._path}:{node.lineno}: settings have names: write freshet.function(name=value)")
        settings: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self._value(keyword.value)
            if keyword.arg is not None:
                settings[keyword.arg] = value
            elif isinstance(value, dict):
                settings.update(value)
        return settings

    def _value(self, node: ast.expr) -> Any:
        """What an expression stands for, of those that need no running: literals, names of constants, and arithmetic."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple)):
            values = [self._value(element) for element in node.elts]
            return tuple(values) if isinstance(node, ast.Tuple) else values
        if isinstance(node, ast.Dict):
            return {self._value(key): self._value(value) for key, value in zip(node.keys, node.values) if key is not None}
        if isinstance(node, ast.Name) and node.id in self._constants:
            return self._constants[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self._arithmetic(node, operator.neg, node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return self._arithmetic(node, _OPERATORS[type(node.op)], node.left, node.right)
        raise Wrong(
            f"{self._path}:{node.lineno}: {ast.unparse(node)}: write a plain value here, or the name of a constant of this file: "
            "it is read without running the file"
        )

    def _arithmetic(self, node: ast.expr, apply: Any, *operands: ast.expr) -> Any:
        values = [self._value(operand) for operand in operands]
        if any(isinstance(value, (str, list, tuple)) and len(value) > 10_000 for value in values) or any(
            isinstance(value, int) and abs(value) > 1 << 64 for value in values
        ):
            raise Wrong(f"{self._path}:{node.lineno}: {ast.unparse(node)}: write the value itself")
        try:
            return apply(*values)
        except Exception as error:
            raise Wrong(f"{self._path}:{node.lineno}: {ast.unparse(node)}: {error}") from None


_OPERATORS: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def parse(path: str) -> ast.Module:
    """A source file's tree."""
    with open(path, "rb") as file:
        return ast.parse(file.read(), path)


def beside(path: str) -> dict[str, Any]:
    """The table tool.freshet of the nearest pyproject.toml at the file or above it; empty when there is none."""
    folder = os.path.dirname(path)
    while True:
        project = os.path.join(folder, "pyproject.toml")
        if os.path.isfile(project):
            return _table(project)
        above = os.path.dirname(folder)
        if above == folder or os.path.exists(os.path.join(folder, ".git")):
            return {}
        folder = above


def _table(project: str) -> dict[str, Any]:
    with open(project, "rb") as file:
        text = file.read()
    if b"tool.freshet" not in text:
        return {}
    try:
        import tomllib  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise Wrong(f"{project}: tool.freshet takes Python 3.11 to read: deploy with one, or put the settings into the file") from None
    try:
        table: Optional[Any] = tomllib.loads(text.decode()).get("tool", {}).get("freshet")
    except ValueError as error:
        raise Wrong(f"{project}: {error}") from None
    return dict(table) if isinstance(table, dict) else {}
