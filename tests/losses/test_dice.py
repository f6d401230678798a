import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor

from segfolio.losses import Dice

VOID = 255


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_equals_smp_where_every_class_occurs(smooth: float, logits: Tensor, target: Tensor) -> None:
    """Its `smooth` is added to the overlap before that is doubled."""
    theirs = DiceLoss("multiclass", smooth=smooth / 2, ignore_index=VOID)(logits, target)
    torch.testing.assert_close(Dice(smooth)(logits, target, VOID), theirs, rtol=1e-6, atol=1e-6)


def test_a_class_that_does_not_occur_is_no_part_of_the_mean(logits: Tensor, target: Tensor) -> None:
    """smp counts such a class 0 but divides by all three."""
    target[target == 2] = 1
    theirs = DiceLoss("multiclass", smooth=0.5, ignore_index=VOID)(logits, target)
    torch.testing.assert_close(Dice()(logits, target, VOID), theirs * 3 / 2, rtol=1e-6, atol=1e-6)


def test_two_pixels_by_hand() -> None:
    """p(class 1) is 0.25 where the truth is 0, and 0.75 where it is 1."""
    logits = torch.tensor([[[[3.0, 1.0]], [[1.0, 3.0]]]]).log()
    target = torch.tensor([[[0, 1]]])
    assert Dice(smooth=1.0)(logits, target, VOID).item() == pytest.approx(1 - (2 * 0.75 + 1) / (1 + 1 + 1))
    weight = torch.tensor([[[1.0, 2.0]]])
    weighted = [(2 * 0.75 + 1) / (0.75 + 0.5 + 1 + 1), (2 * 1.5 + 1) / (0.25 + 1.5 + 2 + 1)]
    assert Dice(smooth=1.0)(logits, target, VOID, weight).item() == pytest.approx(1 - sum(weighted) / 2)


def test_per_image_is_the_mean_over_pairs_of_image_and_class(logits: Tensor, target: Tensor) -> None:
    target[1][target[1] == 2] = 1
    first, second = (Dice()(logits[i : i + 1], target[i : i + 1], VOID) for i in range(2))
    torch.testing.assert_close(Dice(per_image=True)(logits, target, VOID), (3 * first + 2 * second) / 5)


def test_perfect_prediction_costs_nothing_and_an_inverted_one_the_whole(target: Tensor) -> None:
    target = target.where(target != VOID, 0)
    truth = 50 * torch.nn.functional.one_hot(target, 3).permute(0, 3, 1, 2).float()
    assert Dice(smooth=0.0)(truth, target, VOID) == pytest.approx(0, abs=1e-6)
    assert Dice(smooth=0.0)(truth, (target + 1) % 3, VOID) == pytest.approx(1, abs=1e-6)
