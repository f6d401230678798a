"""The confusion matrix and its figures, against torchmetrics, formulas and hand counts."""

import math
from collections.abc import Callable
from itertools import cycle

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)
from torchvision.tv_tensors import Mask

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.metrics import ConfusionMatrix, MIoUPerImage
from segfolio.metrics.confusion import (
    accuracy_per_class,
    confusion_matrix,
    dice,
    dice_per_class,
    fwIoU,
    iou_per_class,
    mean_accuracy,
    mIoU,
    mIoU_absent_as_zero,
    pixel_accuracy,
)
from segfolio.metrics.semantic import SemanticMetric

C, VOID = 6, 255
FIGURES = ("mIoU", "pixel_accuracy", "mean_accuracy", "fwIoU", "dice")


def random_maps(seed: int, images: int = 4, absent: tuple[int, ...] = (), void: float = 0.1) -> tuple[Tensor, Tensor]:
    """Predictions and targets `[B, 16, 20]` uint8 that agree on half of the pixels."""
    g = torch.Generator().manual_seed(seed)
    shape = (images, 16, 20)
    present = torch.tensor([c for c in range(C) if c not in absent])
    target, other = (present[torch.randint(len(present), shape, generator=g)] for _ in range(2))
    prediction = torch.where(torch.rand(shape, generator=g) < 0.5, target, other)
    target[torch.rand(shape, generator=g) < void] = VOID
    return prediction.to(torch.uint8), target.to(torch.uint8)


def by_hand(prediction: Tensor, target: Tensor) -> Tensor:
    matrix = torch.zeros(C, C, dtype=torch.int64)
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != VOID:
            matrix[t, p] += 1
    return matrix


def merged(metric: ConfusionMatrix | MIoUPerImage, shards: list[ConfusionMatrix] | list[MIoUPerImage]) -> None:
    """Make `metric` gather its states from `shards`, as `torch.distributed` would from other processes."""
    states = cycle([[getattr(shard, name) for shard in shards] for name in metric._defaults])
    metric.distributed_available_fn = lambda: True
    metric.dist_sync_fn = lambda state, group: next(states)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("absent", [(), (2,), (0, 5)])
def test_counts_equal_a_loop_over_pixels_and_torchmetrics(seed: int, absent: tuple[int, ...]) -> None:
    prediction, target = random_maps(seed, absent=absent)
    matrix = confusion_matrix(prediction, target, C, VOID)
    theirs = MulticlassConfusionMatrix(C, ignore_index=VOID)(prediction, target)
    assert torch.equal(matrix, by_hand(prediction, target))
    assert torch.equal(matrix, theirs)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("absent", [(), (2,), (0, 5)])
def test_figures_equal_torchmetrics_where_it_is_right(seed: int, absent: tuple[int, ...]) -> None:
    prediction, target = random_maps(seed, absent=absent)
    matrix = confusion_matrix(prediction, target, C, VOID)
    theirs = {
        mIoU: MulticlassJaccardIndex(C, ignore_index=VOID),
        fwIoU: MulticlassJaccardIndex(C, average="weighted", ignore_index=VOID),
        dice: MulticlassF1Score(C, average="macro", ignore_index=VOID),
        pixel_accuracy: MulticlassAccuracy(C, average="micro", ignore_index=VOID),
        mean_accuracy: MulticlassAccuracy(C, average="macro", ignore_index=VOID),
    }
    for figure, metric in theirs.items():
        assert figure(matrix).item() == pytest.approx(metric(prediction, target).item(), abs=1e-6), figure


