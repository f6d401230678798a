"""Training samples with masks per second on one core, against torchvision's `CocoDetection` and transforms v2.

Both sides: drawn JPEGs of 640x480 in COCO's layout with 7 to 20 polygons each; decoding, scale 0.5-2, crop 512 with
padding, flip, and objects that are left dropped. Masks of the result are `[N, 512, 512]`.

    python -m benchmarks.instance_loading
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from segfolio.data.datasets import CocoInstances
from segfolio.data.formats import rle
from segfolio.data.formats.images import write_image
from segfolio.data.sample import Target
from segfolio.data.transforms import RandomWindow

AIMS = {"segfolio / torchvision": ">= 3"}
IMAGES, ROUNDS, SIZE = 24, 5, (480, 640)

OURS = RandomWindow((512, 512), scale=(0.5, 2.0), hflip=0.5)
TORCHVISION = v2.Compose(
    [
        v2.ToImage(),
        v2.ScaleJitter(SIZE, scale_range=(0.5, 2.0)),
        v2.RandomCrop(512, pad_if_needed=True),
        v2.RandomHorizontalFlip(),
        v2.SanitizeBoundingBoxes(),
    ]
)


def draw_coco(root: Path) -> None:
    """Blobs of 15 to 150 pixels, small ones more often, outlined by 40 points each."""
    rng = np.random.default_rng(0)
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": i, "name": f"class {i}"} for i in range(1, 81)]
    for number in range(IMAGES):
        texture = cv2.GaussianBlur(rng.normal(128, 60, (*SIZE, 3)), (0, 0), 1.5)
        write_image(root / "train2017" / f"{number:012d}.jpg", texture.clip(0, 255).astype(np.uint8))
        content["images"].append({"id": number, "file_name": f"{number:012d}.jpg", "height": SIZE[0], "width": SIZE[1]})
        for _ in range(rng.integers(7, 21)):
            angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            radii = np.exp(rng.uniform(np.log(15), np.log(150))) * rng.uniform(0.7, 1.0, 40)
            points = rng.uniform((60, 60), (580, 420)) + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
            polygon = points.clip(0, (SIZE[1], SIZE[0])).round(2).reshape(-1).tolist()
            mask = [rle.from_segmentation([polygon], SIZE)]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": int(rng.integers(1, 81)),
                    "iscrowd": 0,
                    "area": int(rle.areas(mask)[0]),
                    "bbox": rle.boxes(mask)[0].tolist(),
                    "segmentation": [polygon],
                }
            )
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


def seconds(load: Callable[[int], int]) -> tuple[float, int]:
    """Of the processor for all images, and how many masks came."""
    start = time.process_time()
    masks = sum(load(i) for i in range(IMAGES))
    return time.process_time() - start, masks


def measure(root: Path) -> dict[str, float]:
    """Sides take turns round by round, so that a slow minute of the machine is slow for both."""
    dataset, seeds = CocoInstances(root, "train"), count()
    annotations = str(root / "annotations" / "instances_train2017.json")
    peer = wrap_dataset_for_transforms_v2(
        CocoDetection(str(root / "train2017"), annotations, transforms=TORCHVISION),
        target_keys=("boxes", "labels", "masks"),
    )

    def ours(i: int) -> int:
        target = OURS(dataset[i], np.random.default_rng(next(seeds))).target or Target()
        return 0 if target.segments is None else len(target.segments.masks)

    sides: dict[str, Callable[[int], int]] = {"segfolio": ours, "torchvision": lambda i: len(peer[i][1]["masks"])}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS + 1):
        for side, load in sides.items():
            spent, masks = seconds(load)
            times[side].append(spent)
            assert masks > 3 * IMAGES, f"{side} lost masks"
    spent_by = {side: statistics.median(found[1:]) for side, found in times.items()}
    for side, spent in spent_by.items():
        print(f"{side:12}{IMAGES / spent:7.0f} images/s")
    return {"segfolio / torchvision": spent_by["torchvision"] / spent_by["segfolio"]}


def main() -> dict[str, float]:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        draw_coco(Path(folder))
        return measure(Path(folder))


if __name__ == "__main__":
    for ratio, value in main().items():
        print(f"{ratio}: {value:.2f} (aim {AIMS[ratio]})")
