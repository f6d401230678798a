"""What `segfolio track` leaves on disk."""

import json
from collections import Counter
from functools import cache
from typing import Any

import cv2
import numpy as np

from segfolio.data.formats import rle
from segfolio.data.formats.images import read_image, write_image, write_palette
from segfolio.data.image_space import ImageSpace
from segfolio.data.labels import ANYTHING
from segfolio.data.sample import to_image, to_pixels
from segfolio.data.videos import Video
from segfolio.errors import SegfolioError
from segfolio.files import OutputFolder, naming, write_atomically
from segfolio.track.passes import Found, Frame
from segfolio.track.prompts import MOST
from segfolio.viz.objects import object_colors
from segfolio.viz.overlay import Pixels
from segfolio.viz.regions import Regions, draw_regions
from segfolio.viz.views import stacked

RATE = 24.0
"""Frames per second of the overlay video where nothing says how fast they come."""


class Written:
    """The results of a video, below a folder:

    * `ids/<frame>.png`: a palette PNG of the objects' numbers, 0 for none; of two that overlap the smaller is seen;
    * `masks/<frame>.json`: of each object that is seen its run lengths, which may overlap, and its score;
    * `overlay/<frame>.jpg`: the objects over the frame, each in one colour in all of them, with its number;
    * and at the end `instances.json`, all masks as COCO results with a `track_id`, and `overlay.mp4`.
    """

    def __init__(self, folder: OutputFolder, video: Video, space: ImageSpace) -> None:
        self.folder, self.video, self.space = folder, video, space

    def write(self, frame: Frame, beside: bool) -> None:
        """
        Args:
            beside: what was written of the frame before stays, but for the objects that were found now.
        """
        name = self.video.names[frame.place]
        objects = dict(sorted({**(self._objects(name) if beside else {}), **frame.objects}.items()))
        told = {number: {"segmentation": rle.to_json(x.mask), "score": x.score} for number, x in objects.items()}
        numbers = np.append(0, list(objects)).astype(np.uint8)
        ids = numbers[stacked([x.mask for x in objects.values()], self.video.size)]
        shown = to_pixels(self.space.picture(to_image(frame.pixels)))
        regions = Regions(ids.astype(np.int32), {number: (str(number),) for number in objects})
        write_atomically(self.folder.path("masks", f"{name}.json"), json.dumps(told).encode())
        self._write_map(name, ids)
        write_image(self.folder.path("overlay", f"{name}.jpg"), draw_regions(shown, regions, _palette()[1:]))

    def finish(self) -> Counter[int]:
        """Write what is of the whole video; returns in how many frames each object is seen."""
        names = [name for name in self.video.names if self.folder.path("overlay", f"{name}.jpg").is_file()]
        if names:
            self._film(names)
        seen = Counter[int]()
        file = self.folder.path("instances.json")
        temporary = file.with_name(f".{file.name}")
        with naming(file), temporary.open("w") as stream:
            stream.write("[")
            for name in names:
                for number, found in self._objects(name).items():
                    stream.write(",\n" if seen else "\n")
                    stream.write(json.dumps(_result(name, number, found)))
                    seen[number] += 1
            stream.write("\n]\n")
        temporary.replace(file)
        return seen

    def _write_map(self, name: str, ids: Pixels) -> None:
        write_palette(self.folder.path("ids", f"{name}.png"), ids, _palette())

    def _film(self, names: list[str]) -> None:
        file = self.folder.path("overlay.mp4")
        temporary = file.with_name(f".{file.name}")  # its suffix says the format
        height, width = self.video.size
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(temporary), code, self.video.rate or RATE, (width, height))
        if not writer.isOpened():
            raise SegfolioError(f"{file} cannot be written: OpenCV has no encoder for it; the frames are in overlay/")
        for name in names:
            pixels = read_image(self.folder.path("overlay", f"{name}.jpg"))
            writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        writer.release()
        temporary.replace(file)

    def _objects(self, name: str) -> dict[int, Found]:
        """What was written of a frame."""
        path = self.folder.path("masks", f"{name}.json")
        told = json.loads(path.read_bytes()) if path.is_file() else {}
        size = self.video.size
        return {int(n): Found(rle.from_segmentation(x["segmentation"], size), x["score"]) for n, x in told.items()}


def _result(name: str, number: int, found: Found) -> dict[str, Any]:
    return {
        "image_id": name,
        "category_id": ANYTHING.ids[0],
        "track_id": number,
        "segmentation": rle.to_json(found.mask),
        "score": found.score,
        "bbox": rle.boxes([found.mask])[0].tolist(),
    }


@cache
def _palette() -> Pixels:
    """`[MOST + 1, 3]`, black for no object."""
    return np.concatenate([np.zeros((1, 3), np.uint8), object_colors([0] * MOST, ANYTHING)])
