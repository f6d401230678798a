"""LVIS v1: `lvis_v1_{split}.json`, and COCO's images in `train2017/` and `val2017/`, named by `coco_url` alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from segfolio.data.formats.images import write_image
from tests.fake import noisy
from tests.fake.coco_instances import annotation

FREQUENCIES = {"airplane": (3, "f"), "aerosol_can": (1, "c"), "air_conditioner": (2, "f"), "applesauce": (11, "r")}
"""Id and letter of each category."""


def category(name: str) -> dict[str, Any]:
    number, frequency = FREQUENCIES[name]
    return {
        "id": number,
        "name": name,
        "frequency": frequency,
        "synset": f"{name}.n.01",
        "synonyms": [name],
        "def": f"what is called {name}",
        "image_count": 2,
        "instance_count": 3,
    }


def listed(number: int, folder: str, size: tuple[int, int], absent: list[int], partial: list[int]) -> dict[str, Any]:
    """What the file says of one image, which has no `file_name`."""
    return {
        "id": number,
        "coco_url": f"http://images.cocodataset.org/{folder}/{number:012d}.jpg",
        "flickr_url": f"http://farm1.staticflickr.com/1/{number}_z.jpg",
        "height": size[0],
        "width": size[1],
        "license": 1,
        "date_captured": "2013-11-14 11:18:45",
        "neg_category_ids": absent,
        "not_exhaustive_category_ids": partial,
    }


def content(first: int, folders: list[str], size: tuple[int, int]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """An annotation file and its images: an airplane, of which there are more; applesauce in every second one; the last
    has no object, and is known to lack airplanes. No crowds, which LVIS has not."""
    rng = np.random.default_rng(first)
    height, width = size
    found: dict[str, Any] = {
        "info": {"description": "LVIS 2020 Dataset", "version": "1", "year": 2020},
        "licenses": [{"id": 1, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}],
        "categories": list(map(category, FREQUENCIES)),
        "images": [],
        "annotations": [],
    }
    pixels = []
    for place, folder in enumerate(folders):
        number, last = first + place, place == len(folders) - 1
        plane, sauce = np.zeros((2, *size), np.bool_)
        plane[4 : height - 4, 4 : width // 2] = not last
        sauce[8:20, width // 2 + 4 : width - 4] = place % 2 == 0 and not last
        objects = [(kind, mask) for kind, mask in ((3, plane), (11, sauce)) if mask.any()]
        found["images"].append(listed(number, folder, size, [3, 1] if last else [2], [] if last else [3]))
        for kind, mask in objects:
            entry = annotation(len(found["annotations"]) + 1, number, kind, mask)
            found["annotations"].append({key: value for key, value in entry.items() if key != "iscrowd"})
        pixels.append(noisy(rng, np.repeat((60 + 60 * plane + 120 * sauce)[..., None], 3, 2)))
    return found, pixels


def write(root: Path, size: tuple[int, int] = (48, 64)) -> None:
    """Four images to train on and three others, one of which is of COCO's train2017."""
    root.mkdir(parents=True, exist_ok=True)
    splits = {"train": (100, ["train2017"] * 4), "val": (500, ["train2017", "val2017", "val2017"])}
    for split, (first, folders) in splits.items():
        found, pixels = content(first, folders, size)
        for image, array in zip(found["images"], pixels, strict=True):
            write_image(root / "/".join(image["coco_url"].split("/")[-2:]), array)
        (root / f"lvis_v1_{split}.json").write_text(json.dumps(found))
