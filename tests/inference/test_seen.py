"""Windows, and what comes to the host."""

import numpy as np
import pytest
import torch

from segfolio.inference.seen import best_window, on_host, runs, windows


def test_windows_overlap_by_half_and_the_last_end_with_the_image() -> None:
    assert windows((100, 140), 64).tolist() == [[y, x] for y in (0, 32, 36) for x in (0, 32, 64, 76)]
    assert windows((40, 64), 64).tolist() == [[0, 0]]
    assert windows((3, 1), 1).tolist() == [[0, 0], [1, 0], [2, 0]]


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((2, 2, 10, 10), (0, 0)),
        ((46, 46, 8, 8), (32, 32)),  # wholly in four windows, and nearest to the middle of this one
        ((60, 10, 20, 20), (0, 32)),
        ((0, 0, 140, 100), (32, 32)),  # as much of it is in every window
        ((130, 90, 9, 9), (36, 76)),
    ],
)
def test_an_object_is_seen_where_most_of_its_box_is_and_most_in_the_middle(box, window) -> None:
    assert best_window(windows((100, 140), 64), np.array(box, np.float64), 64) == window


def test_tensors_of_any_kind_come_by_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    given = (torch.tensor([3, -1]), torch.tensor([[0.5], [2.5]]), torch.eye(3) > 0, torch.zeros(0, 4).bool())
    copies, to_host = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(1) or to_host(self))
    for found, expected in zip(on_host(*given), given, strict=True):
        np.testing.assert_array_equal(found, expected.numpy(), strict=True)
    assert len(copies) == 1


def test_runs_are_of_equal_values_in_a_row() -> None:
    assert list(runs([4, 4, 7, 1, 1, 1])) == [(4, 0, 2), (7, 2, 3), (1, 3, 6)]
    assert list(runs([])) == []
