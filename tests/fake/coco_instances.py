"""COCO 2017: `annotations/instances_{split}2017.json` and `{split}2017/*.png`; category ids have gaps."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from segfolio.data.formats import rle
from segfolio.data.formats.images import write_image
from tests.fake import noisy

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
NUMBER = {"train": 100, "val": 500}
"""The first image's id."""


def annotation(number: int, image: int, category: int, mask: np.ndarray, **changes: Any) -> dict[str, Any]:
    coded = rle.encode(mask[None])
    x, y, width, height = rle.boxes(coded)[0].tolist()
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": 0,
        "area": int(mask.sum()),
        "bbox": [x, y, width, height],
        "segmentation": [corners],
        **changes,
    }


def content(first: int, images: int, size: tuple[int, int]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """An annotation file and its images: a person, a dog on it, a crowd as uncompressed runs; the last is empty."""
    rng = np.random.default_rng(first)
    height, width = size
    found: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
    pixels = []
    for number in range(first, first + images):
        found["images"].append({"id": number, "file_name": f"{number:012d}.png", "height": height, "width": width})
        person, dog, crowd = (np.zeros(size, np.bool_) for _ in range(3))
        person[4 : height - 4, 4 : width // 2] = dog[height // 2 : height - 8, 6 : width // 2 + 4] = True
        crowd[:6, width // 2 :] = True
        last = number == first + images - 1
        if not last:
            runs = rle.to_counts(rle.encode(crowd[None])[0]).tolist()
            found["annotations"] += [
                annotation(3 * number, number, 1, person),
                annotation(3 * number + 1, number, 18, dog),
                annotation(3 * number + 2, number, 1, crowd, iscrowd=1, segmentation={"size": [*size], "counts": runs}),
            ]
        grey = np.full(size, 60) if last else 60 + 60 * person + 60 * dog + 40 * crowd
        pixels.append(noisy(rng, np.repeat(grey[..., None], 3, 2)))
    return found, pixels


def write(root: Path, train: int = 4, val: int = 2, size: tuple[int, int] = (48, 64)) -> None:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, images in {"train": train, "val": val}.items():
        found, pixels = content(NUMBER[split], images, size)
        for image, array in zip(found["images"], pixels, strict=True):
            write_image(root / f"{split}2017" / image["file_name"], array)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(found))
