"""One picture that says what a model made of an image: image, truth, prediction, errors and a legend."""

from collections.abc import Sequence

import cv2
import numpy as np

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Size
from segfolio.viz.overlay import IGNORED, WRONG, Pixels, error_map, fit, fit_map, rgb
from segfolio.viz.regions import Regions, draw_regions
from segfolio.viz.sheet import Entry, compose
from segfolio.viz.views import View

TILE = 320
"""An image is enlarged by a whole factor while it stays within this width and twice this height."""
_SHADES = 4  # of a class in the legend, at most


def panel(image: Pixels, view: View, labels: LabelSpace, title: str = "", max_width: int = 2000) -> Pixels:
    """Image, truth, prediction and errors side by side, and below them the classes that occur.

    They stand in two rows if the image is at least twice as wide as high, or if words are written on its regions; then
    it is enlarged up to three times `TILE`. Small images are enlarged without smoothing, large ones reduced so that the
    panel is no wider than `max_width` pixels.

    Args:
        image: `[H, W, C]` RGB or grey.
        view: one without truth shows image and prediction alone.

    Returns:
        `[h, w, 3]` RGB.
    """
    height, width = image.shape[:2]
    words = bool(view.prediction.captions or (view.truth and view.truth.captions))
    columns = 2 if words or view.truth is None or width >= 2 * height else 4
    type_size = min(max(min(max_width, columns * width) // 75, 14), 24)  # all distances follow from it
    room = (max_width - (columns + 1) * type_size) // columns
    size = tile_size((height, width), room, max_width // 2, TILE * (3 if words else 1))

    def drawn(regions: Regions) -> Pixels:
        return draw_regions(shown, Regions(fit_map(regions.ids, size), regions.captions), view.colors, type_size)

    shown = enlarge(rgb(image), size)
    tiles = [("image", shown), (f"prediction  {view.note}", drawn(view.prediction))]
    if view.truth is not None:
        wrong, ignored = view.errors()
        share = wrong.sum() / max(1, (~ignored).sum())
        errors = error_map(shown, fit_map(wrong, size) > 0, fit_map(ignored, size) > 0)
        tiles.insert(1, ("truth", drawn(view.truth)))
        tiles.append((f"errors  {share:.1%}", errors))
    return compose(tiles, columns, legend([view], labels), title, type_size)


def tile_size(image: Size, width: int, height: int, enlarged: int = TILE) -> tuple[int, int]:
    """Width and height at which an image is shown: within the given ones, and see `TILE`."""
    limit = min(width / image[1], height / image[0])
    scale = limit if limit < 1 else max(1, int(min(limit, enlarged / image[1], 2 * enlarged / image[0])))
    return max(1, round(image[1] * scale)), max(1, round(image[0] * scale))


def enlarge(image: Pixels, size: tuple[int, int]) -> Pixels:
    """`[H, W, 3]` in (width, height), a larger one without smoothing."""
    if size[0] <= image.shape[1]:
        return fit(image, size)
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)


def legend(views: Sequence[View], labels: LabelSpace, errors: bool = True) -> list[Entry]:
    """Each class in the colours that its regions have in the pictures that are shown.

    Args:
        errors: are among these.
    """
    shades: dict[int, dict[tuple[int, ...], None]] = {}
    wrong = ignored = False
    for view in views:
        maps = [view.prediction.ids] if view.truth is None else [view.prediction.ids, view.truth.ids]
        for number in np.unique(np.concatenate([np.unique(m) for m in maps])).tolist():
            ignored |= number == IGNORED
            if number > 0:
                shades.setdefault(view.classes[number - 1], {})[tuple(view.colors[number - 1].tolist())] = None
        wrong |= errors and view.truth is not None and bool(view.errors()[0].any())
    entries: list[Entry] = [(labels.names[c], np.array([*shades[c]][:_SHADES], np.uint8)) for c in sorted(shades)]
    if wrong:
        entries.append(("wrong", np.array([WRONG], np.uint8)))
    if ignored:
        entries.append(("ignored", None))
    return entries
