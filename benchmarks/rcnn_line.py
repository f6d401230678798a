"""Time per image of R-CNN, Fast R-CNN and Faster R-CNN, on the same image, backbone and machine.

    python -m benchmarks.rcnn_line

The lecture has 40 s, 2 s and 0.2 s. The first two get the same 2,000 boxes of selective search; the search is shown by
itself and is in their times, as it is in the lectured ones. Faster R-CNN proposes 300. It and Fast R-CNN are one
network from there on: the same dilated features of stride 16, RoIAlign and two linear layers of 1024 channels.
ResNet-10-T with random weights, 20 classes, a noisy image of 480 x 640, one CPU thread; R-CNN warps to 128 x 128
instead of 224 x 224, a third of the work.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segfolio.architectures.region_based.fast_rcnn import FastRCNN, searched
from segfolio.architectures.region_based.faster_rcnn import C4, FasterRCNN
from segfolio.architectures.region_based.rcnn import RCNN

AIMS = {"R-CNN / Fast R-CNN": "20 lectured", "Fast R-CNN / Faster R-CNN": "10 lectured"}
LECTURED = {"R-CNN": 40.0, "Fast R-CNN": 2.0, "Faster R-CNN": 0.2}
BACKBONE, SIZE, CLASSES, PROPOSALS = "resnet10t", (480, 640), 20, 2000


def scene() -> Tensor:
    """Fifty noisy rectangles, `[1, 3, H, W]`."""
    random = np.random.default_rng(0)
    image = np.full((*SIZE, 3), 128.0)
    for _ in range(50):
        (y, x), (height, width) = random.integers(0, (400, 560)), random.integers(20, 160, 2)
        image[y : y + height, x : x + width] = random.integers(0, 256, 3)
    image += random.normal(0, 12, image.shape)
    return torch.from_numpy(image.clip(0, 255) / 64 - 2).float().permute(2, 0, 1)[None]


def seconds(run: Callable[[], object], rounds: int) -> float:
    """The best of `rounds`."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.no_grad()
def main() -> dict[str, float]:
    """How many times longer each takes than its successor."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    image = scene()
    boxes = searched(image, [SIZE], PROPOSALS)
    rcnn, fast = RCNN(CLASSES, BACKBONE, size=128, context=9), FastRCNN(CLASSES, BACKBONE, head_channels=1)
    faster = FasterRCNN(CLASSES, BACKBONE, neck="dc5", rpn=C4["rpn"])
    fast.backbone, fast.roi_heads = faster.backbone, faster.roi_heads
    networks = {"R-CNN": rcnn, "Fast R-CNN": fast, "Faster R-CNN": faster}
    search = seconds(lambda: searched(image, [SIZE], PROPOSALS), 2)
    print(f"{len(boxes[0])} proposals in {search:.2f} s")
    found = {}
    for name, network in networks.items():
        network.eval()
        given = {} if name == "Faster R-CNN" else {"proposals": boxes}
        alone = seconds(
            lambda network=network, given=given: network(image, [SIZE], **given), 1 if name == "R-CNN" else 3
        )
        found[name] = alone + (search if given else 0)
        print(
            f"{name:14}{found[name]:8.2f} s per image{alone:8.2f} s without proposals{LECTURED[name]:8.1f} s lectured"
        )
    ratios = {}
    for slow, quick in (("R-CNN", "Fast R-CNN"), ("Fast R-CNN", "Faster R-CNN")):
        ratios[f"{slow} / {quick}"] = found[slow] / found[quick]
        print(f"{slow} / {quick}: {found[slow] / found[quick]:.1f}, lectured {LECTURED[slow] / LECTURED[quick]:.0f}")
    return ratios


if __name__ == "__main__":
    main()
