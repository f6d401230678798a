import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from segfolio.losses import ClassPresence

VOID = 255
TARGET = torch.tensor([[[0, 0], [2, VOID]], [[1, 1], [1, 1]], [[VOID, VOID], [VOID, VOID]]])


def test_it_is_the_cross_entropy_of_the_classes_that_occur() -> None:
    """The third image has no pixel that counts."""
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    present = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    loss = ClassPresence()(logits, TARGET, VOID)
    torch.testing.assert_close(loss, binary_cross_entropy(logits[:2].sigmoid(), present))
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[2] == 0).all()
    assert (logits.grad[:2] != 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_ignored_images_alone_give_zero_in_float32(dtype: torch.dtype) -> None:
    loss = ClassPresence()(torch.randn(1, 3).to(dtype), TARGET[2:], VOID)
    assert (loss.item(), loss.dtype) == (0, torch.float32)
