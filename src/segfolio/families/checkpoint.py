"""What a checkpoint says of itself, and whether it fits the network at hand."""

import pickle
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segfolio import __version__
from segfolio.data.image_space import ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from segfolio.families.lora import LoRA
from segfolio.weights.low_rank import merged


def describe(
    network: nn.Module, image_space: ImageSpace, labels: LabelSpace | None = None, lora: LoRA | None = None
) -> dict[str, Any]:
    """Plain values that a checkpoint carries beside the weights."""
    return {
        "version": __version__,
        "architecture": architecture_of(network),
        "image_space": asdict(image_space),
        **({} if labels is None else {"labels": asdict(labels)}),
        **({} if lora is None else {"lora_scale": lora.scale}),
    }


def architecture_of(network: nn.Module) -> str:
    return f"{type(network).__module__}.{type(network).__qualname__}"


def check_fits(
    checkpoint: dict[str, Any], network: nn.Module, image_space: ImageSpace, labels: LabelSpace | None = None
) -> None:
    """Compare a checkpoint with the network that is to take its weights.

    Args:
        labels: None of a network without classes.

    Raises:
        SegfolioError: another architecture, other images, another label space or none, or parameters of other names
            or shapes.
    """
    then = labels_of(checkpoint) if labels else None
    here, there = architecture_of(network), checkpoint.get("segfolio", {})
    if there.get("architecture", here) != here:
        raise SegfolioError(
            f"the checkpoint holds {there['architecture']} but the config builds {here}; "
            "use the config.yaml beside the checkpoint"
        )
    seen = image_space_of(checkpoint)
    if seen and seen.words != image_space.words:
        raise SegfolioError(
            f"the checkpoint was trained on images of {seen.words}, but the dataset has {image_space.words}; "
            "evaluate it on images like those"
        )
    if labels and then and list(then.names) != list(labels.names):
        raise SegfolioError(
            f"the checkpoint was trained on the classes {list(then.names)} but the dataset has {list(labels.names)}; "
            "evaluate it on the dataset it was trained on, or remap the classes"
        )
    stored, built = network_weights(checkpoint), network.state_dict()
    if names := sorted(stored.keys() ^ built.keys()):
        raise SegfolioError(
            f"the checkpoint and the network disagree on {len(names)} parameters, such as {', '.join(names[:3])}; "
            "use the config.yaml beside the checkpoint"
        )
    if shapes := [n for n in built if built[n].shape != stored[n].shape]:
        name = shapes[0]
        raise SegfolioError(
            f"{len(shapes)} parameters of the checkpoint have another shape, such as {name}: "
            f"{list(stored[name].shape)} there, {list(built[name].shape)} here; use the config.yaml beside it"
        )


def labels_of(checkpoint: dict[str, Any]) -> LabelSpace:
    """The classes that a checkpoint was trained on.

    Raises:
        SegfolioError: it was trained without labels.
    """
    there = checkpoint.get("segfolio", {})
    if "labels" not in there:
        raise SegfolioError(
            f"the checkpoint holds {there.get('architecture', 'a network')} trained without labels, and there are no "
            "classes to evaluate or to predict; start a training with labels from it by --model.init_args.init_from"
        )
    return LabelSpace(**there["labels"])


def image_space_of(checkpoint: dict[str, Any]) -> ImageSpace | None:
    """The images that a checkpoint was trained on; None of one that is older than such images were."""
    there = checkpoint.get("segfolio", {}).get("image_space")
    return ImageSpace(**there) if there else None


def network_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict of the network alone."""
    prefix = "network."
    return {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}


def plain_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict of the network, as it is without LoRA: what was adapted is added to what it was made of."""
    scale = checkpoint.get("segfolio", {}).get("lora_scale")
    stored = network_weights(checkpoint)
    return stored if scale is None else merged(stored, scale)


def read_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """What a run's checkpoint holds; tensors are mapped, not read.

    Raises:
        SegfolioError: no such file, or one that is no checkpoint of tensors and plain values.
    """
    if not checkpoint.is_file():
        beside = sorted(p.name for p in checkpoint.parent.glob("*.ckpt")) if checkpoint.parent.is_dir() else []
        raise SegfolioError(f"there is no checkpoint {checkpoint}; its folder holds {', '.join(beside) or 'none'}")
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
            reason = f"it holds pickled code ({code[1]}), which is refused; save it as tensors and plain values"
        else:
            reason = f"it is incomplete or of another kind ({type(error).__name__})"
        whole = next(filter(_is_whole, sorted(checkpoint.parent.glob("*.ckpt"))), None)
        instead = f"; {whole} can be: give it to --ckpt_path" if whole else ""
        raise SegfolioError(f"{checkpoint} cannot be read as a checkpoint: {reason}{instead}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise SegfolioError(f"{checkpoint} is no checkpoint of a run (it has no `state_dict`)")
    return content


def _is_whole(checkpoint: Path) -> bool:
    try:
        return "state_dict" in torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception:
        return False