def test_figures_of_a_matrix_counted_by_hand() -> None:
    """Class 2 is predicted but not in the truth, class 3 occurs in neither."""
    matrix = torch.tensor([[6, 1, 1, 0], [2, 10, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert iou_per_class(matrix)[:3].tolist() == pytest.approx([6 / 10, 10 / 13, 0])
    assert dice_per_class(matrix)[:3].tolist() == pytest.approx([12 / 16, 20 / 23, 0])
    assert accuracy_per_class(matrix)[:2].tolist() == pytest.approx([6 / 8, 10 / 12])
    assert iou_per_class(matrix)[3].isnan()
    assert dice_per_class(matrix)[3].isnan()
    assert accuracy_per_class(matrix)[2:].isnan().all()

    assert mIoU(matrix).item() == pytest.approx((6 / 10 + 10 / 13 + 0) / 3)
    assert mIoU_absent_as_zero(matrix).item() == pytest.approx((6 / 10 + 10 / 13) / 4)
    assert dice(matrix).item() == pytest.approx((12 / 16 + 20 / 23 + 0) / 3)
    assert pixel_accuracy(matrix).item() == pytest.approx(16 / 20)
    assert mean_accuracy(matrix).item() == pytest.approx((6 / 8 + 10 / 12) / 2)
    assert fwIoU(matrix).item() == pytest.approx((8 * 6 / 10 + 12 * 10 / 13) / 20)


def test_a_rare_class_shows_what_dataset_level_means() -> None:
    """Class 1: one missed pixel in one image, 10,000 right ones in the other."""
    target = torch.zeros(2, 100, 100, dtype=torch.uint8)
    target[0, 0, 0] = target[1] = 1
    prediction = target.clone()
    prediction[0, 0, 0] = 0

    matrix = confusion_matrix(prediction, target, 2, VOID)
    assert iou_per_class(matrix)[1].item() == pytest.approx(10_000 / 10_001)
    per_image = MIoUPerImage(2, VOID)
    per_image.update(prediction, target)
    assert per_image.compute().item() == pytest.approx(((9_999 / 10_000 + 0) / 2 + 1) / 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_any_integer_type_counts_the_same_and_stays_as_it_was(dtype: torch.dtype) -> None:
    prediction, target = random_maps(0)
    typed = prediction.to(dtype), target.to(dtype)
    assert torch.equal(confusion_matrix(*typed, C, VOID), by_hand(prediction, target))
    assert torch.equal(typed[0], prediction.to(dtype))
    assert torch.equal(typed[1], target.to(dtype))


def test_masks_and_single_images_are_accepted() -> None:
    prediction, target = random_maps(1)
    whole = confusion_matrix(prediction, target, C, VOID)
    parts = [confusion_matrix(p, Mask(t), C, VOID) for p, t in zip(prediction, target, strict=True)]
    assert type(parts[0]) is Tensor
    assert torch.equal(sum(parts), whole)


@pytest.mark.parametrize("ignore_index", [-1, -100, C, 255, 1000])
def test_predictions_at_ignored_pixels_count_nowhere(ignore_index: int) -> None:
    prediction, target = (x.long() for x in random_maps(2))
    expected = by_hand(prediction, target)
    prediction[target == VOID] = torch.arange(int((target == VOID).sum())) - 10  # nonsense, and class ids
    target[target == VOID] = ignore_index
    assert torch.equal(confusion_matrix(prediction, target, C, ignore_index), expected)


@pytest.mark.parametrize("value", [-300, -1, C, 254, 256, 70_000])
@pytest.mark.parametrize("where", ["prediction", "target"])
def test_a_value_that_is_no_class_is_named(where: str, value: int) -> None:
    maps = {
        "prediction": torch.zeros(3, 3, dtype=torch.int64),
        "target": torch.zeros(3, 3, dtype=torch.int64),
    }
    maps[where][1, 1] = value
    with pytest.raises(SegfolioError, match=rf"the {where} holds {value} where classes are 0 to 5 and 255 is ignored"):
        confusion_matrix(**maps, num_classes=C, ignore_index=VOID)


def test_an_ignore_index_that_is_a_class_is_an_error() -> None:
    maps = torch.zeros(2, 2, dtype=torch.uint8)
    with pytest.raises(SegfolioError, match="ignore_index 0 is one of the 6 classes"):
        confusion_matrix(maps, maps, C, 0)


def test_shapes_that_differ_are_an_error() -> None:
    with pytest.raises(SegfolioError, match=r"prediction is \[2, 3\] but its target is \[4, 6\]"):
        confusion_matrix(torch.zeros(2, 3).byte(), torch.zeros(4, 6).byte(), C, VOID)


@pytest.mark.parametrize("shape", [(0, 8, 8), (1, 8, 8)])
def test_no_pixel_that_counts_is_nan_not_zero(shape: tuple[int, ...]) -> None:
    prediction, target = torch.zeros(shape, dtype=torch.uint8), torch.full(shape, VOID, dtype=torch.uint8)
    metric, per_image = ConfusionMatrix(C, VOID), MIoUPerImage(C, VOID)
    metric.update(prediction, target)
    per_image.update(prediction, target)
    assert all(math.isnan(metric.compute()[name]) for name in FIGURES)
    assert per_image.compute().isnan()


def test_an_image_of_void_leaves_the_mean_over_images_alone() -> None:
    prediction, target = random_maps(3)
    metric, with_void = MIoUPerImage(C, VOID), MIoUPerImage(C, VOID)
    metric.update(prediction, target)
    with_void.update(prediction, target)
    with_void.update(prediction[0], torch.full_like(target[0], VOID))
    images = [mIoU(confusion_matrix(p, t, C, VOID)) for p, t in zip(prediction, target, strict=True)]
    assert metric.compute() == with_void.compute() == pytest.approx(torch.stack(images).mean().item())


def test_compute_gives_the_log_keys_and_updates_add_up() -> None:
    prediction, target = random_maps(4)
    metric = ConfusionMatrix(C, VOID)
    metric.update(prediction[0], target[0])
    metric.update(prediction[1:], target[1:])
    assert tuple(metric.compute()) == FIGURES
    assert torch.equal(metric.matrix, by_hand(prediction, target))
    metric.reset()
    assert metric.matrix.sum() == 0


def test_the_log_has_every_class_by_its_name() -> None:
    metric = SemanticMetric(LabelSpace(("sky", "road")))
    truth = Target(Mask(torch.tensor([[0, 0, 1, VOID]], dtype=torch.uint8)))
    metric.update(Prediction("a", (1, 4), torch.tensor([[0, 1, 1, 1]], dtype=torch.uint8)), truth)
    logged = {name: round(float(value), 6) for name, value in metric.compute().items()}
    assert logged["IoU/sky"] == logged["IoU/road"] == logged["accuracy/sky"] == logged["mIoU"] == 0.5
    assert logged["accuracy/road"] == 1.0
    assert logged["dice/sky"] == logged["dice/road"] == 0.666667


@pytest.mark.parametrize("make", [ConfusionMatrix, MIoUPerImage])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_do_not_change_the_figures(
    make: Callable[[int, int], ConfusionMatrix | MIoUPerImage], processes: int
) -> None:
    """Seven images, so that two and three processes hold unequal numbers."""
    prediction, target = random_maps(5, images=7, absent=(3,))
    alone = make(C, VOID)
    alone.update(prediction, target)
    shards = [make(C, VOID) for _ in range(processes)]
    for rank, shard in enumerate(shards):
        shard.update(prediction[rank::processes], target[rank::processes])
    merged(shards[0], shards)
    torch.testing.assert_close(shards[0].compute(), alone.compute(), rtol=0, atol=1e-15)
