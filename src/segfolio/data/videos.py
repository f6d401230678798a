"""The frames of one video: a folder of images, or a video file; decoded as they are asked for."""

import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import cv2
import numpy.typing as npt

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem, raise_problems
from segfolio.data.dataset import IMAGE_SUFFIXES
from segfolio.data.formats.image_header import read_header
from segfolio.data.formats.images import read_image
from segfolio.data.image_space import RGB, ImageSpace
from segfolio.data.sample import Size
from segfolio.errors import SegfolioError
from segfolio.words import counted

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
_COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # their headers hold the number of frames, others' a guess
_KEPT = 16  # frames of a file in memory, so that it can be read backwards
_AHEAD = 64  # frames that are passed over rather than sought
_JUMP = 1.5  # intervals of time between neighbouring frames, above which one may be missing

Pixels = npt.NDArray[Any]


class UnreadableFrame(SegfolioError):
    """A frame that cannot be decoded. Those before it can.

    Attributes:
        frame: its place; -1 where a loader's worker has passed the sentence on alone.
    """

    def __init__(self, message: str, frame: int = -1) -> None:
        super().__init__(message)
        self.frame = frame


class Video(Sequence[Pixels]):
    """The frames of a video in their order, each `[H, W, channels]` as `read_image` gives it.

    Reading raises an `UnreadableFrame` of a frame that is damaged, missing, or of another size than the first.

    Attributes:
        path: the folder or file.
        names: of the frames.
        rate: frames per second; None where nothing tells.
    """

    path: Path
    names: Sequence[str]
    rate: float | None = None

    @property
    def size(self) -> Size:
        """Height and width of all frames."""
        raise NotImplementedError

    def read(self, frame: int) -> Pixels:
        """One frame, by its place."""
        raise NotImplementedError

    def files(self) -> Iterable[Path]:
        """All that it is read from, in order."""
        raise NotImplementedError

    def problems(self) -> Iterable[Problem]:
        """What is wrong with it, as far as it shows without decoding a frame."""
        return ()

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pixels]: ...
    def __getitem__(self, index: int | slice) -> Pixels | Sequence[Pixels]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        pixels = self.read(places)
        if pixels.shape[:2] != self.size:
            found, first = (f"{width}x{height}" for height, width in (pixels.shape[:2], self.size))
            raise UnreadableFrame(
                f"{self.path}: frame {self.names[places]} is {found} pixels, the first is {first}; all frames of a "
                "video have one size",
                places,
            )
        return pixels


class FrameFolder(Video):
    """The images of a folder, of which the numbers in the names give the order: 2 comes before 10.

    Args:
        folder: that holds them; folders in it are left out.
        space: of the images.

    Raises:
        SegfolioError: no image, two that differ in their suffix alone.
    """

    def __init__(self, folder: Path, space: ImageSpace = RGB) -> None:
        self.path, self.space = folder, space
        found: dict[str, Path] = {}
        for path in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
            if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
                continue
            if path.stem in found:
                raise SegfolioError(f"{found[path.stem]} and {path} differ only in suffix; rename one")
            found[path.stem] = path
        if not found:
            raise SegfolioError(
                f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}), expected the frames of a video"
            )
        self.names, self.paths = list(found), list(found.values())
        self._size: Size | None = None

    @property
    def size(self) -> Size:
        if self._size is None:
            try:
                self._size = read_header(self.paths[0]).size
            except (OSError, ValueError):
                self._size = self.read(0).shape[:2]  # which says what is wrong
        return self._size

    def read(self, frame: int) -> Pixels:
        try:
            return read_image(self.paths[frame], self.space)
        except SegfolioError as error:
            raise UnreadableFrame(str(error), frame) from None

    def files(self) -> Iterable[Path]:
        return self.paths

    def problems(self) -> Iterator[Problem]:
        """Of the headers: unreadable files, frames of several sizes; as a remark, names that leave a number out."""
        frames = [FilePair(name, path, None) for name, path in zip(self.names, self.paths, strict=True)]
        found = header_problems(frames, self.space)
        yield from found
        unreadable = {problem.image_id for problem in found if problem.fatal}
        sizes = {name: read_header(path).size for name, path, _ in frames if name not in unreadable}
        first = next(iter(sizes.values()), None)
        for name, path, _ in frames:
            if first and (size := sizes.get(name, first)) != first:
                where = "{0} ({2}x{1}, the first is {4}x{3})".format(path, *size, *first)
                yield Problem("image", "of another size than the first frame of its video", where, True, name)
        for before, after in gaps(self.names):
            what = "missing by the numbers of the names (the video jumps there, or frames were not copied)"
            yield Problem("image", what, f"{self.path}, between {before} and {after}", False)


