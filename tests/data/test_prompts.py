"""Prompts: what fits an image, and many images' prompts in one."""

import pickle
from typing import Any

import pytest
import torch

from segfolio.data.prompts import NO_POINT, NOT_OBJECT, OBJECT, PADDING, Prompts, join
from segfolio.errors import SegfolioError

SIZE = (30, 40)


def prompts(**changes: Any) -> Prompts:
    """Two prompts, each of two points, a box, a mask and a word."""
    content = {
        "of": torch.tensor([0, 3]),
        "points": torch.tensor([[[0.0, 0.0], [39.5, 29.5]], [[5.0, 6.0], [-1.0, 99.0]]]),
        "kinds": torch.tensor([[OBJECT, NOT_OBJECT], [OBJECT, NO_POINT]]),
        "boxes": torch.tensor([[1.0, 2.0, 11.0, 12.0], [torch.nan] * 4]),
        "masks": torch.zeros(2, *SIZE),
        "texts": ["cat", ""],
    }
    return Prompts(**{**content, **changes})


def test_prompts_inside_the_image_fit() -> None:
    prompts().check(SIZE, "a")
    prompts(masks=torch.zeros(2, 8, 10)).check(SIZE, "a", mask_size=(8, 10))
    Prompts(torch.tensor([0])).check(SIZE, "a")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"points": torch.tensor([[[0, 0], [40.0, 1]]] * 2)}, "a click is at x 40, y 1, outside the image of 40x30"),
        ({"points": torch.full((2, 2, 2), -0.5)}, "a click is at x -0.5, y -0.5, outside"),
        ({"points": torch.full((2, 2, 2), torch.nan)}, "a click is at x nan, y nan, outside"),
        ({"boxes": torch.tensor([[1.0, 2, 3, 4], [5, 6, 5, 9]])}, "a box is 5, 6, 5, 9; expected left, top, right"),
        ({"boxes": torch.tensor([[1.0, 8, 3, 4], [5, 6, 7, 9]])}, "a box is 1, 8, 3, 4; expected left, top, right"),
        ({"kinds": torch.tensor([[1, 0], [1, 2]])}, r"a point is of kind 2, expected 1 .*, 0 .*, -1 .* or -10 \(pad"),
        ({"kinds": torch.ones(2, 3)}, r"points are \[2, 2, 2\] and kinds \[2, 3\], expected"),
        ({"points": None}, r"points are None and kinds \[2, 2\], expected"),
        ({"masks": torch.zeros(2, 40, 30)}, "a prompt mask is 30x40 pixels, expected 40x30"),
        ({"texts": ["cat"]}, "2 prompts have 1 texts, expected as many"),
    ],
)
def test_one_that_does_not_fit_is_told_in_a_sentence(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(SegfolioError, match=f"^img 7: {says}") as refusal:
        prompts(**wrong).check(SIZE, "img 7")
    assert "\n" not in str(refusal.value)


def test_prompts_of_several_images_are_joined_and_padded() -> None:
    one = Prompts(torch.tensor([4]), torch.tensor([[[7.0, 8.0]]]), torch.tensor([[OBJECT]]))
    none = Prompts(torch.zeros(0, dtype=torch.int64))
    joined, image = join([one, none, prompts(masks=None)])
    assert image.tolist() == [0, 2, 2]
    assert joined.of.tolist() == [4, 0, 3]
    assert joined.kinds is not None
    assert joined.kinds.tolist() == [[OBJECT, PADDING], [OBJECT, NOT_OBJECT], [OBJECT, NO_POINT]]
    assert joined.points is not None
    assert joined.points[:, 0].tolist() == [[7, 8], [0, 0], [5, 6]]
    assert joined.boxes is not None
    assert joined.boxes.isnan().all(1).tolist() == [True, False, True]
    assert joined.texts == ["", "cat", ""]
    assert joined.masks is None
    joined.check(SIZE, "all")


def test_words_alone_stay_words_alone() -> None:
    joined, _ = join([Prompts(torch.tensor([-1]), texts=["a"]), Prompts(torch.tensor([-1]), texts=["b"])])
    assert joined.texts == ["a", "b"]
    assert joined.points is joined.kinds is joined.boxes is joined.masks is None


def test_masks_are_joined_where_all_have_them() -> None:
    joined, _ = join([prompts(), prompts()])
    assert joined.masks is not None
    assert joined.masks.shape == (4, *SIZE)
    with pytest.raises(ValueError, match="some images have mask prompts"):
        join([prompts(), prompts(masks=None)])


def test_prompts_travel_to_workers() -> None:
    there = pickle.loads(pickle.dumps(prompts()))
    assert torch.equal(there.points, prompts().points)
    assert there.texts == ["cat", ""]
