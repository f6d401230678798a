"""A tiny network with random weights that sees every object in every frame, and configs of it."""

from pathlib import Path
from typing import Any

import torch
import yaml

from segfolio.architectures.promptable.sam2 import SAM2

TINY: dict[str, Any] = {**SAM2.tiny, "image_size": 64}


def a_network() -> SAM2:
    """Its masks are neither empty nor full, and depend on what is remembered."""
    torch.manual_seed(0)
    network = SAM2(1, **TINY).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim > 1 and not name.startswith("image_encoder.trunk"):
                value *= 2
        network.mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(9)
    return network


def write_config(folder: Path, family: str = "Promptable", **network: Any) -> Path:
    """`sam2.yaml` and the weights that it names."""
    torch.save(a_network().state_dict(), folder / "sam2.pt")
    arguments = {**TINY, "weights": str(folder / "sam2.pt"), **network}
    content = {
        "model": {
            "class_path": f"segfolio.families.{family}",
            "init_args": {
                "architecture": {"class_path": "segfolio.architectures.promptable.sam2.SAM2", "init_args": arguments},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}},
            },
        },
        "data": {
            "dataset": {
                "class_path": "segfolio.data.datasets.MovingShapes",
                "init_args": {"size": [32, 32], "train": 1, "val": 1, "test": 1},
            },
            "batch_size": 1,
            "num_workers": 0,
            "clip_frames": {"class_path": "segfolio.data.clips.ClipFrames", "init_args": {"frames": 2}},
        },
        "trainer": {"accelerator": "cpu", "max_steps": 1, "limit_val_batches": 0, "logger": False},
    }
    (folder / "sam2.yaml").write_text(yaml.safe_dump(content))
    return folder / "sam2.yaml"
