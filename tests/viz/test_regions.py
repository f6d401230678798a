"""Words on regions."""

import numpy as np

from segfolio.viz.overlay import paint
from segfolio.viz.regions import Regions, draw_regions

GREEN = np.array([[0, 90, 0]], np.uint8)


def written(ids: np.ndarray, *captions: str, number: int = 1) -> np.ndarray:
    """Where the captions changed the picture, `[H, W]`."""
    image = np.full((*ids.shape, 3), 60, np.uint8)
    colors = np.repeat(GREEN, int(ids.max()), 0)
    drawn = draw_regions(image, Regions(ids, {number: captions}), colors, type_size=14)
    return (drawn != paint(image, ids, colors, contours=2)).any(-1)


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    ids = np.zeros((120, 300), np.int32)
    ids[top:bottom, left:right] = 1
    return ids


def test_the_longest_caption_that_fits_is_written_in_the_middle_of_the_region():
    long, short = (written(box(20, 100, 60, right), "triangle 0.93", "0.93") for right in (240, 145))
    for words, right in ((long, 240), (short, 145)):
        rows, columns = np.nonzero(words)
        assert abs(rows.mean() - 40) < 3
        assert columns.min() >= 96
        assert columns.max() <= right + 4
    assert np.ptp(np.nonzero(long)[1]) > 2 * np.ptp(np.nonzero(short)[1])


def test_a_region_without_room_gets_no_words():
    assert not written(box(20, 100, 60, 112), "triangle 0.93", "0.93").any()
    assert not written(box(20, 100, 24, 290), "0.93").any()


def test_words_stay_inside_the_image_and_off_the_words_of_larger_regions():
    assert np.nonzero(written(box(50, 250, 80, 300), "0.93"))[1].max() < 299
    ids = box(20, 100, 60, 200)
    ids[36:44, 130:170] = 2  # its place is where the words of the other would be
    image, colors = np.zeros((120, 300, 3), np.uint8), np.repeat(GREEN, 2, 0)
    one, both = ({1: ("first",)}, {1: ("first",), 2: ("2",)})
    alone, together = (draw_regions(image, Regions(ids, c), colors, type_size=40) for c in (one, both))
    assert np.array_equal(alone, together)


def test_a_region_hidden_by_others_gets_no_words():
    assert not written(box(20, 100, 60, 200), "hidden", number=3).any()
