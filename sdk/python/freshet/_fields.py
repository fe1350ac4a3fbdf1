"""What each setting may be, and what it stands for in a function's spec."""

from __future__ import annotations

import json
import re
from typing import Any, Callable

# Takes a setting's value and returns what stands in the spec for it. TypeError and ValueError say what to write instead.
Read = Callable[[Any], Any]


def _is(kind: Any, what: str) -> Read:
    def read(value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"write {what}")
        return value

    return read


_text = _is(str, "a text")
_whole = _is(int, "a whole number")
_number = _is((int, float), "a number")
_flag = _is(bool, "True or False")


def _duration(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"((\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h))+", value):
        return value
    seconds = _is((int, float), 'a number of seconds, or a text such as "90s" or "1h30m"')(value)
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _within(name: Any, read: Read, value: Any) -> Any:
    """Reads a part of a setting, and says of which part an error is."""
    try:
        return read(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _each(read: Read) -> Read:
    def values(value: Any) -> list[Any]:
        return [_within(i, read, one) for i, one in enumerate(_is((list, tuple), "a list")(value))]

    return values


def _dict(read: Read, what: str) -> Read:
    def values(value: Any) -> dict[str, Any]:
        return {_text(name): _within(name, read, one) for name, one in _is(dict, what)(value).items()}

    return values


def _block(fields: dict[str, Read], **defaults: Any) -> Read:
    """A dict of the spec's fields, of which those that are left out have defaults."""
    names = ", ".join(sorted(fields))

    def values(value: Any) -> dict[str, Any]:
        block = dict(defaults)
        for name, one in _is(dict, f"a dict of {names}")(value).items():
            if name not in fields:
                raise ValueError(f"{name}: there is no such field: use one of {names}")
            block[name] = _within(name, fields[name], one)
        return block

    return values


def _short(kind: Any, field: str, read: Read) -> Read:
    """A block, or the value of its main field alone."""

    def values(value: Any) -> Any:
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return read({field: value})
        return read(value)

    return values


def _scale(value: Any) -> dict[str, Any]:
    if not isinstance(value, (tuple, list)):
        return _SCALING(value)
    if len(value) != 2:
        raise ValueError("write (least, most), or a dict of the spec's scaling")
    return {"min": _whole(value[0]), "max": _whole(value[1])}


def _gpu(value: Any) -> dict[str, Any]:
    parts = list(value) if isinstance(value, (tuple, list)) else [value]
    count = parts.pop(0) if parts and not isinstance(parts[0], str) else 1
    if isinstance(count, bool) or not isinstance(count, int) or not all(isinstance(kind, str) for kind in parts):
        raise TypeError('write a number of GPUs, a kind such as "h100", or both, such as (2, "h100", "a100")')
    return {"gpus": count, "gpu_kinds": parts} if parts else {"gpus": count}


def _schedules(value: Any) -> list[Any]:
    return _each(_SCHEDULE)(value if isinstance(value, (list, tuple)) else [value])


def _mounts(value: Any) -> list[Any]:
    sources = _dict(_text, 'a dict such as {"/target": "/source of the node"}')(value)
    return [{"source": source, "target": target, "readonly": True} for target, source in sources.items()]


def _scratch(value: Any) -> list[Any]:
    sizes = _dict(_whole, 'a dict such as {"/target": most bytes}')(value)
    return [{"type": "tmpfs", "target": target, **({"tmpfs_options": [{"size": size}]} if size else {})} for target, size in sizes.items()]


def _volume(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return _VOLUME(value)
    name, _, mode = _text(value).partition(":")
    if mode not in ("", "ro"):
        raise ValueError('write a volume\'s name, or "name:ro"')
    return {"name": name, **({"readonly": True} if mode else {})}


def _volumes(value: Any) -> list[Any]:
    volumes = _dict(_volume, 'a dict such as {"/target": "name"}')(value)
    return [{**volume, "target": target} for target, volume in volumes.items()]


def _ulimit(value: Any) -> list[Any]:
    return [{name: str(limit) for name, limit in _dict(_is((int, str), 'a limit, such as 1024 or "1024:2048"'), "a dict")(value).items()}]


_SCALING = _block(
    {
        **dict.fromkeys(("min", "max", "target_inflight", "buffer", "starts_per_minute"), _whole),
        **dict.fromkeys(("scaledown_window", "zero_window", "backlog_target", "predict_period"), _duration),
        "schedule": _each(_block({"cron": _text, "timezone": _text, "for": _duration, "min": _whole})),
    }
)
_SCHEDULE = _short(
    str,
    "cron",
    _block({**dict.fromkeys(("name", "cron", "time_zone", "method", "missed"), _text), "every": _duration, "input": json.dumps}),
)
_RETRIES = _block({"max": _whole, "backoff": _number, "initial": _duration, "max_delay": _duration, "on": _each(_text)})
_VOLUME = _block({"name": _text, "readonly": _flag, "source": _text})
_WEB = _block({"enabled": _flag, "public": _flag, "domains": _each(_text), "origins": _each(_text)}, enabled=True)

# Settings with the place in the spec that each stands at; "mount" is that of two.
_SETTINGS: dict[str, tuple[str, Read]] = {
    **{name: (name, _text) for name in ("name", "image", "user", "work_dir", "hostname", "network_mode")},
    **{name: (name, _whole) for name in ("priority", "concurrency", "max_pending", "max_running")},
    **{name: (name, _whole) for name in ("pids_limit", "shm_size", "memory_hard_limit")},
    **{name: (name, _flag) for name in ("cancel_on_disconnect", "force_pull", "readonly_rootfs", "cpu_hard_limit")},
    **{name: (name, _duration) for name in ("timeout", "startup_timeout", "queue_timeout", "drain", "image_pull_timeout")},
    **{name: (name, _each(_text)) for name in ("args", "secrets", "datacenters", "methods", "cap_add", "group_add", "ports")},
    **{name: (name, _each(_text)) for name in ("dns_servers", "dns_search_domains", "dns_options", "extra_hosts")},
    "python": ("command", _text),
    "env": ("env", _dict(_text, "a dict of texts")),
    "cpu": ("resources.cpu", _whole),
    "memory": ("resources.memory", _whole),
    "gpu": ("resources", _gpu),
    "retries": ("retries", _short(int, "max", _RETRIES)),
    "rate": ("rate", _short((int, float), "per_second", _block({"per_second": _number, "burst": _whole}))),
    "snapshot": ("snapshot", _short(bool, "enabled", _block({"enabled": _flag, "gpu": _flag}, enabled=True))),
    "scale": ("scaling", _scale),
    "schedule": ("schedule", _schedules),
    "web": ("web", _short(bool, "enabled", _WEB)),
    "egress": ("network.egress", _flag),
    "allow": ("network", lambda value: {"egress": True, "allow": _each(_text)(value)}),
    "mounts": ("mount", _mounts),
    "scratch": ("mount", _scratch),
    "volumes": ("volume", _volumes),
    "writable": ("writable", _short(int, "size", _block({"medium": _text, "size": _whole}))),
    "ulimit": ("ulimit", _ulimit),
    "auth": ("auth", _block(dict.fromkeys(("username", "password", "server_address"), _text))),
}


def put(spec: dict[str, Any], name: str, value: Any) -> None:
    """Puts a setting into a spec. TypeError or ValueError when it is none, or not of such a value."""
    if name not in _SETTINGS:
        raise ValueError(f"there is no such setting: use one of {', '.join(sorted((*_SETTINGS, 'include')))}")
    place, read = _SETTINGS[name]
    block, _, field = place.rpartition(".")
    at = spec.setdefault(block, {}) if block else spec
    said = read(value)
    before = at.get(field)
    if isinstance(said, dict) and isinstance(before, dict):
        before.update(said)
    elif isinstance(said, list) and isinstance(before, list):
        before.extend(said)
    else:
        at[field] = said
