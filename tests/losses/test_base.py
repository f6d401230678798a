"""What every loss promises, and what the weights of classes and pixels mean."""

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from segfolio.errors import SegfolioError
from segfolio.losses import OHEM, CrossEntropy, Dice, Focal, HardestPixels, Loss
from segfolio.speed.measure import peak_bytes

VOID = 255
CLASS_WEIGHT = [0.5, 1.0, 3.0]
LOSSES = {
    "cross_entropy": CrossEntropy(),
    "cross_entropy_all": CrossEntropy(CLASS_WEIGHT, label_smoothing=0.1),
    "cross_entropy_sum": CrossEntropy(reduction="sum"),
    "dice": Dice(),
    "dice_per_image": Dice(smooth=0.0, per_image=True),
    "focal": Focal(),
    "focal_all": Focal(gamma=0.5, alpha=CLASS_WEIGHT),
    "ohem": OHEM(threshold=1.0),  # so that all pixels count
    "hardest_pixels": HardestPixels(1.0),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def value_and_gradient(
    loss: Loss, logits: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, target, VOID, weight)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


@every_loss
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("extreme", [-3e38, -6e4, 0.0, 6e4, 3e38])
def test_ignored_pixels_change_neither_value_nor_gradient(
    loss: Loss, weighted: bool, extreme: float, logits: Tensor, target: Tensor, weight: Tensor
) -> None:
    ignored = (target == VOID)[:, None].expand_as(logits)
    factor = weight if weighted else None
    value, gradient = value_and_gradient(loss, logits, target, factor)
    changed = logits.clone()
    changed[ignored] = extreme * torch.linspace(-1, 1, int(ignored.sum()))
    new_value, new_gradient = value_and_gradient(loss, changed, target, factor)
    assert torch.equal(new_value, value)
    assert torch.equal(new_gradient, gradient)
    assert (gradient[ignored] == 0).all()
    assert (gradient[~ignored] != 0).all()


@every_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_of_ignored_pixels_gives_zero_and_zero_gradients(
    loss: Loss, weighted: bool, logits: Tensor, target: Tensor, weight: Tensor
) -> None:
    value, gradient = value_and_gradient(loss, logits, torch.full_like(target, VOID), weight if weighted else None)
    assert value == 0
    assert (gradient == 0).all()


@every_loss
def test_an_image_of_ignored_pixels_changes_nothing(loss: Loss, logits: Tensor, target: Tensor) -> None:
    with_void = torch.cat([target, torch.full_like(target[:1], VOID)])
    more_logits = torch.cat([logits, logits[:1]])
    images = len(target) / len(with_void) if getattr(loss, "reduction", "") == "sum" else 1  # a mean over images
    torch.testing.assert_close(loss(more_logits, with_void, VOID), loss(logits, target, VOID) * images)


@every_loss
@pytest.mark.parametrize("size", [(3, 4), (16, 5)])
def test_logits_of_another_size_are_resized(
    loss: Loss, size: tuple[int, int], target: Tensor, weight: Tensor, generator: Generator
) -> None:
    logits = 3 * torch.randn(2, 3, *size, generator=generator)
    given = logits.clone().requires_grad_()
    large = interpolate(given, target.shape[1:], mode="bilinear", align_corners=False)
    expected = loss(large, target, VOID, weight)
    expected.backward()
    value, gradient = value_and_gradient(loss, logits, target, weight)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, given.grad)


def test_resizing_does_not_align_corners() -> None:
    logits = torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]]]])
    large = torch.tensor([[[[0.0, 0.25, 0.75, 1.0]], [[0.0] * 4]]])
    target = torch.tensor([[[0, 1, 0, 1]]])
    torch.testing.assert_close(CrossEntropy()(logits, target, VOID), CrossEntropy()(large, target, VOID))


@every_loss
def test_resized_logits_take_the_memory_of_one_image(loss: Loss, generator: Generator) -> None:
    classes = 40
    target = torch.randint(0, classes, (8, 64, 64), generator=generator)
    logits = torch.randn(8, 3, 8, 8, generator=generator).repeat(1, classes // 3 + 1, 1, 1)[:, :classes]
    loss = type(loss)()  # its factors are of 3 classes
    image = classes * 64 * 64 * 4
    assert peak_bytes(lambda: value_and_gradient(loss, logits, target)) < 6 * image < 8 * image


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(
    loss: Loss, dtype: torch.dtype, logits: Tensor, target: Tensor, weight: Tensor
) -> None:
    half = logits.to(dtype)
    with torch.autocast("cpu", dtype):
        value = loss(half, target, VOID, weight)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(half.float(), target, VOID, weight))


@every_loss
def test_descent_finds_the_target(loss: Loss, target: Tensor) -> None:
    logits = torch.zeros(2, 3, 8, 9, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, target, VOID).backward()
        optimizer.step()
    valid = target != VOID
    assert torch.equal(logits.argmax(1)[valid], target[valid])


@every_loss
def test_a_uniform_pixel_weight_of_one_is_no_weight(loss: Loss, logits: Tensor, target: Tensor) -> None:
    torch.testing.assert_close(loss(logits, target, VOID, torch.ones(target.shape)), loss(logits, target, VOID))


@pytest.mark.parametrize("loss", [CrossEntropy(), Focal(), Focal(gamma=0.5), Dice()])
def test_a_single_class_costs_nothing(loss: Loss, logits: Tensor, target: Tensor) -> None:
    value, gradient = value_and_gradient(loss, logits[:, :1], target.where(target == VOID, 0))
    assert value == pytest.approx(0, abs=1e-6)
    assert (gradient == 0).all()


@pytest.mark.parametrize(
    ("loss", "argument"),
    [
        (CrossEntropy([1.0] * 11), "the class weighting of CrossEntropy"),
        (Focal(alpha=[1.0] * 11), "alpha of Focal"),
    ],
)
def test_a_wrong_number_of_class_factors_names_both_numbers(
    loss: Loss, argument: str, logits: Tensor, target: Tensor
) -> None:
    with pytest.raises(SegfolioError, match=f"{argument} has 11 values but the logits have 3 classes"):
        loss(logits, target, VOID)


def test_class_factors_are_no_part_of_a_checkpoint() -> None:
    assert not CrossEntropy(CLASS_WEIGHT).state_dict()
    assert not Focal(alpha=CLASS_WEIGHT).state_dict()
