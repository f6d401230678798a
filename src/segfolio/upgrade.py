"""Configs of earlier versions, as users, runs and checkpoints keep them, in today's keys."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

Config = dict[str, Any]

_MOVED = {
    "test_protocol": ("test", "protocol"),
    "also_test": ("test", "also"),
    "bias_lr_factor": ("parameters", "bias_lr_factor"),
    "bias_weight_decay": ("parameters", "bias_weight_decay"),
    "lr_factors": ("parameters", "lr_factors"),
    "norm_weight_decay": ("parameters", "norm_weight_decay"),
    "lr_decay_per_layer": ("parameters", "lr_decay_per_layer"),
}
"""Arguments of a family, and where they are now."""


def upgrade(config: Mapping[str, Any]) -> Config:
    """What an earlier version wrote, as today's would have written it; what is of today stays as it is.

    Args:
        config: `model`, `data`, `trainer` and so on, as written or with every default.
    """
    found = deepcopy(dict(config))
    for change in _CHANGES:
        change(found)
    return found


def _detection(config: Config) -> None:
    """`RegionBased`, which had no test protocols but took their defaults, became `Detection`."""
    model = config.get("model")
    if isinstance(model, dict) and str(model.get("class_path")).endswith(".RegionBased"):
        model["class_path"] = "segfolio.families.Detection"
        for key in ("test_protocol", "also_test"):
            _arguments(config).pop(key, None)


def _nested_arguments(config: Config) -> None:
    """Rules of parameters, and protocols of a test, have a key each, with theirs below."""
    arguments = _arguments(config)
    for name in [name for name in arguments if name in _MOVED]:
        group, key = _MOVED[name]
        arguments.setdefault(group, {})[key] = arguments.pop(name)


def _images_space(config: Config) -> None:
    """What images are made of is more than their number of channels, and of the checkpoint."""
    if isinstance(data := config.get("data"), dict):
        data.pop("images_channels", None)


def _arguments(config: Config) -> Config:
    """Of the family; an empty one where the config does not choose it."""
    model = config.get("model")
    found = model.get("init_args") if isinstance(model, dict) else None
    return found if isinstance(found, dict) else {}


_CHANGES: tuple[Callable[[Config], None], ...] = (_detection, _nested_arguments, _images_space)
"""In the order in which they were made; each does nothing to a config that has it."""
