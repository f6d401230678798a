"""`Regions`, and how they look over an image: with words on them where there is room."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segfolio.data.formats import rle
from segfolio.viz.overlay import Bools, Indices, Pixels, paint


@dataclass
class Regions:
    """Who owns each pixel.

    Attributes:
        ids: `[H, W]`, 1 to N, 0 where there is none, `IGNORED` where it does not count.
        captions: of a region by its number, what may be written on it, the longest first.
    """

    ids: Indices
    captions: dict[int, tuple[str, ...]] = field(default_factory=dict)


def draw_regions(image: Pixels, regions: Regions, colors: Pixels, type_size: int | None = None) -> Pixels:
    """Regions over the image, those that have captions with words on them and a wider border.

    The longest caption that fits is written where the region's border is far; a region that is too small for
    any, or whose place another's words have taken, gets none.

    Args:
        image: `[H, W, C]` RGB or grey.
        regions: of that size.
        colors: `[N, 3]`.
        type_size: in pixels; follows from the image's width if not given.

    Returns:
        `[H, W, 3]`.
    """
    if not regions.captions:
        return paint(image, regions.ids, colors)
    page = Image.fromarray(paint(image, regions.ids, colors, contours=2))
    type_size = type_size or min(max(page.width // 50, 11), 24)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(type_size)
    taken = np.zeros(regions.ids.shape, np.bool_)
    boxes = rle.boxes(rle.from_id_map(regions.ids, max(regions.captions))).astype(int)
    for number in sorted(regions.captions, key=lambda n: -boxes[n - 1, 2:].prod()):
        left, top, width, height = boxes[number - 1].tolist()
        if width == 0:
            continue
        x, y, room = _centre(regions.ids[top : top + height, left : left + width] == number)
        for text in regions.captions[number]:
            wide, high = round(font.getlength(text)), round(0.75 * type_size)  # of digits and capitals
            start = min(max(left + x - wide // 2, 1), max(page.width - wide - 1, 1))  # inside the image
            place = taken[max(top + y - high // 2, 0) : top + y + high // 2 + 1, start : start + wide]
            if wide <= 1.1 * width and high <= 2 * room and not place.any():
                place[:] = True
                draw.text((start, top + y), text, "white", font, anchor="lm", stroke_width=2, stroke_fill="black")
                break
    return np.array(page)


def _centre(mask: Bools) -> tuple[int, int, float]:
    """The middle of where the border is far, and how far it is there."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    far = np.argwhere(distance >= 0.9 * distance.max())
    y, x = far[np.abs(far - far.mean(0)).sum(1).argmin()]
    return int(x), int(y), float(distance[y, x])
