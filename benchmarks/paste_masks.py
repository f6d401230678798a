"""From mask probabilities to run lengths, ours against torchvision's `paste_masks_in_image` and pycocotools' `encode`.

    python -m benchmarks.paste_masks

Objects of 20 to 220 pixels with masks of 28 x 28 in an image of 1024 x 1024, one CPU thread; the masks are identical.
Memory is the most that is held beside the input for 500 objects of up to 880 pixels in an image of 2048 x 2048: of the
pasting, and of all from the features of Mask R-CNN with a pyramid (1,000 proposals, 80 classes) to run lengths.
"""

import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from pycocotools import mask as pycocotools
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models.detection.roi_heads import paste_masks_in_image

from benchmarks.confusion_matrix import median_times
from segfolio.architectures.region_based.mask_rcnn import MaskRCNN
from segfolio.data.formats.rle import RLE
from segfolio.data.sample import Instances, Size
from segfolio.inference.paste_masks import instances, paste_masks
from segfolio.layers.regions import RegionRecipe
from segfolio.speed.measure import peak_bytes

MEMORY, WHOLE = "memory of 500 at 2048 px, GiB", "memory of 500 from the features on, GiB"
AIMS = {"100 objects": ">= 5", "500 objects": ">= 5", MEMORY: "< 1", WHOLE: "< 1"}


def case(count: int, side: int) -> tuple[Tensor, Tensor, Size]:
    """Masks of smooth outlines, their boxes, and the size of the image."""
    g = torch.Generator().manual_seed(0)
    centres, halves = torch.rand(2, count, 2, generator=g)
    centres, halves = centres * side, (10 + 100 * halves) * side / 1024
    boxes = torch.cat([centres - halves, centres + halves], 1).clamp(0, side)
    masks = interpolate(torch.rand(count, 1, 5, 5, generator=g), (28, 28), mode="bicubic")[:, 0]
    return masks, boxes, (side, side)


def peer(masks: Tensor, boxes: Tensor, size: Size) -> list[RLE]:
    """What torchvision's users do."""
    pasted = paste_masks_in_image(masks[:, None], boxes, size)[:, 0] > 0.5
    return [pycocotools.encode(np.asfortranarray(mask)) for mask in pasted.numpy().view(np.uint8)]


def held(update: Callable[[], object]) -> float:
    """The most that `update` holds in arrays and tensors, GiB."""
    tracemalloc.start()
    update()
    arrays = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (arrays + peak_bytes(lambda: update() and None)) / 2**30


@torch.no_grad()
def from_features(side: int = 2048) -> float:
    """GiB held by 500 detections, from the features of the pyramid to run lengths."""
    torch.manual_seed(0)
    recipe = RegionRecipe(score_threshold=0.0, nms_iou=1.0, max_detections=500)
    network = MaskRCNN(80, "resnet18", roi=recipe).eval()
    features = {str(i): torch.randn(1, 256, side // s, side // s) for i, s in enumerate(network.backbone.strides)}
    boxes, size = case(1000, side)[1:]

    def detected() -> Instances:
        (found,) = network.roi_heads.detect(features, [boxes], [size])
        return instances(found, torch.arange(80), size, size)

    assert len(detected().rles) == 500
    return held(detected)


def main() -> dict[str, float]:
    """How many times longer the peer takes, and GiB.

    Raises:
        AssertionError: a mask differs.
    """
    torch.set_num_threads(1)
    ratios: dict[str, float] = {}
    for count in (100, 500):
        given = case(count, side=1024)
        assert paste_masks(*given) == peer(*given)
        sides = {"ours": paste_masks, "torchvision": peer}
        seconds = median_times({name: partial(paste, *given) for name, paste in sides.items()}, rounds=3)
        print(f"{count} objects: " + ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in seconds.items()))
        ratios[f"{count} objects"] = seconds["torchvision"] / seconds["ours"]
    memory = {MEMORY: held(partial(paste_masks, *case(500, side=2048))), WHOLE: from_features()}
    print(", ".join(f"{what}: {size:.3f}" for what, size in memory.items()))
    return ratios | memory


if __name__ == "__main__":
    main()
