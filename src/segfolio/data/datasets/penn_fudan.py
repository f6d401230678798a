"""Penn-Fudan pedestrians (Wang et al., 2007): 345 people, upright, in 170 street scenes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import DatasetInfo, files_by_id, held_out
from segfolio.data.formats.images import read_id_map
from segfolio.data.instance_maps import PairedInstances, id_map_segments
from segfolio.data.labels import LabelSpace
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError


class PennFudan(PairedInstances):
    """Street scenes with a map of the pedestrians, 1 to N, in each.

    There is no published split: of the images in alphabetical order every `val_every`th is for validation, all
    others train. People who are small or mostly hidden are not annotated, and so background.

    Args:
        root: the folder that holds `PennFudanPed/`, or what is in it.
        split: train or val.
        val_every: 5 holds out the fifth, the tenth, ... image.

    Raises:
        SegfolioError: an unknown split, another folder, an image without a mask, a split without an image.
    """

    info = DatasetInfo(
        title="Penn-Fudan",
        url="https://www.cis.upenn.edu/~jshi/ped_html",
        licence="not stated",
        splits={"train": 136, "val": 34},
        adjustable=True,
        tasks=("semantic", "instance"),
        layout="PennFudanPed/PNGImages/<name>.png and PennFudanPed/PedMasks/<name>_mask.png",
        disk="100 MB",
        access="Unpack PennFudanPed.zip, from the page, into root.",
    )
    labels = LabelSpace(
        names=("person", "background"),
        ids=(1, 0),
        things=("person",),
        background="background",
        palette=((220, 20, 60), (0, 0, 0)),
    )

    def __init__(self, root: str | Path, split: str, val_every: int = 5) -> None:
        self.expect_split(split, self.info.splits)
        root = self.expect_files(root)
        root = self.expect_files(below if (below := root / "PennFudanPed").is_dir() else root, "PNGImages", "PedMasks")
        images = files_by_id(root / "PNGImages", [".png"])
        self.pairs = [
            FilePair(name, images[name], root / "PedMasks" / f"{name}_mask.png")
            for name in held_out(images, val_every, split)
        ]
        if not self.pairs:
            raise SegfolioError(f"{root / 'PNGImages'} holds {len(images)} PNG images, of which none is for {split}")
        self.instance_maps = [pair.mask for pair in self.pairs if pair.mask]
        self.expect_pairs(root)

    def read_ids(self, path: Path) -> npt.NDArray[np.uint8]:
        """1 where there is a pedestrian, whichever it is."""
        return (super().read_ids(path) > 0).astype(np.uint8)

    def segments(self, path: Path) -> Segments:
        ids = read_id_map(path)
        numbers = np.flatnonzero(np.bincount(ids.ravel())[1:]) + 1
        return id_map_segments(ids, numbers, torch.zeros(len(numbers), dtype=torch.int64))
