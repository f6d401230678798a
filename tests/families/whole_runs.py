"""A run of each family that goes through all that it computes: for tests of devices and precisions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from segfolio.architectures.dilated.pspnet import PSPNet
from segfolio.architectures.mask_classification.mask2former import Mask2Former
from segfolio.architectures.promptable.fast_sam import FastSAM
from segfolio.architectures.promptable.sam import SAM
from segfolio.architectures.promptable.sam2 import SAM2
from segfolio.architectures.region_based.mask_rcnn import MaskRCNN
from segfolio.callbacks.predictions import PredictionWriter
from segfolio.data.clip_prompts import ClipPrompts
from segfolio.data.clips import ClipFrames
from segfolio.data.datasets import MovingShapes, Shapes
from segfolio.data.module import DataModule
from segfolio.families import Detection, MaskClassification, PerPixel, Promptable, PromptableDetection, Video
from segfolio.families.base import Family
from segfolio.inference.asking import PromptProtocol
from segfolio.inference.dense_test import Protocols
from segfolio.inference.everything import Everything
from segfolio.inference.prompt_protocols import Clicks
from segfolio.inference.prompt_test import PromptProtocols
from segfolio.inference.protocols import MultiScale
from segfolio.inference.video_protocols import FromFirstFrame, Rounds
from segfolio.losses import OHEM, CrossEntropy, Dice, Focal, MaskClassificationLoss
from segfolio.metrics import BoundaryF1, BoundaryIoU, Hausdorff95
from segfolio.viz.callback import PredictionPictures

OPTIMIZER = partial(torch.optim.AdamW, lr=1e-3)


@dataclass
class WholeRun:
    """A family on Shapes, or on their clips, by the name that a test shows.

    Attributes:
        within: by how much a figure may differ on a device that computes in another order than the host.
    """

    name: str
    make: Callable[[], Family]
    clips: bool = False
    within: float = 0.0

    def __call__(self, folder: Path, **arguments: Any) -> dict[str, float]:
        """Two steps and a validation, the test, the prediction, with pictures and files; returns the test's figures."""
        trainer, family, data = self._prepared(folder, **arguments)
        trainer.fit(family, data)
        trainer.test(family, data, verbose=False)
        figures = {key: float(value) for key, value in trainer.callback_metrics.items() if "seconds" not in key}
        trainer.predict(family, data, return_predictions=False)
        return figures

    def losses(self, folder: Path, **arguments: Any) -> dict[str, float]:
        """Those of the second of two steps.

        Raises:
            AssertionError: one that is not finite.
        """
        trainer, family, data = self._prepared(folder, limit_val_batches=0, **arguments)
        trainer.fit(family, data)
        found = {key: float(value) for key, value in trainer.callback_metrics.items() if "loss" in key}
        assert all(math.isfinite(loss) for loss in found.values()), found
        return found

    def _prepared(
        self, folder: Path, callbacks: Sequence[Callback] = (), **arguments: Any
    ) -> tuple[Trainer, Family, DataModule]:
        torch.manual_seed(0)
        family, images = self.make(), partial(Shapes, size=(64, 96), train=4, val=2, test=2)
        clips = partial(MovingShapes, size=(64, 64), frames=3, train=4, val=1, test=1)
        trainer = Trainer(
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
            callbacks=[PredictionPictures(count=1), PredictionWriter(), *callbacks],
            **arguments,
        )
        dataset, frames = (clips, ClipFrames(2)) if self.clips else (images, None)
        given = {"batch_size": 2, "num_workers": 0, "clip_frames": frames}
        return trainer, family, DataModule(lambda root, split: dataset(root, split), **given)


def per_pixel() -> Family:
    losses = {"ce": CrossEntropy(), "dice": Dice(), "focal": Focal(), "ohem": OHEM()}
    return PerPixel(
        Shapes.labels,
        partial(PSPNet, **PSPNet.tiny),
        losses,
        {"aux": CrossEntropy()},
        optimizer=OPTIMIZER,
        metrics=[BoundaryF1, BoundaryIoU, Hausdorff95],
        test=Protocols(also={"scales": MultiScale([0.5, 1.0])}),
    )


def mask_classification(task: Any, matching: Any = "bipartite", points: int | None = 64) -> Family:
    criterion = MaskClassificationLoss(points=points, matching=matching)
    return MaskClassification(
        Shapes.labels, partial(Mask2Former, **Mask2Former.tiny), task, criterion, optimizer=OPTIMIZER
    )


def region_based() -> Family:
    return Detection(Shapes.labels, partial(MaskRCNN, **MaskRCNN.tiny), optimizer=OPTIMIZER)


def promptable() -> Family:
    """Images are not resized: bytes are rounded otherwise on a device."""
    test = PromptProtocols(Clicks(3), {"box": "boxes", "windows": Clicks(2, window=96)})
    network = partial(SAM, **{**SAM.tiny, "image_size": 96})
    return Promptable(Shapes.labels, network, optimizer=OPTIMIZER, validation=Clicks(2), test=test)


def promptable_detection() -> Family:
    test = PromptProtocols(Clicks(3), {"box": "boxes", "everything": "all_masks"})
    network = partial(FastSAM, **{**FastSAM.tiny, "image_size": 96})
    return PromptableDetection(Shapes.labels, network, optimizer=OPTIMIZER, validation=Clicks(2), test=test)


def video() -> Family:
    also: dict[str, str | PromptProtocol] = {
        "clicks": FromFirstFrame("clicks", 2),
        "rounds": Rounds(rounds=2, clicks=1),
        "by_itself": Rounds(memory=False, rounds=1, clicks=1),
    }
    small = {**SAM2.tiny, "image_size": 64, "memory_layers": 1, "memory_mlp": 64, "windows": (4, 4, 4, 2)}
    network, prompts = partial(SAM2, **small), ClipPrompts(max_objects=2, clicks=1)
    return Video(
        Shapes.labels,
        network,
        optimizer=OPTIMIZER,
        prompts=prompts,
        test=PromptProtocols("first_mask", also),
        predict_with=Everything(points_per_side=2),
    )


WHOLE_RUNS = [
    WholeRun("per_pixel", per_pixel),
    WholeRun("semantic", partial(mask_classification, "semantic", points=None)),
    WholeRun("panoptic", partial(mask_classification, "panoptic")),
    WholeRun("region_based", region_based),
    WholeRun("promptable", promptable),
    WholeRun("promptable_detection", promptable_detection),
    WholeRun("video", video, clips=True, within=0.02),
]
