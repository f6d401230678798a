"""MovingShapes: drawn clips in which objects move, cross, leave and come back, with exact truth and no files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torchvision.tv_tensors import Mask

from segfolio.data import drawing
from segfolio.data.dataset import DatasetInfo, SegmentationDataset
from segfolio.data.drawing import LABELS, STUFF, THINGS, Array, Map, Points, Thing
from segfolio.data.sample import Sample, Segments, Size, Target, to_image
from segfolio.errors import SegfolioError

_SPLITS = ("train", "val", "test")
_COUNTS = (2, 3, 4, 5)  # of objects in a clip
_RADII = (0.11, 0.18)  # in parts of the short side, as all that follows
_FRONT_RADII = (0.2, 0.27)  # of the one in front, behind which others vanish
_SPEEDS = (0.015, 0.05)  # in a frame
_SPIN = 0.1  # radians in a frame at most, either way
_PAN = 0.01  # of the camera in a frame at most
_MARGIN = 0.25  # by which the landscape is larger than what is seen of it
_LEAVING = 0.7  # probability of an object that may leave the image


class MovingShapes(SegmentationDataset):
    """The things of `Shapes` over a landscape that the camera pans along, each at a speed and a spin of its own.

    Objects are reflected by walls that lie in the image for some and beyond it for most, which thus leave it and come
    back. Each keeps its class, its colour and its place in depth; the one in front is large. `Target.segments` holds
    what is visible of each, under the number that it has throughout the clip; what is hidden or outside is not among
    them. Frame t of clip i is a function of `(seed, split, i, t, size)`, and its id is `<split>_<i>/<t>`.

    Args:
        root: not used; there are no files.
        split: train, val or test.
        size: height, width in pixels.
        frames: of each clip.
        train: number of clips of that split.
        val: likewise.
        test: likewise.

    Raises:
        SegfolioError: an unknown split, a size below 32 pixels, no frame.
    """

    info = DatasetInfo(
        title="Moving shapes",
        url="the docstring of segfolio.data.datasets.MovingShapes",
        licence="CC0",
        splits={"train": 6144, "val": 768, "test": 768},
        adjustable=True,
        tasks=("semantic", "instance", "panoptic"),
        layout="no files",
    )
    labels = LABELS

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        size: Size = (96, 96),
        frames: int = 24,
        train: int = 256,
        val: int = 32,
        test: int = 32,
        seed: int = 0,
    ) -> None:
        self.expect_split(split, _SPLITS)
        if min(size) < 32:
            raise SegfolioError(f"size of MovingShapes is {size}, expected at least 32 pixels each way")
        if min(train, val, test) < 0 or frames < 1:
            raise SegfolioError(
                f"train, val and test of MovingShapes are numbers of clips, not {train}, {val}, {test}, and frames is "
                f"the number of frames of each, at least 1, not {frames}"
            )
        self.split, self.size, self.seed, self.frames = split, size, seed, frames
        count = {"train": train, "val": val, "test": test}[split]
        self.clips = [range(clip * frames, (clip + 1) * frames) for clip in range(count)]
        self._last: dict[int, _Scene] = {}  # of the clip that was read last, whose frames are read in a row

    def __len__(self) -> int:
        return self.clip_count * self.frames

    def image_id(self, index: int) -> str:
        clip, frame = divmod(index, self.frames)
        return f"{self.split}_{clip:05d}/{frame:05d}"

    def read(self, index: int) -> Sample:
        """Draw one frame; an index outside the split is an `IndexError`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        clip, frame = divmod(index, self.frames)
        key = [self.seed, _SPLITS.index(self.split), clip]
        scene = self._last.get(clip) or _Scene.drawn(np.random.default_rng(key), self.size)
        self._last = {clip: scene}
        picture, semantic, segments = scene.at(frame)
        image = to_image(drawing.developed(np.random.default_rng([*key, frame]), picture))
        return Sample(image, self.image_id(index), self.size, Target(Mask(torch.from_numpy(semantic)), segments))


