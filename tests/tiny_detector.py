"""The smallest experiment that finds objects in a COCO file."""

from pathlib import Path
from typing import Any

import yaml


def experiment(folder: Path, masks: bool = True, **dataset: Any) -> Path:
    """A YAML of two steps; `dataset` are arguments of `CocoInstances`."""
    name = "mask_rcnn.MaskRCNN" if masks else "faster_rcnn.FasterRCNN"
    network = {"backbone": "test_resnet", "norm": "group", "head_norm": "group", "frozen_stride": 0, "channels": 16}
    network |= {"head_channels": 32, "roi": {"score_threshold": 0.0}}
    content = {
        "model": {
            "class_path": "segfolio.families.Detection",
            "init_args": {
                "architecture": {
                    "class_path": f"segfolio.architectures.region_based.{name}",
                    "init_args": network,
                },
                "kinds": ["segm", "bbox"] if masks else ["bbox"],
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.001}},
            },
        },
        "data": {
            "dataset": {"class_path": "segfolio.data.datasets.CocoInstances", "init_args": dataset},
            "batch_size": 2,
            "num_workers": 0,
            "test_split": "val",
        },
        "trainer": {"max_steps": 2, "max_epochs": -1, "accelerator": "cpu", "logger": False},
    }
    (path := folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    return path
