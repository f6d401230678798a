"""A key of a config with nothing below it, `foo: {}`, is a key as any other."""

from functools import wraps
from typing import Any

from jsonargparse import Namespace


def keep_empty_keys() -> None:
    """Have jsonargparse (4.53) look at keys with nothing below them, so that it refuses those that nobody knows.

    By itself it puts configs together leaf by leaf, and an empty branch has none.
    """
    if getattr(Namespace.update, "__wrapped__", None) is None:
        Namespace.update = _with_empty_branches(Namespace.update)


def _with_empty_branches(update: Any) -> Any:
    @wraps(update)
    def updated(self: Namespace, value: Any, key: str | None = None, only_unset: bool = False) -> Namespace:
        found: Namespace = update(self, value, key, only_unset)
        if isinstance(value, Namespace):
            for name, branch in value.items(branches=True):
                whole = f"{key}.{name}" if key else name
                if isinstance(branch, Namespace) and not branch and whole not in found:
                    found[whole] = Namespace()
        return found

    return updated
