"""Objects over the image, each in a colour of its own."""

import colorsys
from collections.abc import Sequence

import numpy as np

from segfolio.data.labels import LabelSpace
from segfolio.viz.overlay import Indices, Pixels, paint


def overlay_objects(
    image: Pixels, ids: Indices, classes: Sequence[int], labels: LabelSpace, alpha: float = 0.45
) -> Pixels:
    """Objects filled and outlined; what belongs to none is the image as it is.

    Args:
        image: `[H, W, C]` RGB or grey.
        ids: `[H, W]`, 1 to N, 0 where there is no object.
        classes: of the N objects, class indices.
        alpha: opacity of the fill, 1 hides the image.

    Returns:
        `[H, W, 3]`.
    """
    return paint(image, ids, object_colors(classes, labels), alpha)


def object_colors(classes: Sequence[int], labels: LabelSpace) -> Pixels:
    """`[N, 3]`: stuff in the colour of its class; things near it in hue, or of any hue if of one class."""
    spread = 0.07 if len(labels.things) > 1 else 0.5
    colors = np.zeros((len(classes), 3), np.uint8)
    for place, index in enumerate(classes):
        hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in labels.palette[index]))
        if labels.is_thing[index]:
            turn = place * 0.61803398875 % 1 - 0.5
            hue, saturation = hue + 2 * spread * turn, max(saturation, 0.55)
            value = min(1.0, max(value, 0.6) * (0.85 + 0.3 * (place * 0.7548776662 % 1)))
        colors[place] = [round(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, saturation, value)]
    return colors