@dataclass(frozen=True)
class _Motion:
    """From `start` at `velocity` in a frame, `[2]` each, x and y, between walls at `low` and `high`."""

    start: Points
    velocity: Points
    low: Points
    high: Points

    def at(self, frame: int) -> Points:
        span = self.high - self.low
        unfolded = (self.start + self.velocity * frame - self.low) % (2 * span)
        return self.low + span - np.abs(unfolded - span)


@dataclass(frozen=True)
class _Object:
    """A thing of class `kind` among `THINGS`; angles in radians."""

    kind: int
    radius: float
    paint: Array
    motion: _Motion
    turn: float
    spin: float

    @property
    def thing(self) -> Thing:
        return THINGS[self.kind]

    @classmethod
    def drawn(cls, rng: np.random.Generator, size: Size, radii: tuple[float, float]) -> "_Object":
        side, extent = min(size), np.array(size[::-1], np.float64)
        kind, radius = int(rng.integers(len(THINGS))), side * rng.uniform(*radii)
        angle, speed = rng.uniform(0, 2 * np.pi), side * rng.uniform(*_SPEEDS)
        reach = np.hypot(*drawing.outline(THINGS[kind], radius, 0.0).T).max()
        beyond = 1.15 * reach if rng.random() < _LEAVING else -0.7 * reach
        motion = _Motion(
            start=rng.uniform(0.15, 0.85, 2) * extent,
            velocity=speed * np.array([np.cos(angle), np.sin(angle)]),
            low=np.full(2, -beyond),
            high=extent + beyond,
        )
        paint = drawing.color(rng, rng.random(), drawing.VIVID)
        return cls(kind, radius, paint, motion, rng.uniform(0, 2 * np.pi), rng.uniform(-_SPIN, _SPIN))

    def at(self, frame: int) -> tuple[Points, Points]:
        """Its vertices and its centre."""
        centre = self.motion.at(frame)
        return centre + drawing.outline(self.thing, self.radius, self.turn + self.spin * frame), centre


@dataclass(frozen=True)
class _Scene:
    """A landscape `[3, H', W']` with its classes, what the camera sees of it, and the objects from back to front."""

    picture: Array
    semantic: Map
    size: Size
    pan: _Motion
    objects: tuple[_Object, ...]
    light: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, size: Size) -> "_Scene":
        margin = int(_MARGIN * min(size))
        picture, semantic = drawing.landscape(rng, (size[0] + margin, size[1] + margin))
        high = np.full(2, float(margin))
        pan = _Motion(rng.uniform(0, high), rng.uniform(-_PAN, _PAN, 2) * min(size), np.zeros(2), high)
        behind = int(rng.choice(_COUNTS)) - 1
        objects = [_Object.drawn(rng, size, radii) for radii in (*[_RADII] * behind, _FRONT_RADII)]
        return cls(picture, semantic, size, pan, tuple(objects), rng.uniform(0.8, 1.1))

    def at(self, frame: int) -> tuple[Array, Map, Segments]:
        """What is seen: picture `[3, H, W]`, classes `[H, W]`, and the visible part of each object."""
        left, top = np.round(self.pan.at(frame)).astype(int)
        seen = (slice(top, top + self.size[0]), slice(left, left + self.size[1]))
        picture, semantic = self.picture[:, *seen].copy(), self.semantic[seen].copy()
        owner = np.zeros(self.size, np.uint8)
        for number, each in enumerate(self.objects, 1):
            points, centre = each.at(frame)
            drawing.add_thing(picture, each.thing, points, centre, each.paint)
            mask = drawing.cover(points, self.size) >= 0.5
            owner[mask] = number
            semantic[mask] = len(STUFF) + each.kind
        return self.light * picture, semantic, self._segments(owner)

    def _segments(self, owner: Map) -> Segments:
        tracks = np.flatnonzero(np.bincount(owner.reshape(-1), minlength=1))
        tracks = tracks[tracks > 0]
        places: npt.NDArray[np.uint8] = np.zeros(len(self.objects) + 1, np.uint8)
        places[tracks] = np.arange(1, len(tracks) + 1)
        labels = torch.tensor([len(STUFF) + self.objects[track - 1].kind for track in tracks], dtype=torch.int64)
        crowd = torch.zeros(len(tracks), dtype=torch.bool)
        return Segments(torch.from_numpy(places[owner]), labels, crowd, tracks=torch.from_numpy(tracks))
