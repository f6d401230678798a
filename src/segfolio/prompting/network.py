"""A promptable family as a run left it, or as a config says it, without the data that it was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse._util import import_object

from segfolio import initial_weights
from segfolio.arguments import with_config_of_run
from segfolio.data.image_space import RGB
from segfolio.data.labels import ANYTHING
from segfolio.errors import SegfolioError
from segfolio.families import Distillation, Promptable, PromptableDetection, Video
from segfolio.families.checkpoint import image_space_of, labels_of, read_checkpoint
from segfolio.families.prompted import Prompted
from segfolio.family_of_config import family_of_config
from segfolio.ledger.command import Parser
from segfolio.runs import run_of
from segfolio.upgrade import upgrade
from segfolio.yaml_file import read_yaml

Given = Sequence[str]
_OF_STUDENT = ("architecture", "mean", "std", "optimizer")
_OF_VIDEOS = {"criterion", "prompts", "validation", "test"}  # which a `Promptable` has of its own kinds


def promptable(command: str, config: str | None, checkpoint: str | None, changes: Given = ()) -> tuple[Prompted, Path]:
    """The family in evaluation, and the folder to write to: of the run that it came from, or this one.

    Args:
        command: for errors.
        config: a file with the block `model`; that of the checkpoint's run if not given.
        checkpoint: of a run, or the run's folder; the network is as the config says if not given.
        changes: `--predict_with.KEY VALUE ...` and `--model.KEY VALUE ...`, in place of what the config says.

    Raises:
        SegfolioError: neither of the two, files that cannot be read or do not fit, a config of another family.
    """
    asked = [*(["-c", config] if config else []), *(["--ckpt_path", checkpoint] if checkpoint else [])]
    parser = Parser(command)
    parser.add_argument("-c", dest="config", type=Path)
    parser.add_argument("--ckpt_path", type=Path)
    found, _ = parser.parse_known_args(with_config_of_run([command, *asked])[1:])
    model = upgrade(read_yaml(found.config, "model")).get("model")
    model = _prompted(model, found.config)
    content = None if found.ckpt_path is None else read_checkpoint(found.ckpt_path)
    family = _built(model, found.config, content, changes)
    if content is not None:
        family.on_load_checkpoint(content)
        family.load_state_dict(content["state_dict"])
        return family.eval(), run_of(found.ckpt_path) or Path()
    return family.eval(), Path()


def _prompted(model: Any, config: Path) -> dict[str, Any]:
    """The block of a family that is asked; of a distillation, the student as one, and of videos, the network."""
    name = model.get("class_path") if isinstance(model, dict) else None
    try:
        family = import_object(name) if isinstance(name, str) else None
    except (ImportError, AttributeError, ValueError):
        family = None
    if not (isinstance(family, type) and issubclass(family, Prompted | Distillation)):
        raise SegfolioError(
            f"{config} is of {name or 'no model'}, which is not asked by points and boxes; give a config or a "
            "checkpoint of segfolio.families.Promptable, PromptableDetection or Video"
        )
    if issubclass(family, Promptable | PromptableDetection):
        return dict(model)
    given = model.get("init_args") or {}
    kept = given.keys() - _OF_VIDEOS if issubclass(family, Video) else _OF_STUDENT
    return {
        "class_path": "segfolio.families.Promptable",
        "init_args": {key: value for key, value in given.items() if key in kept},
    }


def _built(model: Any, config: Path, checkpoint: dict[str, Any] | None, changes: Given) -> Prompted:
    """Without weights to be fetched where a checkpoint has them."""
    trained_with_labels = checkpoint is not None and "labels" in checkpoint.get("segfolio", {})
    labels = labels_of(checkpoint) if checkpoint and trained_with_labels else ANYTHING
    space = (image_space_of(checkpoint) if checkpoint else None) or RGB
    arguments = {**(model.get("init_args") or {})}
    if checkpoint is not None:
        initial_weights.leave_out(arguments)
    else:
        initial_weights.warn_of_none(arguments)
    block = {**model, "init_args": arguments}
    under_model = [_under_model(change) for change in changes]
    return family_of_config(block, config, labels, space, Prompted, under_model)


def _under_model(argument: str) -> str:
    return f"--model.init_args.{argument[2:]}" if argument.startswith("--predict_with.") else argument
