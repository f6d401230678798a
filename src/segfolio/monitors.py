"""What callbacks watch, as EarlyStopping and ModelCheckpoint do: whether it will be there, and which way is better."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from lightning.pytorch.callbacks import LearningRateMonitor

from segfolio.errors import SegfolioError, did_you_mean
from segfolio.figure import Figure, of_key


def check_main_metric(given: str | None, declared: Mapping[str, Figure]) -> None:
    """Before training: `main_metric` of the config is a figure of the whole validation.

    Args:
        given: None where it is the family's own.
        declared: the figures of validation, by name.

    Raises:
        SegfolioError: it is none of them.
    """
    known = [name for name, figure in declared.items() if not figure.per_class]
    if given is not None and given not in known:
        raise SegfolioError(
            f"model.main_metric is {given!r}, which is not measured{did_you_mean(given, known)}; it can be "
            f"{', '.join(known) or 'none: the model declares no figures'}"
        )


def check_monitors(callbacks: Iterable[Any], declared: Mapping[str, Figure], train_keys: Iterable[str]) -> None:
    """Before training: a callback that watches a figure finds one that is logged, one of validation in its direction.

    Args:
        declared: the figures of validation, by name.
        train_keys: what the model logs of a training step; `*` in one stands for anything.

    Raises:
        SegfolioError: a figure that is not logged; a mode that takes the worst for the best.
    """
    callbacks = list(callbacks)
    keys = [*train_keys, *(key for callback in callbacks for key in getattr(callback, "logs", ()))]
    if any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        keys.append("lr-*")
    for callback in callbacks:
        monitor, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
        if not isinstance(monitor, str) or any(fnmatchcase(monitor, key) for key in keys):
            continue
        name, figure = type(callback).__name__, of_key(monitor, declared)
        if figure is None or not monitor.startswith("val/"):
            known = [*(f"val/{each}" for each, one in declared.items() if not one.per_class), *keys]
            raise SegfolioError(
                f"{name} watches {monitor!r}, which is not logged{did_you_mean(monitor, known)}; it can watch "
                f"{', '.join(known) or 'nothing'}"
            )
        if mode in ("min", "max") and figure.higher_is_better != (mode == "max"):
            better = "higher" if figure.higher_is_better else "lower"
            raise SegfolioError(
                f"{name} takes the {mode}imum of {monitor}, which is better {better}; give it "
                f"mode: {'max' if figure.higher_is_better else 'min'}"
            )
