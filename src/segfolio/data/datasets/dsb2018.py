"""2018 Data Science Bowl (Caicedo et al., 2019): nuclei in microscopy of five kinds, BBBC038 version 1."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import DatasetInfo, SegmentationDataset, held_out, listed
from segfolio.data.formats import coco, rle
from segfolio.data.formats.images import read_id_map, read_image
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Target, to_image
from segfolio.data.segments import Form, Segments
from segfolio.errors import SegfolioError


class DSB2018(SegmentationDataset):
    """The labelled images of stage 1, one mask file per nucleus; these may overlap, as in corrected copies of the data.

    The masks of the competition's test images came later and in another form; the labelled images are split
    here: of the ids in alphabetical order every `val_every`th is for validation, all others train. A list of
    ids, one per line in `root/splits/<split>.txt`, goes before that.

    Args:
        root: the folder that holds `stage1_train/`.
        split: train, val, or the name of a list.
        val_every: 5 holds out the fifth, the tenth, ... image.

    Raises:
        SegfolioError: an unknown split, another folder, a list that names missing images, a split without an
            image.
    """

    info = DatasetInfo(
        title="2018 Data Science Bowl",
        url="https://bbbc.broadinstitute.org/BBBC038",
        licence="CC0",
        splits={"train": 536, "val": 134},
        adjustable=True,
        tasks=("semantic", "instance"),
        layout="stage1_train/<id>/images/<id>.png and stage1_train/<id>/masks/*.png, one nucleus in each",
        disk="0.3 GB",
        access="Unpack stage1_train.zip of the page into stage1_train/ below the root.",
    )
    labels = LabelSpace(
        names=("nucleus", "background"),
        ids=(1, 0),
        things=("nucleus",),
        background="background",
        palette=((90, 200, 250), (0, 0, 0)),
    )

    def __init__(self, root: str | Path, split: str, val_every: int = 5) -> None:
        self.folder = self.expect_files(root, "stage1_train") / "stage1_train"
        found = sorted(entry.name for entry in os.scandir(self.folder) if entry.is_dir() and entry.name[0] != ".")
        lists = {path.stem: path for path in self.folder.parent.glob("splits/*.txt")}
        self.expect_split(split, self.info.splits.keys() | lists.keys())
        if split in lists:
            self.ids = lists[split].read_text().split()
            if missing := set(self.ids) - set(found):
                raise SegfolioError(f"{lists[split]} names images that {self.folder} lacks: {listed(missing, 3)}")
        else:
            self.ids = held_out(found, val_every, split)
        if not self.ids:
            raise SegfolioError(f"{self.folder} holds {len(found)} images, of which none is for {split}")

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, index: int) -> str:
        return self.ids[index]

    def image_file(self, index: int) -> Path:
        return self.folder / self.ids[index] / "images" / f"{self.ids[index]}.png"

    def read(self, index: int) -> Sample:
        """Decode an image and the masks of its nuclei.

        Raises:
            SegfolioError: a file that cannot be decoded, a mask that is empty, of another size than the image or within
                another one; which one.
        """
        image_id = self.ids[index]
        image = to_image(read_image(self.image_file(index)))
        size = (image.shape[-2], image.shape[-1])
        segments = self._segments(image_id, size)
        semantic = Mask(torch.from_numpy(coco.semantic(segments, self.labels)))
        return Sample(image, image_id, size, Target(semantic, segments))

    def _masks(self, image_id: str) -> list[Path]:
        return sorted((self.folder / image_id / "masks").glob("[!.]*.png"))

    def _segments(self, image_id: str, size: tuple[int, int], overlaps: list[str] | None = None) -> Segments:
        """The nuclei: an id map, or run lengths where some overlap, which `overlaps` is then told."""
        ids = np.zeros(size, np.int32)
        paths = self._masks(image_id)
        if not paths:
            raise SegfolioError(f"{self.folder / image_id / 'masks'} holds no PNG, expected one for each nucleus")
        overlaps = [] if overlaps is None else overlaps
        for number, path in enumerate(paths, 1):
            mask = read_id_map(path) > 0
            if mask.shape != size:
                raise SegfolioError(
                    f"{path} is {mask.shape[1]}x{mask.shape[0]} pixels but its image is {size[1]}x{size[0]}"
                )
            if not mask.any():
                raise SegfolioError(f"{path} is empty, expected the pixels of a nucleus; remove the file")
            under = ids[mask]
            for other in np.unique(under[under > 0]).tolist():
                first, shared = paths[other - 1].name, np.count_nonzero(under == other)
                if shared in (len(under), np.count_nonzero(ids == other)):
                    raise SegfolioError(f"{path} and {first} lie one within the other; a nucleus has one mask")
                overlaps.append(f"{path} ({shared} pixels of {first})")
            ids[mask] = number
        form: Form = Mask(torch.from_numpy(ids))
        if overlaps:
            form = [rle.encode(read_id_map(path)[None] > 0)[0] for path in paths]
        labels, crowd = torch.zeros(len(paths), dtype=torch.int64), torch.zeros(len(paths), dtype=torch.bool)
        return Segments(form, labels, crowd, size)

    def files(self) -> Iterator[Path]:
        for index, image_id in enumerate(self.ids):
            yield self.image_file(index)
            yield from self._masks(image_id)

    def problems(self) -> Iterator[Problem]:
        """Faults of images as their headers show them, and of masks, which are decoded."""
        pairs = [FilePair(image_id, self.image_file(index), None) for index, image_id in enumerate(self.ids)]
        yield from header_problems(pairs, self.image_space)
        with ThreadPoolExecutor() as pool:
            for found in pool.map(self._mask_problems, pairs):
                yield from found

    def _mask_problems(self, pair: FilePair) -> list[Problem]:
        if (size := coco.header_size(pair.image)) is None:
            return []  # the image's own problem
        overlaps: list[str] = []
        try:
            self._segments(pair.image_id, size, overlaps)
        except SegfolioError as error:
            return [Problem("mask", "that is not one nucleus of its image", str(error), True, pair.image_id)]
        return [Problem("mask", "that overlaps those before it", where, False, pair.image_id) for where in overlaps]
