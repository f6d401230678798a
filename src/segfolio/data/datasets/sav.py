"""SA-V (Ravi et al., 2024, arXiv 2408.00714): 51 thousand videos, 643 thousand masklets without a class."""

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.checks.remembered import remembered, stamps
from segfolio.data.dataset import DatasetInfo, SegmentationDataset, listed
from segfolio.data.formats import rle
from segfolio.data.formats.images import read_id_map, read_image
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Size, Target, to_image
from segfolio.data.segments import Segments
from segfolio.data.videos import Pixels, UnreadableFrame, VideoFile
from segfolio.errors import SegfolioError
from segfolio.words import counted

_STEP = 4  # of 24 frames a second, 6 are annotated
_START = 1024  # bytes of an annotation, among which is the number of frames
_COUNT = re.compile(rb'"video_frame_count":\s*([\d.]+)')


class SAV(SegmentationDataset):
    """Each video a clip; an image's id is `<video>/<frame>`. Objects may overlap, as a person and a hand.

    Of the training videos the annotated frames alone are read, 6 a second, from within the files as they are
    downloaded; an object's number is its place among the masklets of its video, those that people drew before those
    that a network found. Of the others all frames are, 24 a second, and those that are not annotated have a target
    without segments; an object's number is the name of its folder.

    Args:
        root: the folder that holds `sav_train`, `sav_val` and `sav_test`, as the archives unpack; not all are needed.
        split: train, val or test.
        automatic: read the masklets that a network found, too (of the training videos).
        all_frames: read the frames that are not annotated, too (of the others), as the paper does to follow objects.

    Raises:
        SegfolioError: an unknown split, another folder, a video without its annotation or frames.
    """

    info = DatasetInfo(
        title="SA-V",
        url="https://ai.meta.com/datasets/segment-anything-video",
        licence="CC BY 4.0",
        tasks=("instance",),
        layout="sav_train/**/<video>.mp4 with <video>_manual.json and <video>_auto.json; sav_val/sav_val.txt, "
        "sav_val/JPEGImages_24fps/<video>/*.jpg, sav_val/Annotations_6fps/<video>/<object>/*.png; likewise sav_test",
        access="Accept the licence at the page, then unpack sav_val.tar, sav_test.tar and any of the archives of the "
        "training videos into the root.",
    )
    labels = LabelSpace(names=("object",), things=("object",))

    def __init__(self, root: str | Path, split: str, automatic: bool = True, all_frames: bool = True) -> None:
        self.expect_split(split, ("train", "val", "test"))
        folder = self.expect_files(root, f"sav_{split}") / f"sav_{split}"
        self.videos: Sequence[_Video]
        if split == "train":
            self.videos = _of_files(folder, automatic)
        else:
            self.expect_files(root, *(f"sav_{split}/{n}" for n in (f"sav_{split}.txt", "JPEGImages_24fps")))
            self.videos = _of_folders(folder, folder / f"sav_{split}.txt", all_frames)
        self._ends = [0, *accumulate(len(video.frames) for video in self.videos)]
        self.clips = [range(*pair) for pair in pairwise(self._ends)]

    def __len__(self) -> int:
        return self._ends[-1]

    def image_id(self, index: int) -> str:
        video, frame = self._place(index)
        return f"{video.name}/{video.frames[frame]}"

    def image_file(self, index: int) -> Path | None:
        video, frame = self._place(index)
        return video.images / f"{video.frames[frame]}.jpg" if isinstance(video, _Folders) else None

    def files(self) -> Iterable[Path]:
        return (path for video in self.videos for path in video.files())

    def problems(self) -> Iterable[Problem]:
        """Of the headers of all frames and masks, where these are files."""
        pairs = [pair for video in self.videos if isinstance(video, _Folders) for pair in video.pairs()]
        return dict.fromkeys(header_problems(pairs, self.image_space))  # an image's are told once

    def read(self, index: int) -> Sample:
        """Read a frame and its masks.

        Raises:
            UnreadableFrame: a frame of a training video that is damaged or missing.
            SegfolioError: an image or an annotation that is damaged; which one.
        """
        video, frame = self._place(index)
        image = to_image(video.image(frame))
        size = (image.shape[-2], image.shape[-1])
        found = video.masks(frame, size)
        target = Target()
        if found is not None:
            zeros = torch.zeros(len(found), dtype=torch.int64)
            tracks = torch.tensor(list(found), dtype=torch.int64)
            target = Target(segments=Segments(list(found.values()), zeros, zeros > 0, size, tracks=tracks))
        return Sample(image, self.image_id(index), size, target)

    def _place(self, index: int) -> tuple["_Video", int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        clip = bisect_right(self._ends, index) - 1
        return self.videos[clip], index - self._ends[clip]


class _Video:
    """One video, the names of the frames that are read of it, and the masks of each by the objects' numbers."""

    name: str
    frames: Sequence[str]

    def image(self, frame: int) -> Pixels:
        raise NotImplementedError

    def masks(self, frame: int, size: Size) -> dict[int, RLE] | None:
        """Those that are not empty; None of a frame that is not annotated."""
        raise NotImplementedError

    def files(self) -> Iterable[Path]:
        raise NotImplementedError


class _Folders(_Video):
    """Frames as JPEGs, the masks of each object as PNGs in a folder of its own."""

    def __init__(self, images: Path, annotations: Path, all_frames: bool) -> None:
        self.name, self.images = images.name, images
        self.objects = sorted(path for path in annotations.glob("[!.]*") if path.is_dir())
        self.annotated = {path.stem for folder in self.objects for path in folder.glob("[!.]*.png")}
        frames = sorted(path.stem for path in images.glob("[!.]*.jpg"))
        if missing := self.annotated - set(frames):
            raise SegfolioError(f"{annotations} has masks of frames that {images} lacks: {listed(missing, 3)}")
        if not self.annotated:
            raise SegfolioError(f"{annotations} holds no mask, expected <object>/*.png")
        if wrong := [folder.name for folder in self.objects if not folder.name.isdecimal()]:
            raise SegfolioError(f"{annotations}: {listed(wrong, 3)} is no number of an object")
        self.frames = frames if all_frames else sorted(self.annotated)

    def image(self, frame: int) -> Pixels:
        return read_image(self.images / f"{self.frames[frame]}.jpg")

    def masks(self, frame: int, size: Size) -> dict[int, RLE] | None:
        if self.frames[frame] not in self.annotated:
            return None
        found = {}
        for path in self._masks(self.frames[frame]):
            mask = read_id_map(path) > 0
            if mask.shape != size:
                raise SegfolioError(
                    f"{path} is {mask.shape[1]}x{mask.shape[0]} pixels but its frame is {size[1]}x{size[0]}; download "
                    "the archive again"
                )
            if mask.any():
                found[int(path.parent.name)] = rle.encode(mask[None])[0]
        return found

    def _masks(self, frame: str) -> list[Path]:
        return [path for folder in self.objects if (path := folder / f"{frame}.png").is_file()]

    def files(self) -> Iterable[Path]:
        for frame in self.frames:
            yield self.images / f"{frame}.jpg"
            yield from self._masks(frame)

    def pairs(self) -> Iterable[FilePair]:
        for frame in self.frames:
            for mask in self._masks(frame) or (None,):
                yield FilePair(f"{self.name}/{frame}", self.images / f"{frame}.jpg", mask)


class _Opened(NamedTuple):
    """A training video that is read: its masklets `[T][N]`, and the file."""

    masklets: list[list[Any]]
    file: VideoFile


class _Files(_Video):
    """A video file with JSON beside it, one list of masks for each annotated frame.

    Args:
        kept: shared by all videos of a dataset, for the one that was read last, whose frames are read in a row.
    """

    def __init__(self, path: Path, annotated: int, automatic: bool, kept: dict[str, _Opened]) -> None:
        self.name, self.path, self.kept = path.stem, path, kept
        self.frames = [f"{_STEP * frame:05d}" for frame in range(annotated)]
        self.annotations = [path.with_name(f"{path.stem}_manual.json")]
        if automatic and (more := path.with_name(f"{path.stem}_auto.json")).is_file():
            self.annotations.append(more)

    def image(self, frame: int) -> Pixels:
        file, place = self._opened().file, _STEP * frame
        if place >= len(file):
            raise UnreadableFrame(
                f"{self.path} has {counted(len(file), 'frame')}, but frame {place} is annotated; download it again",
                place,
            )
        return file[place]

    def masks(self, frame: int, size: Size) -> dict[int, RLE] | None:
        found = {}
        for number, coded in enumerate(self._opened().masklets[frame]):
            try:
                mask = rle.from_segmentation(coded, size)
            except SegfolioError as error:
                where = f"{self.path.stem}: masklet {number} of frame {self.frames[frame]}"
                raise SegfolioError(f"{where}: {error}; download its annotation again") from None
            if rle.areas([mask])[0]:
                found[number] = mask
        return found

    def _opened(self) -> _Opened:
        if (opened := self.kept.get(self.name)) is None:
            lists = [self._masklets(path) for path in self.annotations]
            frames = [[mask for each in masks for mask in each] for masks in zip(*lists, strict=True)]
            opened = _Opened(frames, VideoFile(self.path))
            self.kept.clear()
            self.kept[self.name] = opened
        return opened

    def _masklets(self, path: Path) -> list[list[Any]]:
        try:
            found = json.loads(path.read_bytes())["masklet"]
            if len(found) == len(self.frames) and all(isinstance(each, list) for each in found):
                return found
            reason = f"masklets of {len(found)} frames, expected those of {len(self.frames)}"
        except (OSError, ValueError, KeyError, TypeError):
            reason = "no annotation of SA-V, expected masklets"
        raise SegfolioError(f"{path} holds {reason}; download it again")

    def files(self) -> Iterable[Path]:
        return [self.path, *self.annotations]


def _of_folders(folder: Path, names: Path, all_frames: bool) -> list[_Folders]:
    found = [
        _Folders(folder / "JPEGImages_24fps" / name, folder / "Annotations_6fps" / name, all_frames)
        for name in dict.fromkeys(names.read_text().split())
    ]
    if not found:
        raise SegfolioError(f"{names} is empty, expected the name of a video per line")
    return found


def _of_files(folder: Path, automatic: bool) -> list[_Files]:
    paths = sorted(folder.rglob("[!.]*.mp4"), key=lambda path: path.name)
    if not paths:
        raise SegfolioError(f"{folder} holds no video, expected {SAV.info.layout}")
    annotations = [path.with_name(f"{path.stem}_manual.json") for path in paths]
    if missing := [str(path) for path in annotations if not path.is_file()]:
        raise SegfolioError(f"{folder}: {counted(len(missing), 'annotation')} missing: {listed(missing, 3)}")

    def count() -> bytes:
        with ThreadPoolExecutor(8) as pool:
            return json.dumps(list(pool.map(_annotated, annotations))).encode()

    numbers = json.loads(remembered(["frames", stamps([Path(__file__), *annotations])], count))
    kept: dict[str, _Opened] = {}
    return [_Files(path, number, automatic, kept) for path, number in zip(paths, numbers, strict=True)]


def _annotated(annotation: Path) -> int:
    """How many frames of its video are annotated."""
    with annotation.open("rb") as file:
        match = _COUNT.search(file.read(_START))
    if match is None:
        raise SegfolioError(f"{annotation} is no annotation of SA-V, expected video_frame_count; download it again")
    return math.ceil(float(match[1]) / _STEP)
