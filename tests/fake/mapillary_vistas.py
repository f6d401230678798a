"""Mapillary Vistas: `config_<version>.json` and `training/<version>/{labels,instances}`; or version 1 without them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from segfolio.data.formats.images import write_id_map, write_image, write_palette
from tests.fake import blocks, noisy

OBJECTS = (256, 257, 3 * 256, 257)
"""In the top strip, from the left: two birds, a car, the second bird again."""


def label(name: str, color: tuple[int, int, int], instances: bool = False, evaluate: bool = True) -> dict[str, Any]:
    readable = name.split("--")[-1].capitalize()
    return {"name": name, "readable": readable, "color": list(color), "instances": instances, "evaluate": evaluate}


LABELS = [
    label("construction--flat--road", (128, 64, 128)),
    label("animal--bird", (165, 42, 42), instances=True),
    label("nature--sky", (70, 130, 180)),
    label("object--vehicle--car", (0, 0, 142), instances=True),
    label("void--unlabeled", (0, 0, 0), evaluate=False),
]


def write(
    root: Path,
    train: int = 3,
    val: int = 2,
    test: int = 1,
    version: str = "v1.2",
    size: tuple[int, int] = (48, 64),
) -> None:
    """With the version "" the archive of version 1."""
    rng = np.random.default_rng(0)
    colors = np.array([entry["color"] for entry in LABELS], np.uint8)
    root.mkdir(parents=True, exist_ok=True)
    (root / (f"config_{version}.json" if version else "config.json")).write_text(json.dumps({"labels": LABELS}))
    for split, count in {"training": train, "validation": val, "testing": test}.items():
        for name in (f"{split[0]}W{i:02d}-x_" for i in range(count)):
            instances = 256 * blocks(rng, [0, 2, 4], size).astype(np.uint16)
            instances[:16] = np.array(OBJECTS)[np.arange(size[1]) * len(OBJECTS) // size[1]]
            ids = (instances >> 8).astype(np.uint8)
            write_image(root / split / "images" / f"{name}.jpg", noisy(rng, colors[ids].astype(int)))
            if split != "testing":
                write_palette(root / split / version / "labels" / f"{name}.png", ids, colors)
                write_id_map(root / split / version / "instances" / f"{name}.png", instances)
