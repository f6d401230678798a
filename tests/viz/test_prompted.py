"""Pictures of clicks and of the masks that they led to."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from segfolio.data.formats import rle
from segfolio.data.labels import ANYTHING, LabelSpace
from segfolio.data.prompts import PADDING, Prompts
from segfolio.data.sample import Prediction, Prompted, Target
from segfolio.data.segments import Segments
from segfolio.viz.objects import object_colors
from segfolio.viz.prompted import Asked, overlay_prompts, prompted_panel
from segfolio.viz.views import stacked, views

LABELS = LabelSpace(("cell", "speck"), things=("cell", "speck"))
SIZE = (40, 60)
IMAGE = np.full((*SIZE, 3), 100, np.uint8)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


TRUTH = Segments(
    torch.from_numpy(np.stack([square(0, 50, 8), square(5, 5, 30), square(10, 10, 6)])),
    torch.tensor([0, 0, 1]),
    torch.tensor([True, False, False]),
)


def prompted(rounds: int = 3) -> Prompted:
    """The larger object is found by and by, the one on it at once; a click of each kind, one object has one alone."""
    large = [rle.encode(square(5, 5, side)[None])[0] for side in np.linspace(15, 30, rounds).astype(int)]
    small = rle.encode(square(10, 10, 6)[None]) * rounds
    of, points = torch.tensor([1, 2]), torch.full((2, rounds, 2), 20.5)
    points[:, 0], points[0, 1:2] = torch.tensor([[30.5, 30.5], [12.5, 12.5]]), torch.tensor([50.5, 5.5])
    kinds = torch.ones(2, rounds).long()
    kinds[0, 1:2], kinds[1, 1:] = 0, PADDING
    return Prompted([large, small], torch.zeros(2, rounds), of, Prompts(of, points, kinds))


def panel(found: Prompted, truth: Segments | None = TRUTH) -> np.ndarray:
    (view,) = views(Prediction("a", SIZE, prompted=found), Target(segments=truth), LABELS)
    return prompted_panel(IMAGE, found, view, truth, "title")


def test_the_smaller_of_two_masks_is_in_front_whatever_their_order() -> None:
    masks = np.stack([square(10, 10, 6), square(5, 5, 30)])
    ids = stacked(rle.encode(masks), SIZE)
    assert np.array_equal(ids, np.where(masks[0], 1, np.where(masks[1], 2, 0)))
    assert not stacked([], SIZE).any()


def test_the_view_has_the_masks_of_the_last_round_and_the_objects_that_were_asked_for_in_one_colour_each() -> None:
    (view,) = views(Prediction("a", SIZE, prompted=prompted()), Target(segments=TRUTH), LABELS)
    assert view.name == "prompted"
    assert np.array_equal(view.prediction.ids, view.truth.ids)
    assert np.unique(view.truth.ids).tolist() == [0, 1, 2]  # the crowd was not
    assert view.classes == [0, 1]
    assert not view.errors()[0].any()


def color(picture: np.ndarray, *rgb: int) -> int:
    return int((picture == rgb).all(-1).sum())


def test_clicks_are_marked_by_kind_and_the_masks_are_of_the_first_round_and_the_last() -> None:
    picture = panel(prompted())
    assert color(picture, 70, 230, 100) > color(panel(prompted(2)), 70, 230, 100) == 0
    assert color(picture, 250, 60, 70) > 0
    once = panel(prompted(1))
    assert color(once, 250, 60, 70) == color(once, 70, 230, 100) == 0
    assert once.shape[0] < picture.shape[0]  # one row of tiles less


def test_at_most_five_clicks_of_an_object_are_marked() -> None:
    five, many = prompted(5), prompted(9)
    many.clicks.points[0, 5:] = torch.tensor([3.5, 33.5])
    (view,) = views(Prediction("a", SIZE, prompted=many), Target(segments=TRUTH), LABELS)
    assert color(prompted_panel(IMAGE, many, view, TRUTH, "title"), 70, 230, 100) == color(panel(five), 70, 230, 100)


@pytest.mark.parametrize("rounds", [1, 3])
def test_without_a_truth_or_without_clicks_there_are_fewer_tiles(rounds: int) -> None:
    found = replace(prompted(rounds), of=torch.full((2,), -1))
    assert panel(found, None).shape[1] != panel(prompted(rounds)).shape[1] or rounds == 3
    boxes = replace(prompted(rounds), clicks=None)
    assert color(panel(boxes), 255, 255, 255) != color(panel(prompted(rounds)), 255, 255, 255)
    assert color(panel(boxes), 250, 60, 70) == 0


def test_an_image_without_objects_is_drawn_too() -> None:
    of = torch.zeros(0).long()
    empty = Prompted([], torch.zeros(0, 3), of, Prompts(of, torch.zeros(0, 3, 2), torch.zeros(0, 3).long()))
    assert panel(empty).ndim == 3


def test_objects_that_were_asked_for_are_painted_at_their_places_with_clicks_and_boxes() -> None:
    masks = rle.encode(np.stack([square(20, 5, 15), square(20, 30, 15)]))
    objects = [Asked(masks[0], 0.9, [(12.5, 27.5, 1), (25.5, 27.5, 0)]), Asked(masks[1], 0.5, box=(28, 18, 47, 37))]
    page = overlay_prompts(IMAGE, objects)
    scale = 800 // 60
    assert page.shape == (40 * scale, 60 * scale, 3)
    first, second = object_colors([0, 0], ANYTHING).astype(int)

    def color(x: float, y: float) -> np.ndarray:
        return page[int(y * scale), int(x * scale)].astype(int)

    for (x, y), own in (((8, 30), first), ((40, 30), second)):
        assert abs(color(x, y) - (own + 100) / 2).max() <= 1
    assert (color(50, 10) == 100).all()
    assert (color(12.5, 27.5) == (70, 230, 100)).all()  # the plus
    assert (color(25.5, 27.5) == (250, 60, 70)).all()  # the cross
    assert (page[18 * scale, 38 * scale] == second).all()  # the upper side of the box
    words = page[: 20 * scale - 4]
    assert (words[:, : 28 * scale] == 255).all(-1).any()
    assert (words[:, 28 * scale :] == 255).all(-1).any()


def test_a_mask_of_nothing_and_a_box_of_a_pixel_at_the_border_are_drawn() -> None:
    nothing = rle.encode(np.zeros((1, *SIZE), np.bool_))[0]
    page = overlay_prompts(IMAGE, [Asked(nothing, 0.1, [(0.5, 0.5, 1)]), Asked(nothing, 0.2, box=(59, 39, 60, 40))])
    assert page.shape == (520, 780, 3)
    assert (page != 100).any()
