"""Pictures in a grid on white paper, with a title and a legend."""

import re

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segfolio.viz.overlay import Pixels, hatching

INK, FAINT, LINE, PAPER = (25, 25, 30), (110, 110, 118), (205, 205, 210), (255, 255, 255)

Tile = tuple[str, Pixels]
"""A heading, of one line or several, and a picture."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Entry = tuple[str, Pixels | None]
"""A name in the legend and its colours `[N, 3]`, None for the hatching of ignored pixels."""


def compose(tiles: list[Tile], columns: int, legend: list[Entry], title: str, size: int) -> Pixels:
    """Tiles of one size in a grid, the title above and the legend below. A title or a heading that is wider than its
    place goes on in further lines.

    Args:
        size: of the type in pixels; all distances follow from it.

    Returns:
        `[h, w, 3]` RGB.
    """
    font, big = ImageFont.load_default(size), ImageFont.load_default(round(size * 1.2))
    line, further = round(size * 1.7), round(size * 1.25)
    tile_height, tile_width = tiles[0][1].shape[:2]
    cell_width = max(tile_width, 9 * size)  # room for a heading above a narrow image
    headings = [[row for text in given.split("\n") for row in wrapped(text, font, cell_width)] for given, _ in tiles]
    head = line + further * (max(map(len, headings)) - 1)
    cell_height = head + tile_height + size // 2
    page_width = columns * (cell_width + size) + size
    titles = wrapped(title, big, page_width - 2 * size)
    places = _flow([round(font.getlength(name)) + 3 * size for name, _ in legend], size, page_width)

    top = size // 2 + (round(1.4 * line) if title else 0) + round(1.2 * further) * (len(titles) - 1)
    bottom = top + -(-len(tiles) // columns) * cell_height + size // 4
    rows = places[-1][1] + 1 if places else 0
    page = Image.new("RGB", (page_width, bottom + rows * line + size // 2), PAPER)
    draw = ImageDraw.Draw(page)
    for k, text in enumerate(titles):
        draw.text((size, line + k * round(1.2 * further)), text, INK, big, anchor="lm")
    for i, (heading, (_, tile)) in enumerate(zip(headings, tiles, strict=True)):
        x, y = size + i % columns * (cell_width + size), top + i // columns * cell_height
        for k, text in enumerate(heading):
            draw.text((x, y + line // 2 + k * further), text, FAINT, font, anchor="lm")
        page.paste(Image.fromarray(tile), (x, y + head))
    for (name, colors), (x, row) in zip(legend, places, strict=True):
        middle = bottom + row * line + line // 2
        page.paste(Image.fromarray(_swatch(colors, size)), (x, middle - size // 2))
        draw.rectangle((x, middle - size // 2, x + size - 1, middle - size // 2 + size - 1), outline=LINE)
        x += round(1.5 * size)
        draw.text((x, middle), _clip(name, font, page_width - x - size), INK, font, anchor="lm")
    return np.array(page)


def _swatch(colors: Pixels | None, size: int) -> Pixels:
    """`[size, size, 3]`, the colours as stripes."""
    if colors is None:
        return hatching(size, size)
    return np.tile(colors[np.arange(size) * len(colors) // size], (size, 1, 1))


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


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """The text in lines that are not wider than `width`, broken between words, and within one that is wider alone."""
    lines = [""]
    for word in re.findall(r"\s*\S+", text):
        if lines[-1] and font.getlength(lines[-1] + word) > width:
            lines.append("")
        for letter in word if lines[-1] else word.lstrip():
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _clip(text: str, font: Font, width: int) -> str:
    """The text, cut short where it is wider than `width`."""
    while len(text) > 2 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
