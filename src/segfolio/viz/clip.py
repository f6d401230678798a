"""A clip at a glance: frames from its first to its last, the truth above what was followed."""

from collections.abc import Sequence

import numpy as np

from segfolio.data.labels import LabelSpace
from segfolio.viz.overlay import Pixels, fit_map, rgb
from segfolio.viz.panel import enlarge, legend, tile_size
from segfolio.viz.regions import Regions, draw_regions
from segfolio.viz.sheet import compose
from segfolio.viz.views import View

FRAMES = 6
"""Of a clip are shown, at most."""


def shown_frames(frames: int) -> list[int]:
    """Evenly spaced ones of a clip, the first and the last among them."""
    return np.unique(np.linspace(0, frames - 1, FRAMES).round().astype(int)).tolist()


def clip_sheet(
    images: Sequence[Pixels],
    views: Sequence[View],
    headings: Sequence[str],
    labels: LabelSpace,
    title: str = "",
    max_width: int = 2000,
) -> Pixels:
    """A column of each frame: what the truth has, what was followed, and the frame's heading.

    Args:
        images: `[H, W, C]` RGB or grey, all of one size.
        views: of each, by numbers that stay with an object; without truth the upper row is the image as it is.

    Returns:
        `[h, w, 3]` RGB.
    """
    columns, (height, width) = len(images), images[0].shape[:2]
    type_size = min(max_width // (10 * columns + 1), 24)  # a heading is nine wide, as in `compose`
    room = (max_width - (columns + 1) * type_size) // columns
    size = tile_size((height, width), room, max_width // 2)
    above, below = list[Pixels](), list[Pixels]()
    for image, view in zip(images, views, strict=True):
        shown = enlarge(rgb(image), size)
        truth, found = (
            shown
            if regions is None
            else draw_regions(shown, Regions(fit_map(regions.ids, size)), view.colors, type_size)
            for regions in (view.truth, view.prediction)
        )
        above.append(truth)
        below.append(found)
    tiles = [*zip(headings, above, strict=True), *(("followed", each) for each in below)]
    return compose(tiles, columns, legend(views, labels, errors=False), title, type_size)
