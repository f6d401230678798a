"""CamVid as in the SegNet tutorial: `{split}/`, `{split}annot/`, `{split}.txt` with foreign paths."""

from pathlib import Path

import numpy as np

from segfolio.data.datasets import CamVid
from segfolio.data.formats.images import write_id_map, write_image
from tests.fake import blocks, noisy


def write(root: Path, train: int = 4, val: int = 2, test: int = 2, size: tuple[int, int] = (96, 128)) -> None:
    rng = np.random.default_rng(0)
    colors = np.array([*CamVid.labels.palette, (0, 0, 0)])
    for split, count in {"train": train, "val": val, "test": test}.items():
        lines = []
        for name in (f"fake_{split}_{i:04d}.png" for i in range(count)):
            ids = blocks(rng, list(range(12)), size)
            write_image(root / split / name, noisy(rng, colors[ids]))
            write_id_map(root / f"{split}annot" / name, ids)
            lines.append(f"/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}\n")
        (root / f"{split}.txt").write_text("".join(lines))
