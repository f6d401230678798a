"""What was answered to prompts: where was clicked, and the masks after the first click and after the last."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import ANYTHING, Color
from segfolio.data.prompts import NOT_OBJECT, OBJECT
from segfolio.data.sample import Prompted
from segfolio.data.segments import Segments
from segfolio.viz.objects import object_colors
from segfolio.viz.overlay import Indices, Pixels, fit_map, paint, rgb
from segfolio.viz.panel import TILE, enlarge, tile_size
from segfolio.viz.regions import Regions, draw_regions
from segfolio.viz.sheet import Entry, Tile, compose
from segfolio.viz.views import View, stacked

_MARKED = 5
"""Clicks of an object that are shown; more would hide it."""

_FIRST: Color = (255, 255, 255)
_FURTHER: dict[int, Color] = {OBJECT: (70, 230, 100), NOT_OBJECT: (250, 60, 70)}


def prompted_panel(
    image: Pixels, found: Prompted, view: View, truth: Segments | None, title: str = "", max_width: int = 2000
) -> Pixels:
    """Image with clicks, truth, and the masks after the first click and after the last, each with its mean IoU.

    Of each object at most 5 clicks are marked: the first by a white dot, the others by a plus where something was
    missing and by a cross where something was too much.

    Args:
        image: `[H, W, C]` RGB or grey.
        view: the reading of the answers, which says the objects' colours.
        truth: the segments that were asked for; None if not known.

    Returns:
        `[h, w, 3]` RGB.
    """
    height, width = image.shape[:2]
    rounds = max((len(masks) for masks in found.rles), default=1)
    clicks = _clicks(found)
    turns = [0, rounds - 1] if rounds > 1 else [0]
    count = 1 + (view.truth is not None) + len(turns)
    columns = 2 if count == 4 or width >= 2 * height else count
    type_size = min(max(min(max_width, columns * width) // 75, 14), 24)
    size = tile_size((height, width), (max_width - (columns + 1) * type_size) // columns, max_width // 2, 2 * TILE)
    shown = enlarge(rgb(image), size)

    def drawn(ids: Indices) -> Pixels:
        return draw_regions(shown, Regions(fit_map(ids, size)), view.colors)

    heading = f"image  the first {_MARKED} clicks" if any(len(each) > _MARKED for each in clicks) else "image"
    tiles: list[Tile] = [(heading, _marked(shown, clicks, size[0] / width))]
    if view.truth is not None:
        tiles.append(("truth", drawn(view.truth.ids)))
    for turn in turns:
        masks = [each[turn] for each in found.rles]
        heading = f"after {turn + 1} click{'s' if turn else ''}" if clicks else "answer"
        if truth is not None and view.truth is not None and masks:
            true = truth.rles
            ious = [rle.ious([mask], true[i])[0] for mask, i in zip(masks, found.of.tolist(), strict=True)]
            heading += f"  mIoU {np.mean(ious):.2f}"
        tiles.append((heading, drawn(stacked(masks, (height, width)))))
    return compose(tiles, columns, _legend(clicks), title, type_size)


@dataclass(frozen=True)
class Asked:
    """An object that was asked for, as it is drawn.

    Attributes:
        clicks: x, y and kind of each, in pixels of the image.
        box: left, top, right and bottom, if there was one.
    """

    mask: RLE
    score: float
    clicks: Sequence[tuple[float, float, int]] = ()
    box: tuple[float, float, float, float] | None = None


def overlay_prompts(image: Pixels, objects: Sequence[Asked], longest: int = 800) -> Pixels:
    """Masks over the image, numbered from 1 and with their scores, and what they were asked for by: boxes, a plus for a
    click on the object, a cross for one beside it. Of masks that overlap the smaller lies on top.

    Args:
        image: `[H, W, C]` RGB or grey.
        longest: an image of half of it or less is shown in whole multiples of its size.

    Returns:
        `[h, w, 3]` RGB.
    """
    height, width = image.shape[:2]
    scale = max(1, longest // max(height, width))
    size = (width * scale, height * scale)
    ids = fit_map(stacked([each.mask for each in objects], (height, width)), size)
    colors = object_colors([0] * len(objects), ANYTHING)
    page = Image.fromarray(paint(enlarge(rgb(image), size), ids, colors, contours=2))
    draw, radius = ImageDraw.Draw(page), max(5, round(min(page.size) / 80))
    for color, each in zip(colors.tolist(), objects, strict=True):
        if each.box is not None:
            corners = [place * scale for place in each.box]
            last = [corners[0], corners[1], max(corners[0], corners[2] - 1), max(corners[1], corners[3] - 1)]
            draw.rectangle([last[0] - 1, last[1] - 1, last[2] + 1, last[3] + 1], outline="black", width=4)
            draw.rectangle(last, outline=tuple(color), width=2)
    for each in objects:
        for x, y, kind in each.clicks:
            _sign(draw, x * scale, y * scale, kind, radius)
    type_size = min(max(page.width // 50, 13), 24)
    font = ImageFont.load_default(type_size)
    for number, (each, outline) in enumerate(zip(objects, rle.boxes([x.mask for x in objects]), strict=True), 1):
        text = f"{number}: {each.score:.2f}"
        corners = [outline[:2]] if outline[2] else []
        corners += [np.array(each.box[:2])] if each.box else []
        left, top = np.min(corners or [each.clicks[0][:2]], axis=0) * scale
        # above all of it, and inside the image
        x, y = min(left, page.width - font.getlength(text) - 2), max(top - 4, type_size)
        draw.text((max(x, 2), y), text, "white", font, anchor="ls", stroke_width=2, stroke_fill="black")
    return np.array(page)


def _clicks(found: Prompted) -> list[list[tuple[float, float, int]]]:
    """Of each prompt x, y and kind of the clicks; empty if nobody clicked."""
    clicks = found.clicks
    if clicks is None or clicks.points is None or clicks.kinds is None:
        return []
    rows = zip(clicks.points.tolist(), clicks.kinds.tolist(), strict=True)
    each = [[(x, y, kind) for (x, y), kind in zip(*row, strict=True) if kind >= NOT_OBJECT] for row in rows]
    return each if any(each) else []


def _marked(image: Pixels, clicks: Sequence[Sequence[tuple[float, float, int]]], scale: float) -> Pixels:
    """The clicks on an image that has been resized by `scale`."""
    page = Image.fromarray(image)
    draw, radius = ImageDraw.Draw(page), max(3, round(min(page.size) / 130))
    for turn in reversed(range(_MARKED)):  # the first on top
        for x, y, kind in (each[turn] for each in clicks if len(each) > turn):
            x, y = x * scale, y * scale
            if turn == 0:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), _FIRST, "black")
                continue
            _sign(draw, x, y, kind, radius)
    return np.array(page)


def _sign(draw: ImageDraw.ImageDraw, x: float, y: float, kind: int, radius: int) -> None:
    """A plus on the object, a cross beside it."""
    reach = radius if kind == OBJECT else round(0.75 * radius)
    lines = [(-1, 0, 1, 0), (0, -1, 0, 1)] if kind == OBJECT else [(-1, -1, 1, 1), (-1, 1, 1, -1)]
    for color, line_width in (("black", 4), (_FURTHER[kind], 2)):
        for a, b, c, d in lines:
            draw.line((x + a * reach, y + b * reach, x + c * reach, y + d * reach), color, line_width)


def _legend(clicks: Sequence[Sequence[tuple[float, float, int]]]) -> list[Entry]:
    kinds = {kind for each in clicks for *_, kind in each[1:_MARKED]}
    names = {OBJECT: "where something was missing (+)", NOT_OBJECT: "where something was too much (x)"}
    colors = [("first click", _FIRST)] if clicks else []
    colors += [(names[kind], _FURTHER[kind]) for kind in (OBJECT, NOT_OBJECT) if kind in kinds]
    return [(name, np.array([color], np.uint8)) for name, color in colors]