class VideoFile(Video):
    """A video file, decoded by OpenCV in RGB; `[i]` of frames in a row, forwards or backwards, decodes each once.

    Few frames are in memory at a time. The number of frames is that of the header where it holds one (MP4, MOV, AVI);
    else they are counted once, which takes a pass over the file. A damaged frame that the decoder leaves out without a
    word is named where the times of the frames tell of it, and at the end, where frames are missing, where they do not
    (as in AVI).

    Raises:
        SegfolioError: a file that is no video or has lost its index.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        capture = self._open()
        rate, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.rate = rate if rate > 0 else None
        self.exact = path.suffix.lower() in _COUNTED and count > 0
        if not self.exact:
            count = self._count()
        self.names = [f"{frame:05d}" for frame in range(count)]
        self._size: Size | None = None
        self._lock = threading.RLock()
        self._capture: cv2.VideoCapture | None = None
        self._recent: dict[int, Pixels] = {}
        self._next = 0
        self._time: float | None = None

    @property
    def size(self) -> Size:
        if self._size is None:
            self._size = self.read(0).shape[:2]
        return self._size

    def read(self, frame: int) -> Pixels:
        with self._lock:  # an inspection reads in threads
            if frame not in self._recent:
                first = frame  # of those that are kept
                if frame < self._next:
                    first = max(0, frame - _KEPT + 1)
                    self._go_to(first)
                elif self._capture is None or frame > self._next + _AHEAD:
                    self._go_to(frame if frame > _AHEAD else 0)
                while self._next <= frame:
                    self._decode(first)
            return self._recent[frame]

    def files(self) -> Iterable[Path]:
        return (self.path,)

    def _decode(self, first: int) -> None:
        """The next frame; into memory from the first on that is to be kept."""
        frame, capture = self._next, self._capture
        if capture is None or not capture.grab():
            raise UnreadableFrame(
                f"{self.path}: frame {frame} of {len(self)} cannot be decoded: the file ends early or is damaged there "
                "or before; copy or export it again",
                frame,
            )
        time = capture.get(cv2.CAP_PROP_POS_MSEC)
        if self.exact and self.rate and self._time is not None and time - self._time > _JUMP * 1000 / self.rate:
            if self._count() < len(self):
                raise UnreadableFrame(
                    f"{self.path}: frame {frame} of {len(self)} is damaged; copy or export the file again", frame
                )
            self.exact = False  # frames come at times of their own
        self._time, self._next = time, frame + 1
        if frame >= first:
            decoded, pixels = capture.retrieve()
            if not decoded:
                raise UnreadableFrame(f"{self.path}: frame {frame} cannot be decoded; export the file again", frame)
            self._recent[frame] = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            for old in [old for old in self._recent if abs(old - frame) >= _KEPT]:
                del self._recent[old]

    def _go_to(self, frame: int) -> None:
        if frame == 0 or self._capture is None:
            self._capture = self._open()
        if frame:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, frame)
        self._next, self._time = frame, None

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(os.fspath(self.path))
        if not capture.isOpened():
            reason = "it is damaged, cut short or no video" if self.path.is_file() else "there is no such file"
            raise SegfolioError(f"{self.path} cannot be opened: {reason}; copy or export it again")
        return capture

    def _count(self) -> int:
        capture, count = self._open(), 0
        while capture.grab():
            count += 1
        return count

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: each process opens the file by itself."""
        return {**vars(self), "_lock": None, "_capture": None, "_recent": {}, "_next": 0, "_time": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())


def is_video(path: Path) -> bool:
    """Whether a file's name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def open_video(path: Path, space: ImageSpace = RGB, exact: bool = False) -> Video:
    """A folder of frames or a video file, ready to be read.

    Args:
        space: of the frames; a video file has RGB of 8 bits alone.
        exact: decode a file by PyAV, see `segfolio.data.exact_videos`, and not by OpenCV.

    Raises:
        SegfolioError: neither, or a video that cannot be read as far as it shows without decoding; which frame.
    """
    if path.is_dir():
        video: Video = FrameFolder(path, space)
    elif is_video(path):
        if wrong := space.misfit(3, "uint8"):
            raise SegfolioError(f"{path} is {wrong}; give the frames as a folder of images")
        video = _exact(path) if exact else VideoFile(path)
    else:
        found = "it is none of these" if path.exists() else "there is nothing"
        raise SegfolioError(f"{path}: {found}; expected a folder of frames or a video ({', '.join(VIDEO_SUFFIXES)})")
    raise_problems(video.problems(), of=f"{path}, {counted(len(video), 'frame')}")
    return video


def _exact(path: Path) -> Video:
    from segfolio.data.exact_videos import ExactVideoFile

    return ExactVideoFile(path)


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """By which names are ordered as people do: numbers by their value, whatever they are filled up with."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)], name


def gaps(names: Sequence[str]) -> list[tuple[str, str]]:
    """Neighbouring names whose numbers are further apart than most; none where names are not numbers alone, or differ
    before their last number."""
    matches = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    if len({match and match[1] for match in matches}) != 1 or not all(matches):
        return []
    numbers = [int(match[2]) for match in matches if match]
    steps = [after - before for before, after in pairwise(numbers)]
    usual = Counter(steps).most_common(1)[0][0] if steps else 0
    return [pair for pair, step in zip(pairwise(names), steps, strict=True) if step > usual]
