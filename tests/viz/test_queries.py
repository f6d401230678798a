"""Which query took what."""

import re

import numpy as np
import pytest
import torch

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Queries
from segfolio.viz import queries as module
from segfolio.viz.overlay import IGNORED
from segfolio.viz.queries import best_match, query_sheet
from segfolio.viz.regions import Regions
from segfolio.viz.views import View

LABELS = LabelSpace(("car", "sky"), things=("car",))
COLORS = np.array([[200, 0, 0], [0, 0, 200]], np.uint8)
GREY = 80


def scene() -> tuple[np.ndarray, View]:
    """Two regions of 16 x 16 in an image of 32 x 32."""
    ids = np.zeros((32, 32), np.int32)
    ids[:16, :16], ids[16:, 16:] = 1, 2
    return np.full((32, 32, 3), GREY, np.uint8), View("panoptic", Regions(ids), Regions(ids), [0, 1], COLORS)


def of(classes: list[int], quarters: list[tuple[int, int]], strength: float = 20.0) -> Queries:
    """One query per entry, certain of its class (2: none) and of one quarter of the image, `[Q, 8, 8]`."""
    masks = torch.full((len(classes), 8, 8), -strength)
    for mask, (y, x) in zip(masks, quarters, strict=True):
        mask[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = strength
    return Queries(10 * torch.nn.functional.one_hot(torch.tensor(classes), 3).float(), masks)


@pytest.fixture
def headings(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The tiles of the last sheet by their headings."""
    found: dict[str, np.ndarray] = {}

    def compose(tiles, *arguments):
        found.update(tiles)
        return original(tiles, *arguments)

    original = module.compose
    monkeypatch.setattr(module, "compose", compose)
    return found


def test_each_confident_query_is_shown_with_its_class_and_what_it_took(headings):
    image, view = scene()
    query_sheet(image, of([0, 2, 1, 0], [(1, 1), (0, 0), (0, 0), (0, 1)]), view, LABELS)
    texts = list(headings)
    assert texts[:2] == ["truth", "3 of 4 queries score 0.5 or more"]
    assert sorted(re.sub(r"\d\.\d\d(?=\n)", "", text) for text in texts[2:]) == [
        "query 0  car \ntook 2 sky  IoU 1.00",
        "query 2  sky \ntook 1 car  IoU 1.00",
        "query 3  car \ntook nothing",
    ]


def test_a_mask_lies_on_the_image_in_the_colour_of_what_it_took(headings):
    image, view = scene()
    query_sheet(image, of([0], [(1, 1)]), view, LABELS)
    (tile,) = (tile for text, tile in headings.items() if text.startswith("query 0"))
    side = len(tile)
    assert side % 32 == 0
    blue = tile[..., 2].astype(int) - tile[..., 0]
    inside = np.zeros((side, side), bool)
    inside[side // 2 :, side // 2 :] = True
    margin = side // 16  # where the mask's edge is interpolated
    outline = (tile == 255).all(-1)
    assert (blue[side // 2 + margin :, side // 2 + margin :] > 100).mean() > 0.95
    assert (blue[: side // 2 - margin] == 0).all()
    assert outline[side // 2 + 5, side // 2]
    assert not outline[~inside].any()


def test_queries_below_the_score_are_not_shown_and_of_many_the_best(headings):
    image, view = scene()
    many = of([0] * 30, [(0, 0)] * 30)
    many.class_logits[:, 0] = torch.arange(30) / 2
    query_sheet(image, many, view, LABELS)
    shown = [int(re.findall(r"query (\d+) ", text)[0]) for text in headings if text.startswith("query")]
    assert shown == list(range(29, 11, -1))
    confident = int((many.class_logits.softmax(-1)[:, 0] >= 0.5).sum())
    assert f"{confident} of 30 queries score 0.5 or more\nthe best 18 are shown" in headings


def test_a_sheet_without_a_confident_query(headings):
    image, view = scene()
    sheet = query_sheet(image, of([2, 2], [(0, 0), (1, 1)]), view, LABELS, max_width=900)
    assert list(headings) == ["truth", "0 of 2 queries score 0.5 or more"]
    assert sheet.shape[1] <= 900


@pytest.mark.parametrize("size", [(32, 32), (20, 700), (900, 300)])
def test_a_sheet_is_no_wider_than_asked(size):
    image, regions = np.zeros((*size, 3), np.uint8), Regions(np.ones(size, np.int32))
    view = View("panoptic", regions, regions, [0], COLORS[:1])
    assert query_sheet(image, of([0] * 9, [(0, 0)] * 9), view, LABELS, max_width=1000).shape[1] <= 1000


def test_the_best_match_is_the_largest_iou_of_what_counts():
    regions = np.zeros((10, 10), int)
    regions[:5], regions[5:, :5], regions[9] = 1, 2, IGNORED
    mask = np.zeros((10, 10), bool)
    mask[3:, :5] = True
    number, iou = best_match(mask, regions)
    assert (number, iou) == (2, pytest.approx(20 / 30))  # 2 rows of 5 in region 1, the last row does not count
    mask[:] = False
    mask[0, :4] = True
    assert best_match(mask, regions) == (0, 0.0)  # 4 / 50
    assert best_match(mask, np.zeros_like(regions)) == (0, 0.0)
