import pytest
import torch
from torch import Tensor

from segfolio.losses import CrossEntropy, Focal

VOID = 255
CLASS_WEIGHT = [0.5, 1.0, 3.0]


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_equals_the_formula(gamma: float, logits: Tensor, target: Tensor, weight: Tensor) -> None:
    """Eq. 5, in float64, over the pixels that are not ignored."""
    valid = target != VOID
    log_p = logits.double().log_softmax(1).permute(0, 2, 3, 1)[valid].gather(1, target[valid][:, None])[:, 0]
    alpha = torch.tensor(CLASS_WEIGHT)[target[valid]]
    expected = -(weight[valid] * alpha * (1 - log_p.exp()) ** gamma * log_p).mean().float()
    ours = Focal(gamma, CLASS_WEIGHT)(logits, target, VOID, weight)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_gamma_zero_is_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> None:
    expected = CrossEntropy(CLASS_WEIGHT)(logits, target, VOID, weight)
    torch.testing.assert_close(Focal(0.0, CLASS_WEIGHT)(logits, target, VOID, weight), expected)


def test_an_easy_pixel_counts_a_hundredth_at_gamma_two() -> None:
    """Section 3.2: at p = 0.9 the loss is 100 times lower than cross-entropy."""
    logits = torch.tensor([0.9, 0.1]).log().view(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    ratio = CrossEntropy()(logits, target, VOID) / Focal()(logits, target, VOID)
    assert ratio.item() == pytest.approx(100, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
def test_gradients_are_finite_where_the_network_is_certain(gamma: float) -> None:
    logits = torch.tensor([1e4, 0.0]).view(1, 2, 1, 1).repeat(2, 1, 1, 1).requires_grad_()
    Focal(gamma)(logits, torch.tensor([0, 1]).view(2, 1, 1), VOID).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[0] == 0).all()
    assert logits.grad[1].flatten().tolist() == pytest.approx([0.5, -0.5])
