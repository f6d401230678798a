"""A training step of our DeepLabV3 through the family and the command's Trainer, against torchvision's in a bare loop.

    python -m benchmarks.per_pixel_step

ResNet-50, output stride 8, no auxiliary classifier, the same weights. See `training_step`.
"""

import torch
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from benchmarks.training_step import compare
from segfolio.architectures.dilated.deeplab_v3 import TORCHVISION, DeepLabV3

AIMS = {"trainer / bare loop": "<= 1.03"}


class Theirs(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)["out"]


class Ours(DeepLabV3):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, "resnet50", **{**TORCHVISION, "auxiliary": False})
        self.load_state_dict(Theirs(num_classes).model.state_dict())


def main() -> dict[str, float]:
    return compare(Ours, Theirs, steps=16, rounds=3)


if __name__ == "__main__":
    main()
