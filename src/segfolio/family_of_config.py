"""The family that a config's block `model` says, without trainer and data module."""

from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from segfolio.data.image_space import ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from segfolio.experiment import instance
from segfolio.families.trained import Trained
from segfolio.mistakes import explain, told_by_class


def family_of_config(
    model: Mapping[str, Any],
    config: Path,
    labels: LabelSpace,
    space: ImageSpace,
    base: type[Trained],
    changes: Sequence[str] = (),
) -> Any:
    """The family of the block `model`, which is a `base`.

    Args:
        config: the file that it is from, for errors.
        changes: `--model.init_args.KEY VALUE ...`, in place of what it says.

    Raises:
        SegfolioError: what is wrong with the block or the changes, in one sentence.
    """
    given = {"labels": instance(labels), "image_space": instance(space)}
    block = {"class_path": model["class_path"], "init_args": {**(model.get("init_args") or {}), **given}}
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_subclass_arguments(base, "model", required=True)
    try:
        parsed = parser.parse_args(list(changes), namespace=parser.parse_object({"model": block}))
    except ArgumentError as error:
        raise SegfolioError(f"{config}: {explain(str(error), parser)}") from error
    with told_by_class(parsed):
        return parser.instantiate(parsed).model


def without_weights(model: Any) -> Any:
    """A block in which no network is given weights: a checkpoint has them, or none are needed."""
    if isinstance(model, dict):
        return {key: None if _names_weights(key, value) else without_weights(value) for key, value in model.items()}
    return [without_weights(value) for value in model] if isinstance(model, list) else model


def _names_weights(key: str, value: Any) -> bool:
    return isinstance(value, str) and (key in ("weights", "init_from") or key.endswith("_weights"))
