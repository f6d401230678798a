"""Which masks prompts mean: overlapping and nested ones, and none."""

from typing import Any

import pytest
import torch
from torch import Tensor

from segfolio.layers.selection import by_box, by_points, candidates, greatest

ON, BESIDE, NOWHERE, PADDING = 1, 0, -1, -10


def masks(*places: str) -> Tensor:
    """`[1, K, N]`, in which of the masks a, b, c, d each point lies."""
    return torch.tensor([[[name in place for name in "abcd"] for place in places]]).bool().reshape(1, len(places), 4)


def names(chosen: Tensor) -> str:
    return "".join(name for name, one in zip("abcd", chosen.tolist(), strict=True) if one)


@pytest.mark.parametrize(
    ("places", "kinds", "expected"),
    [
        (["a"], [ON], "a"),
        (["ab"], [ON], "ab"),  # nested, or overlapping: merged
        (["a", "c"], [ON, ON], "ac"),  # two parts of an object
        (["abc", "b"], [ON, BESIDE], "ac"),  # the larger one is meant no more
        (["a", "a"], [ON, BESIDE], ""),
        ([""], [ON], ""),  # where no mask is
        (["a"], [BESIDE], ""),  # what is meant is not said
        (["a", "b"], [ON, PADDING], "a"),
        (["a", "b"], [NOWHERE, PADDING], ""),
        ([], [], ""),
    ],
)
def test_points_choose_the_masks_that_hold_one_on_the_object_and_none_beside(
    places: list[str], kinds: list[int], expected: str
) -> None:
    assert names(by_points(masks(*places), torch.tensor([kinds]).long().reshape(1, -1))[0]) == expected


BOXES = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 20, 20], [12, 12, 20, 20], [50, 50, 60, 60]]])


def boxed(box: list[float], places: Any = (), kinds: Any = (), there: str = "abcd") -> str:
    exist = torch.tensor([[name in there for name in "abcd"]])
    kind = torch.tensor([list(kinds)]).long().reshape(1, -1)
    return names(by_box(torch.tensor([box]), BOXES, masks(*places), kind, exist)[0])


def test_a_box_chooses_the_mask_whose_box_it_overlaps_most() -> None:
    assert boxed([1, 1, 11, 11]) == "a"  # 81 / 119, and of b 100 / 400
    assert boxed([1, 1, 19, 19]) == "b"
    assert boxed([1, 1, 11, 11], there="bcd") == "b"
    assert boxed([30, 30, 40, 40]) == ""
    assert boxed([torch.nan] * 4) == ""


def test_points_leave_a_box_the_masks_to_choose_from() -> None:
    assert boxed([1, 1, 11, 11], ["b"], [ON]) == "b"
    assert boxed([1, 1, 11, 11], ["ab"], [ON]) == "a"
    assert boxed([1, 1, 11, 11], ["a"], [BESIDE]) == "b"
    assert boxed([1, 1, 11, 11], ["", "a"], [ON, BESIDE]) == "b"  # no mask holds the point on the object
    assert boxed([1, 1, 11, 11], ["c"], [ON]) == ""  # what they leave, the box does not touch


def test_the_greatest_is_the_first_of_equals_and_above_zero() -> None:
    value = torch.tensor([[0.2, 0.7, 0.7, 0.9], [0.0, -1.0, torch.nan, 0.0], [torch.nan, 0.1, 0.0, 0.3]])
    among = torch.tensor([[True, True, True, False], [True] * 4, [True] * 4])
    assert [names(row) for row in greatest(value, among)] == ["b", "", "d"]


def test_candidates_are_those_that_score_most_each_by_itself() -> None:
    chosen = torch.tensor([[True, True, False, True], [False, False, True, False], [False] * 4])
    score = torch.tensor([[0.1, 0.3, 0.9, 0.2], [0.5, 0.5, 0.4, 0.5], [1.0] * 4])
    found = candidates(chosen, score, 3)
    assert [[names(row) for row in rows] for rows in found] == [["b", "d", "a"], ["c", "", ""], ["", "", ""]]
    assert [[names(row) for row in rows] for rows in candidates(chosen[:1], score[:1], 2)] == [["b", "d"]]


def test_of_fewer_masks_than_candidates_the_others_are_empty() -> None:
    found = candidates(torch.tensor([[True, True]]), torch.tensor([[0.1, 0.3]]), 3)
    assert found.tolist() == [[[False, True], [True, False], [False, False]]]


def test_no_prompts_choose_nothing() -> None:
    nothing = torch.zeros(0, 2, 4, dtype=torch.bool)
    kinds, score = torch.zeros(0, 2).long(), torch.zeros(0, 4)
    assert by_points(nothing, kinds).shape == (0, 4)
    assert by_box(torch.zeros(0, 4), torch.zeros(0, 4, 4), nothing, kinds, score > 0).shape == (0, 4)
    assert candidates(score > 0, score, 3).shape == (0, 3, 4)
