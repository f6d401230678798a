"""A config's mistake, from jsonargparse's report of every attempt to the one sentence that a user needs."""

import importlib
import inspect
import re
from collections.abc import Iterable

from segfolio.errors import did_you_mean

_NOISE = re.compile(
    r"Does not validate|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but"
)
_CLASS = re.compile(r"class_path[= ]'([\w.]+)'")


def explain(report: str, keys: Iterable[str]) -> str:
    """One sentence: which key, what was found, what was expected.

    Args:
        report: jsonargparse's message.
        keys: all keys that the command takes.
    """
    if match := re.search(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", report):
        key = match[1] or match[2]
        return f"there is no key {key!r}{did_you_mean(key, keys)}"
    place = ".".join(re.findall(r'Parser key "([\w.]+)"', report))
    if match := re.search(r"Option '(\w+)' is not accepted", report):
        before, after = report[: match.start()], report[match.end() :].split("\n", 1)[0]
        cls = (_CLASS.findall(after) or _CLASS.findall(before) or [""])[-1]
        accepted = _arguments(cls)
        return (
            f"{place}: {cls.rpartition('.')[2]} takes no {match[1]!r}{did_you_mean(match[1], accepted)}; "
            f"it takes {', '.join(accepted)}"
        )
    if match := re.search(r"Got value: ([\w.]+)$|Namespace\(class_path='([\w.]+)'", report):
        name = match[1] or match[2]
        if "." in name and not _exists(name):
            module, _, cls = name.rpartition(".")
            return f"{place}: there is no class {name}{did_you_mean(cls, _names(module))}"
    lines = [
        re.sub(r"Type \S*Callable\[.*?expects a function or a callable class: ", "", line)
        for line in report.splitlines()
    ]
    lines = [re.sub(r"\. Got value: Namespace\(.*", "", line).strip(" -") for line in lines]
    told = [re.sub(r'^Parser key "[\w.]+":\s*', "", line) for line in lines if line and not _NOISE.search(line)]
    reason = re.sub(r"<class '(\w+)'>", r"\1", "; ".join(line for line in told if line)).replace(":;", ":")
    return f"{place}: {reason}" if place else reason


def _arguments(dotted: str) -> list[str]:
    module, _, name = dotted.rpartition(".")
    try:
        return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, ValueError):
        return []


def _names(module: str) -> list[str]:
    try:
        return dir(importlib.import_module(module))
    except ImportError:
        return []


def _exists(dotted: str) -> bool:
    module, _, name = dotted.rpartition(".")
    return name in _names(module)
