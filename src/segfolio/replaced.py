"""A class that takes the place of another in a config: what was said of the one is not said of the other."""

from typing import Any

from jsonargparse import _typehints
from jsonargparse._util import get_import_path, import_object
from lightning.pytorch.utilities.rank_zero import rank_zero_warn


def drop_arguments_of_replaced_classes() -> None:
    """Have jsonargparse (4.53) take nothing over from a class that another one replaces, and tell what it was.

    By itself it keeps each argument whose name the new class knows, too: SGD would have AdamW's `weight_decay`.
    """
    _typehints.discard_init_args_on_class_path_change = _drop


def _drop(parser: Any, before: Any, now: Any) -> None:
    if not before or not before.get("init_args") or _same(before["class_path"], now["class_path"]):
        return
    given = before.pop("init_args").as_dict()
    gone = [f"{key}: {_short(value)}" for key, value in given.items() if value not in (None, {})]
    if gone:
        rank_zero_warn(
            f"{now['class_path']} takes the place of {before['class_path']}, whose arguments go: {', '.join(gone)}"
        )


def _same(one: str | None, other: str | None) -> bool:
    """Whether two import paths lead to one class; a dataclass that is instantiated has none."""
    if one is None or other is None:
        return True
    return one == other or get_import_path(import_object(one)) == get_import_path(import_object(other))


def _short(value: Any) -> Any:
    """A class without its arguments."""
    return value.get("class_path", value) if isinstance(value, dict) else value
