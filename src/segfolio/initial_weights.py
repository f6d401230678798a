"""The weights that a config begins with; a checkpoint has its own in their place, and needs none of their files."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any


def without(model: Any) -> Any:
    """A copy of a config's block `model` of which `leave_out` has seen the arguments."""
    copied = deepcopy(model)
    leave_out(copied.get("init_args") or {})
    return copied


def leave_out(arguments: Any) -> None:
    """Set to null, in place, what names weights in a config's `model.init_args`: `init_from`, and the arguments
    `weights` and `..._weights` of the network. What the checkpoint does not hold, e.g. a teacher, keeps its own."""
    for block, key in _named(arguments):
        block[key] = None


def warn_of_none(arguments: Any) -> None:
    """Says that the network is as it was initialised, where nothing in a config's `model.init_args` names weights."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_warn  # takes longer than all else here

    if all(block[key] is None for block, key in _named(arguments)):
        rank_zero_warn("neither --ckpt_path nor weights are given: the network is as it was initialised")


def _named(arguments: Any) -> Iterator[tuple[Any, str]]:
    """Block and key of each, of dicts or of jsonargparse's namespaces."""
    architecture = arguments.get("architecture") or {}
    if "init_from" in arguments:
        yield arguments, "init_from"
    if not isinstance(architecture, str):
        network = architecture.get("init_args") or {}
        yield from [(network, key) for key in network.keys() if key == "weights" or key.endswith("_weights")]  # noqa: SIM118
