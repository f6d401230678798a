"""In which order a video is gone through, and what is found of each object in each frame."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch

from segfolio.data.formats.rle import RLE
from segfolio.data.sample import to_image
from segfolio.data.videos import Pixels, UnreadableFrame, Video
from segfolio.inference.mask_runs import MaskRuns
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.track import Tracked, Tracker
from segfolio.track.prompts import Said, together

Direction = Literal["forwards", "backwards", "both"]


class Pass(NamedTuple):
    """Once through some frames of a video.

    Attributes:
        frames: in this order.
        said: in each frame, what is said there.
    """

    frames: range
    said: dict[int, list[Said]]

    @property
    def backwards(self) -> bool:
        return self.frames.step < 0


class Found(NamedTuple):
    """An object in a frame, where it is seen.

    Attributes:
        mask: of the frame's size.
        score: how sure the network is that it is there, in [0, 1].
    """

    mask: RLE
    score: float


class Frame(NamedTuple):
    """What was found in a frame.

    Attributes:
        place: in the video.
        pixels: as the video has them.
        objects: by their numbers; those that are not seen are not there.
    """

    place: int
    pixels: Pixels
    objects: dict[int, Found]


def passes(direction: Direction, said: Sequence[Said], frames: int) -> list[Pass]:
    """How a video of so many frames is gone through.

    An object is followed from the first prompt that is met on the way; a further one corrects it, and changes what
    follows. Both ways, it is followed forwards first, and then backwards from its first prompt.
    """
    whole, by_frame, first = range(frames), defaultdict[int, list[Said]](list), dict[int, Said]()
    for one in sorted(said, key=lambda one: one.frame):
        by_frame[one.frame].append(one)
        first.setdefault(one.object, one)
    ways = [Pass(whole if direction != "backwards" else whole[::-1], dict(by_frame))]
    if direction == "both":
        begins = defaultdict[int, list[Said]](list)
        for one in first.values():
            begins[one.frame].append(one)
        ways.append(Pass(range(max(begins), -1, -1), dict(begins)))
    return ways


class Following:
    """One pass: iterate over it once.

    Where a frame cannot be read, objects that were followed to it are lost there, and it is the end; as long as nothing
    is followed, it is passed over up to the next frame with a prompt.

    Args:
        tracker: that knows the first `done` frames of the pass.
        embed: a frame `[1, C, H, W]`.
        device: of the network.

    Attributes:
        unreadable: what is said of frames that cannot be read.
    """

    def __init__(
        self,
        video: Video,
        way: Pass,
        tracker: Tracker,
        embed: Callable[[torch.Tensor], EmbeddedImages],
        device: torch.device,
        done: int = 0,
    ) -> None:
        self.video, self.way, self.tracker, self.done = video, way, tracker, done
        self.unreadable = list[str]()
        self._embed, self._device = embed, device
        self._runs: MaskRuns | None = None

    def __iter__(self) -> Iterator[Frame]:
        passes_over = False
        for place in self.way.frames[self.done :]:
            self.done += 1
            if passes_over and place not in self.way.said:
                continue
            passes_over = False
            try:
                pixels = self.video[place]
            except UnreadableFrame as error:
                self.unreadable.append(str(error))
                if self.tracker.objects:
                    return
                passes_over = True
                continue
            yield Frame(place, pixels, self._objects(place, pixels))

    @torch.no_grad()
    def _objects(self, place: int, pixels: Pixels) -> dict[int, Found]:
        said = self.way.said.get(place, [])
        if not (said or self.tracker.objects):
            return {}
        image = self._embed(to_image(pixels).as_subclass(torch.Tensor)[None].to(self._device))
        answers = list[Tracked]()
        if self.tracker.objects:  # before a correction, which is of what was followed to here
            answers.append(self.tracker.follow(place, image, self.way.backwards))
        for prompts in together(said, self.video.size):
            for name in ("of", "points", "kinds", "boxes", "masks"):
                if (each := getattr(prompts, name)) is not None:
                    setattr(prompts, name, each.to(self._device))
            answers.append(self.tracker.prompt(place, image, prompts))
        self._runs = self._runs or MaskRuns.of(image, 0)
        found = dict[int, Found]()
        for answer in answers:
            masks, scores = answer.masks.float().cpu().numpy(), answer.object_score.float().sigmoid().tolist()
            for number, mask, score in zip(answer.objects, masks, scores, strict=True):
                found.pop(number, None)
                if (mask > 0).any():
                    found[number] = Found(self._runs.runs(mask), round(score, 4))
        return found
