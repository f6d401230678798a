"""Tiles: what is made of them, and where sums may lie."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segfolio.inference.tiles import Store, argmax, collect, probabilities, resized, zeros


def maps(classes: int = 7) -> Tensor:
    return torch.randn(classes, 9, 13, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("budget", [1, 5_000, 2**25])
def test_resized_is_the_interpolation_of_the_whole(budget: int) -> None:
    expected = interpolate(maps()[None], (50, 31), mode="bilinear")[0]
    torch.testing.assert_close(collect(resized(maps(), (50, 31), budget), (50, 31)), expected)
    assert collect(resized(maps(), (9, 13), budget), (9, 13)).equal(maps())


@pytest.mark.parametrize(("classes", "dtype"), [(256, torch.uint8), (257, torch.int16)])
def test_argmax_of_tiles_is_that_of_the_whole(classes: int, dtype: torch.dtype) -> None:
    found = argmax(resized(maps(classes), (40, 30), 10_000), (40, 30))
    assert found.dtype == dtype
    assert torch.equal(found.long(), collect(resized(maps(classes), (40, 30)), (40, 30)).argmax(0))


def test_probabilities_are_those_after_resizing() -> None:
    found = collect(probabilities(resized(maps(), (20, 20), 1), logits=True), (20, 20))
    torch.testing.assert_close(found, interpolate(maps()[None], (20, 20), mode="bilinear")[0].softmax(0))
    assert collect(probabilities(resized(maps(), (9, 13)), logits=False), (9, 13)).equal(maps())


@pytest.mark.parametrize("store", ["device", "cpu", "disk"])
def test_sums_lie_where_they_are_told_to_and_leave_no_file(
    store: Store, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = zeros((3, 4, 5), torch.device("cpu"), store)
    assert (found.shape, found.dtype, found.abs().max()) == ((3, 4, 5), torch.float32, 0)
    found += 1
    assert found.sum() == 60
    assert not list(tmp_path.iterdir())
