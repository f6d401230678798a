"""SA-1B (Kirillov et al., 2023, arXiv 2304.02643): 11 million images, 1.1 billion masks without a class."""

import json
import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.checks.problems import Problem
from segfolio.data.checks.remembered import remembered, stamps
from segfolio.data.dataset import DatasetInfo, SegmentationDataset, listed
from segfolio.data.formats import rle
from segfolio.data.formats.images import decode, is_cut_short
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Target, to_image
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.words import counted

_MEMBER = re.compile(r"(?:.*/)?sa_(\d+)\.(jpg|json)")
_PART = [("offset", np.int64), ("size", np.int64)]
_PLACE = np.dtype([("number", np.int64), ("shard", np.int32), ("jpg", _PART), ("json", _PART)])

Places = npt.NDArray[np.void]


class SA1B(SegmentationDataset):
    """The shards as they are downloaded: images and masks are read from within them, nothing is unpacked.

    The dataset has no splits: images whose number `val_every` divides are for validation, all others train. Any number
    of shards will do. Their tables of contents are read once and remembered, 44 bytes for each image.

    Args:
        root: the folder that holds `sa_*.tar`.
        split: train or val.
        val_every: 1000 holds out sa_1000, sa_2000, ...

    Raises:
        SegfolioError: an unknown split, another folder, a shard that is no whole tar or holds an image without its
            annotation.
    """

    info = DatasetInfo(
        title="SA-1B",
        url="https://ai.meta.com/datasets/segment-anything",
        licence="SA-1B Dataset Research License",
        splits={"train": 11174177, "val": 11185},
        adjustable=True,
        tasks=("instance",),
        layout="sa_*.tar, as downloaded, with sa_<number>.jpg and sa_<number>.json in each",
        disk="11 TB, one shard of 1000 is 11 GB",
        access="Accept the licence at the page, then download any of the shards sa_*.tar into the root folder.",
    )
    labels = LabelSpace(names=("object",), things=("object",))

    def __init__(self, root: str | Path, split: str, val_every: int = 1000) -> None:
        self.expect_split(split, self.info.splits)
        if val_every < 2:
            raise SegfolioError(f"val_every is {val_every}, expected 2 or more")
        root = self.expect_files(root)
        self.shards = sorted(root.glob("sa_*.tar"))
        if not self.shards:
            self.expect_files(root, "sa_*.tar")  # says what is there instead
        key = ["contents", stamps([Path(__file__), *self.shards])]
        places = np.frombuffer(remembered(key, lambda: _all_contents(self.shards).tobytes()), _PLACE)
        numbers, times = np.unique(places["number"], return_counts=True)
        if twice := [f"sa_{number}" for number in numbers[times > 1]]:
            raise SegfolioError(
                f"{root} holds {counted(len(twice), 'image')} twice: {listed(twice, 3)}; remove a shard"
            )
        held_out = places["number"] % val_every == 0
        chosen = held_out if split == "val" else ~held_out
        if not chosen.any():
            raise SegfolioError(f"{root}: of {len(places)} images none is for {split}; lower val_every ({val_every})")
        self.places = places[chosen]

    def __len__(self) -> int:
        return len(self.places)

    def image_id(self, index: int) -> str:
        return f"sa_{self.places['number'][index]}"

    def problems(self) -> Iterator[Problem]:
        """Empty files; whether all are whole shows when they are read."""
        for kind, name in (("image", "jpg"), ("annotation", "json")):
            for index in np.flatnonzero(self.places[name]["size"] == 0).tolist():
                yield Problem(
                    kind, "empty (download the shard again)", str(self._source(index, name)), True, self.image_id(index)
                )

    def read(self, index: int) -> Sample:
        """Read an image and its masks, which stay run lengths.

        Raises:
            SegfolioError: an image or an annotation that is damaged; which one.
        """
        data = {}
        with self._shard(index).open("rb") as file:
            for name in ("jpg", "json"):
                offset, size = self.places[name][index].tolist()
                file.seek(offset)
                data[name] = file.read(size)
        source = self._source(index, "jpg")
        if is_cut_short(data["jpg"]) or not data["jpg"]:
            raise SegfolioError(f"{source} is cut short; download the shard again")
        image = to_image(decode(source, data["jpg"], cv2.IMREAD_COLOR_RGB))
        size = (image.shape[-2], image.shape[-1])
        segments = parse(data["json"], size, self._source(index, "json"))
        number = int(self.places["number"][index])
        return Sample(image, self.image_id(index), size, Target(segments=segments, number=number))

    def _shard(self, index: int) -> Path:
        return self.shards[self.places["shard"][index]]

    def _source(self, index: int, name: str) -> Path:
        return self._shard(index) / f"{self.image_id(index)}.{name}"


def _all_contents(shards: list[Path]) -> Places:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(contents, shards))
    for number, places in enumerate(found):
        places["shard"] = number
    return np.concatenate(found)


def contents(shard: Path) -> Places:
    """Number, place and size of all images of a shard and of their annotations, in the order of the numbers; shard 0.

    Raises:
        SegfolioError: a file that is no whole tar, an image without annotation or the reverse.
    """
    parts: dict[str, dict[int, tuple[int, int]]] = {"jpg": {}, "json": {}}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if match := _MEMBER.fullmatch(member.name):
                    parts[match[2]][int(match[1])] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise SegfolioError(f"{shard} cannot be read as a tar ({error}); download it again") from None
    if alone := parts["jpg"].keys() ^ parts["json"].keys():
        names = listed((f"sa_{number}" for number in alone), 3)
        raise SegfolioError(f"{shard} has image or annotation alone of {names}; download it again")
    if not parts["jpg"]:
        raise SegfolioError(f"{shard} holds no sa_<number>.jpg; it is no shard of SA-1B")
    rows = [(number, 0, parts["jpg"][number], parts["json"][number]) for number in sorted(parts["jpg"])]
    return np.array(rows, _PLACE)


def parse(data: bytes, size: tuple[int, int], source: object) -> Segments:
    """The masks of one annotation file, in its order, as run lengths.

    Args:
        size: height and width of the image.
        source: the file, for the error.

    Raises:
        SegfolioError: what is no annotation of such an image.
    """
    try:
        found: list[dict[str, Any]] = json.loads(data)["annotations"]
        masks = [rle.from_segmentation(a["segmentation"], size) for a in found]
        boxes = torch.tensor([a["bbox"] for a in found], dtype=torch.float64).reshape(-1, 4)
        areas = torch.tensor([a["area"] for a in found], dtype=torch.float64)
    except SegfolioError as error:
        raise SegfolioError(f"{source}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise SegfolioError(
            f"{source} is no annotation of SA-1B, expected annotations with segmentation, bbox and area; download the "
            "shard again"
        ) from None
    labels, crowd = torch.zeros(len(found), dtype=torch.int64), torch.zeros(len(found), dtype=torch.bool)
    return Segments(masks, labels, crowd, size, boxes, areas)
