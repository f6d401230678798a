"""SA-1B: `sa_<shard>.tar` with `./sa_<number>.jpg` and `./sa_<number>.json` in each."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segfolio.data.formats import rle
from tests.fake import noisy


def annotation(number: int, masks: np.ndarray, name: str) -> dict[str, Any]:
    """What the JSON says of one image, masks `[N, H, W]`."""
    height, width = masks.shape[1:]
    rles = rle.encode(masks)
    columns = zip(rles, rle.boxes(rles).tolist(), rle.areas(rles).tolist(), strict=True)
    return {
        "image": {"image_id": number, "width": width, "height": height, "file_name": f"{name}.jpg"},
        "annotations": [
            {
                "id": 1000 * number + i,
                "segmentation": {"size": coded["size"], "counts": coded["counts"].decode()},
                "bbox": box,
                "area": area,
                "predicted_iou": 0.95,
                "stability_score": 0.97,
                "crop_box": [0.0, 0.0, float(width), float(height)],
                "point_coords": [[box[0], box[1]]],
            }
            for i, (coded, box, area) in enumerate(columns)
        ],
    }


def image(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and three masks: a square, another that overlaps it, a bar."""
    masks = np.zeros((3, *size), np.bool_)
    masks[0, 4:20, 4:20] = True
    masks[1, 12:28, 12:28] = True
    masks[2, :, -6:] = True
    return noisy(rng, np.repeat(40 + 50 * masks.sum(0)[..., None], 3, 2)), masks


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(f"./{name}")
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write(root: Path, shards: int = 2, images: int = 4, size: tuple[int, int] = (40, 56)) -> None:
    """Numbers count from 1 through all shards; within a shard the last image comes first."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(root / f"sa_{shard:06d}.tar", "w") as tar:
            for number in range((shard + 1) * images, shard * images, -1):
                pixels, masks = image(rng, size)
                name = f"sa_{number}"
                add(tar, f"{name}.jpg", cv2.imencode(".jpg", pixels)[1].tobytes())
                add(tar, f"{name}.json", json.dumps(annotation(number, masks, name)).encode())
