"""Sheets of pictures: titles and headings that are wider than their place."""

import numpy as np
import pytest
from PIL import ImageFont

from segfolio.viz.sheet import compose, wrapped

TITLE = "effective receptive fields of 12 images, 512 x 512 pixels; brightness is the square root"
BLACK = np.zeros((320, 320, 3), np.uint8)


@pytest.mark.parametrize("width", [60, 320, 5000])
@pytest.mark.parametrize("text", [TITLE, "prediction  as it is", "w" * 90, ""])
def test_lines_hold_all_of_the_text_and_are_no_wider_than_their_place(text: str, width: int) -> None:
    font = ImageFont.load_default(16)
    lines = wrapped(text, font, width)
    assert all(font.getlength(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_lines_are_broken_between_words_and_are_full() -> None:
    font = ImageFont.load_default(16)
    lines = wrapped(TITLE, font, 320)
    assert " ".join(lines) == TITLE
    assert font.getlength(f"{lines[0]} {lines[1].split()[0]}") > 320


@pytest.mark.parametrize(("heading", "title", "further"), [("a", TITLE, 24), (TITLE, "a", 20)])
def test_a_sheet_is_as_much_higher_as_there_are_further_lines(heading: str, title: str, further: int) -> None:
    low, high = (compose([(head, BLACK)], 1, [], over, 16) for head, over in (("a", "a"), (heading, title)))
    lines = wrapped(TITLE, ImageFont.load_default(19 if title is TITLE else 16), 320)
    assert high.shape[0] - low.shape[0] == further * (len(lines) - 1) > 0
    tops = [np.flatnonzero((sheet == 0).all(-1).any(1))[0] for sheet in (low, high)]  # of the picture
    assert tops[1] - tops[0] == further * (len(lines) - 1)
