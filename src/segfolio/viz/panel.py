"""One picture that says what a model made of an image: image, truth, prediction, errors and a legend."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segfolio.data.labels import Color, LabelSpace
from segfolio.viz.overlay import WRONG, Indices, Pixels, error_map, fit, fit_map, hatching, overlay, rgb

INK, FAINT, LINE, PAPER = (25, 25, 30), (110, 110, 118), (205, 205, 210), (255, 255, 255)
TILE = 320
"""An image is enlarged by a whole factor while it stays within this width and twice this height."""

Entry = tuple[str, Color | None]
"""A name in the legend and its colour, None for the hatching of ignored pixels."""


def panel(
    image: Pixels,
    truth: Indices | None,
    prediction: Indices,
    labels: LabelSpace,
    title: str = "",
    max_width: int = 2000,
) -> Pixels:
    """Image, truth, prediction and errors side by side, and below them the classes that occur.

    Four views of an image at least twice as wide as high stand in two rows. Small images are enlarged
    without smoothing, large ones reduced so that the panel is no wider than `max_width` pixels.

    Args:
        image: `[H, W, C]` RGB or grey.
        truth: `[H, W]` class indices or `ignore_index`; None shows image and prediction alone.
        prediction: `[H, W]` class indices.

    Returns:
        `[h, w, 3]` RGB.
    """
    height, width = image.shape[:2]
    columns = 2 if truth is None or width >= 2 * height else 4
    type_size = min(max(min(max_width, columns * width) // 75, 14), 24)  # all distances follow from it
    room = (max_width - (columns + 1) * type_size) // columns
    limit = min(room / width, max_width / height / 2)
    scale = limit if limit < 1 else max(1, int(min(limit, TILE / width, 2 * TILE / height)))
    size = max(1, round(width * scale)), max(1, round(height * scale))

    shown = fit(rgb(image), size) if scale <= 1 else cv2.resize(rgb(image), size, interpolation=cv2.INTER_NEAREST)
    guess = fit_map(prediction, size)
    tiles = [("image", shown), ("prediction", overlay(shown, guess, labels))]
    if truth is not None:
        known = truth != labels.ignore_index
        wrong = (prediction != truth)[known].mean() if known.any() else 0.0
        right = fit_map(truth, size)
        tiles.insert(1, ("truth", overlay(shown, right, labels)))
        tiles.append((f"errors  {wrong:.1%}", error_map(shown, guess, right, labels)))
    return _compose(tiles, columns, _legend(truth, prediction, labels), title, type_size)


def _legend(truth: Indices | None, prediction: Indices, labels: LabelSpace) -> list[Entry]:
    maps = [prediction] if truth is None else [prediction, truth]
    present = np.unique(np.concatenate([np.unique(m) for m in maps])).tolist()
    entries: list[Entry] = [(labels.names[i], labels.palette[i]) for i in present if i < labels.num_classes]
    if truth is not None and np.any((truth != prediction) & (truth != labels.ignore_index)):
        entries.append(("wrong", WRONG))
    if labels.ignore_index in present:
        entries.append(("ignored", None))
    return entries


def _compose(tiles: list[tuple[str, Pixels]], columns: int, legend: list[Entry], title: str, size: int) -> Pixels:
    """Set the tiles in a grid on white paper, the title above and the legend below; `size` is the type's."""
    font, big = ImageFont.load_default(size), ImageFont.load_default(round(size * 1.2))
    line = round(size * 1.7)
    tile_height, tile_width = tiles[0][1].shape[:2]
    cell_width = max(tile_width, 9 * size)  # room for a heading above a narrow image
    cell_height = line + tile_height + size // 2
    page_width = columns * (cell_width + size) + size
    places = _flow([round(font.getlength(name)) + 3 * size for name, _ in legend], size, page_width)

    top = size // 2 + (round(1.4 * line) if title else 0)
    bottom = top + len(tiles) // columns * cell_height + size // 4
    page = Image.new("RGB", (page_width, bottom + (places[-1][1] + 1) * line + size // 2), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((size, line), _clip(title, big, page_width - 2 * size), INK, big, anchor="lm")
    for i, (heading, tile) in enumerate(tiles):
        x, y = size + i % columns * (cell_width + size), top + i // columns * cell_height
        draw.text((x, y + line // 2), heading, FAINT, font, anchor="lm")
        page.paste(Image.fromarray(tile), (x, y + line))
    for (name, color), (x, row) in zip(legend, places, strict=True):
        middle = bottom + row * line + line // 2
        swatch = hatching(size, size) if color is None else np.full((size, size, 3), color, np.uint8)
        page.paste(Image.fromarray(swatch), (x, middle - size // 2))
        draw.rectangle((x, middle - size // 2, x + size - 1, middle - size // 2 + size - 1), outline=LINE)
        x += round(1.5 * size)
        draw.text((x, middle), _clip(name, font, page_width - x - size), INK, font, anchor="lm")
    return np.array(page)


def _flow(widths: list[int], left: int, right: int) -> list[tuple[int, int]]:
    """Left edge and row of entries set one after the other, in columns where they fill more than a row."""
    if left + sum(widths) > right:
        widths = [max(widths)] * len(widths)
    places, x, row = [], left, 0
    for width in widths:
        if x > left and x + width > right:
            x, row = left, row + 1
        places.append((x, row))
        x += width
    return places


def _clip(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, cut short where it is wider than `width`."""
    while len(text) > 2 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
