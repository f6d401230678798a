"""What `Detection` says of a test split is what pycocotools says of the results that it writes."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from segfolio.architectures.region_based.mask_rcnn import MaskRCNN
from segfolio.callbacks.predictions import PredictionWriter
from segfolio.data.datasets import CocoInstances
from segfolio.data.module import DataModule
from segfolio.metrics.average_precision import Kind
from tests.architectures.test_detection_contract import ONE_STAGE, has_boxes, lenient, small
from tests.fake import coco_instances
from tests.families.test_detection import family, trainer
from tests.metrics.test_average_precision import by_pycocotools, of_kind

SIZES = ("small", "medium", "large")


@pytest.mark.parametrize("cls", [*ONE_STAGE, MaskRCNN], ids=lambda cls: cls.__name__)
def test_figures_are_those_of_pycocotools_for_the_files(cls: Any, tmp_path: Path) -> None:
    """Crowds, an image without objects, category ids with gaps."""
    coco_instances.write(tmp_path, val=4)
    network = partial(cls, **small(cls))
    kinds: tuple[Kind, ...] = ("segm", "bbox") if has_boxes(cls) else ("segm",)
    data = DataModule(CocoInstances, str(tmp_path), batch_size=2, num_workers=0, test_split="val")
    model = family(data.labels, lambda classes: lenient(network(classes)), kinds=kinds)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3  # to have seen enough after a few steps
    run = tmp_path / "run"
    loops = trainer(max_steps=40, limit_val_batches=0, default_root_dir=run, callbacks=[PredictionWriter()])
    loops.fit(model, data)
    loops.test(model, data, verbose=False)
    figures = {name: float(value) for name, value in loops.callback_metrics.items()}
    loops.predict(model, data, return_predictions=False)
    results = json.loads((run / "instances.json").read_text())
    truth = json.loads((tmp_path / "annotations" / "instances_val2017.json").read_text())
    for kind in kinds:
        suffix = "" if kind == "segm" else "_box"
        names = ["AP", "AP50", "AP75", *(f"AP_{size}" for size in SIZES)]
        names += [*(f"AR_{count}" for count in (1, 10, 100)), *(f"AR_{size}" for size in SIZES)]
        expected, _ = by_pycocotools(truth, of_kind(results, kind), kind)
        found = [figures[f"test/{name}{suffix}"] for name in names]
        assert [-1 if math.isnan(value) else value for value in found] == pytest.approx(expected, abs=1e-6)
        assert figures[f"test/AR_100{suffix}"] > 0
