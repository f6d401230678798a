"""COCO panoptic 2017: `annotations/panoptic_{split}2017.json`, a folder of PNGs beside it, `{split}2017/*.jpg`."""

import json
from pathlib import Path

import numpy as np
import torch

from segfolio.data.formats.images import write_image
from segfolio.data.formats.panoptic import panoptic_annotation, panoptic_json, write_panoptic
from segfolio.data.labels import LabelSpace
from segfolio.data.segments import Segments
from tests.fake import blocks, noisy

LABELS = LabelSpace(
    names=("person", "car", "road", "sky-other-merged", "grass-merged"),
    ids=(1, 3, 149, 187, 193),
    void_ids=(0,),
    things=("person", "car"),
    palette=((220, 20, 60), (0, 0, 142), (128, 64, 128), (70, 130, 180), (152, 251, 152)),
)
SCALE = 65_537  # makes large ids, with gaps, of places


def write(root: Path, train: int = 4, val: int = 2, size: tuple[int, int] = (64, 96)) -> None:
    """Stuff in blocks, some of them void; two persons, a car and a crowd of cars in a strip above."""
    rng = np.random.default_rng(0)
    colors = np.array([(0, 0, 0), *LABELS.palette])
    labels = torch.tensor([2, 3, 4, 0, 0, 1, 1])
    crowd = torch.tensor([False] * 6 + [True])
    for split, count in {"train": train, "val": val}.items():
        annotations, images = [], []
        for number in range(1, count + 1):
            places = blocks(rng, [0, 1, 2, 3], size).astype(np.int32)
            places[:16] = 4 + np.arange(size[1]) * 4 // size[1]
            semantic = np.append(0, labels.numpy() + 1)[places]
            png, jpg = f"{number:012d}.png", f"{number:012d}.jpg"
            write_image(root / f"{split}2017" / jpg, noisy(rng, colors[semantic]))
            write_panoptic(root / "annotations" / f"panoptic_{split}2017" / png, places * SCALE)
            segments = Segments(torch.from_numpy(places), labels, crowd)
            annotation = panoptic_annotation(segments, LABELS, number, png)
            for info in annotation["segments_info"]:
                info["id"] *= SCALE
            annotations.append(annotation)
            images.append({"id": number, "file_name": jpg, "height": size[0], "width": size[1]})
        content = json.dumps(panoptic_json(annotations, LABELS, images))
        (root / "annotations" / f"panoptic_{split}2017.json").write_text(content)
