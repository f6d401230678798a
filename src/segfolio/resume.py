"""Resuming a run: is what is asked for now what was asked for then?"""

import json
import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from segfolio.errors import SegfolioError, did_you_mean
from segfolio.upgrade import upgrade

HARMLESS = (
    "config",
    "ckpt_path",
    "weights_only",
    "output",
    "skip",
    "paper",
    "resume",
    "data.root",
    "data.num_workers",
    "data.images",
    "data.cache",
    "data.eval_batch_size",
    "data.test_split",
    "model.init_args.architecture.init_args.weights",
    "model.init_args.init_from",
    "trainer.max_steps",
    "trainer.max_epochs",
    "trainer.max_time",
    "trainer.logger",
    "trainer.callbacks",
    "trainer.log_every_n_steps",
    "trainer.num_sanity_val_steps",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.profiler",
    "trainer.devices",  # what counts of it is the number of processes, which is compared
    "trainer.num_nodes",
    "trainer.default_root_dir",
)
"""Keys that may differ: they change neither a weight nor the data of the steps to come."""


def check_resumable(then: Mapping[str, Any], now: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Compare the configs (and whatever else was recorded) of two sessions of one run.

    Args:
        then: nested, as the checkpoint keeps it and `with_defaults`.
        now: nested, of the session that wants to go on.
        allowed: keys, or the beginnings of keys, that the user lets differ; `all` stands for every key.

    Raises:
        SegfolioError: with every key that differs, both values, and how to insist; a key that is allowed and not there.
    """
    if "all" in allowed:
        return
    keys = [key for config in (then, now) for key, _ in flatten(config)]
    if unknown := [each for each in allowed if not any(_covers(each, key) for key in keys)]:
        raise SegfolioError(f"--resume.allow names {unknown[0]!r}, which is no key{did_you_mean(unknown[0], keys)}")
    if not then:
        raise SegfolioError(
            "the checkpoint does not say what its run was asked for, so that nothing can be compared; start a "
            "new run, or go on all the same with --resume.allow=all"
        )
    old, new = dict(flatten(then)), dict(flatten(now))
    changed = [
        key
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key) and not any(_covers(prefix, key) for prefix in (*HARMLESS, *allowed))
    ]
    if changed:
        told = "; ".join(f"{key} was {old.get(key)} and is {new.get(key)}" for key in changed)
        raise SegfolioError(
            f"the run cannot be resumed exactly: {told}; restore it, start a new run, or go on "
            f"all the same with --resume.allow={','.join(changed)}"
        )


def with_defaults(then: Mapping[str, Any], parser: ArgumentParser) -> dict[str, Any]:
    """What a checkpoint's run was asked for, with the default of every argument that is younger than the run.

    Args:
        then: as the checkpoint keeps it; it may be of an earlier version.
        parser: of `fit`. What it does not take (`processes`) stays as it is, as does all where a key is not known
            any more.
    """
    old = upgrade(then)
    config = {key: value for key, value in old.items() if key in ("seed_everything", "model", "data", "trainer")}
    try:
        whole = parser.dump(parser.parse_object(config), format="json", skip_unset=False)
    except ArgumentError:
        return old
    return {**old, **{key: value for key, value in json.loads(whole).items() if key in config}}


def of_whole_steps(
    then: Mapping[str, Any], version: str, now: Mapping[str, Any], allowed: Sequence[str] = ()
) -> Mapping[str, Any]:
    """What a checkpoint's run was asked for, `data.batch_size` as today of an optimiser step.

    Before 0.2 it was of one process and one forward pass.

    Args:
        version: of segfolio, by which the checkpoint was written.
        now: what is asked for.
        allowed: as of `check_resumable`.

    Raises:
        SegfolioError: the number of then is asked for, which now is another batch.
    """
    parts = then.get("processes", 1) * (then.get("trainer", {}).get("accumulate_grad_batches") or 1)
    if parts == 1 or tuple(map(int, re.findall(r"\d+", version)[:2])) >= (0, 2):
        return then
    part = then["data"]["batch_size"]
    if now["data"]["batch_size"] == part and "all" not in allowed:
        raise SegfolioError(
            f"the checkpoint is of segfolio {version}, where data.batch_size {part} was of one process and one forward "
            f"pass; it is of an optimiser step now: go on with --data.batch_size {part * parts}"
        )
    return {**then, "data": {**then["data"], "batch_size": part * parts}}


def flatten(nested: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"a": {"b": 1}}` to `("a.b", 1)`; lists are values."""
    if isinstance(nested, Mapping) and nested:
        for key, value in nested.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, nested


def _covers(prefix: str, key: str) -> bool:
    return key == prefix or key.startswith(prefix + ".")
