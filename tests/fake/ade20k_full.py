"""The full ADE20K of 2021: `images/ADE/{training,validation}/<kind>/<scene>/ADE_*.jpg`, all else beside each."""

import json
from pathlib import Path

import numpy as np

from segfolio.data.formats.images import write_id_map, write_image
from tests.fake import blocks, noisy

IDS = np.array([0, 2978, 2420, 401, 1831, 1])  # none, wall, sky, car, person, and one outside the 847


def write(root: Path, train: int = 4, val: int = 2, size: tuple[int, int] = (64, 96)) -> None:
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (len(IDS), 3))
    for split, folder, count in (("train", "training", train), ("val", "validation", val)):
        for name in (f"ADE_{split}_{i:08d}" for i in range(1, count + 1)):
            places = blocks(rng, list(range(len(IDS))), size)
            scene = root / f"images/ADE/{folder}/urban/street"
            write_image(scene / f"{name}.jpg", noisy(rng, colors[places]))
            numbers = np.kron(np.arange(places.size // 256).reshape(size[0] // 16, -1), np.ones((16, 16), int))
            write_image(scene / f"{name}_seg.png", encoded(IDS[places], (5 * numbers + 5) * (places > 0)))
            write_id_map(scene / name / f"instance_000_{name}.png", places)
            (scene / f"{name}.json").write_text(json.dumps({"annotation": {"filename": f"{name}.jpg", "object": []}}))


def encoded(ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The class as R // 10 * 256 + G, the object's number as B."""
    return np.stack([ids // 256 * 10, ids % 256, numbers], -1).astype(np.uint8)
