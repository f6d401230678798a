"""A training step of torchvision's DeepLabV3, through the family and the command's Trainer and in a bare loop.

    python -m benchmarks.per_pixel_step

See `training_step`.
"""

from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from benchmarks.training_step import compare

AIMS = {"trainer / bare loop": "<= 1.03"}


class DeepLabV3(nn.Module):
    """torchvision's, without its auxiliary classifier."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)["out"]


def main() -> dict[str, float]:
    return compare(DeepLabV3, steps=10, rounds=3)


if __name__ == "__main__":
    main()
