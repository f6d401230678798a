"""The confusion matrix and its figures, against torchmetrics, formulas and hand counts."""

import math
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

from segfolio.errors import SegfolioError
from segfolio.metrics import ConfusionMatrix
from segfolio.metrics.confusion import (
    accuracy_per_class,
    confusion_matrix,
    dice,
    dice_per_class,
    from_entries,
    fwIoU,
    iou_per_class,
    mean_accuracy,
    mIoU,
    mIoU_absent_as_zero,
    pixel_accuracy,
    to_entries,
)

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


def merged(metric: ConfusionMatrix, shards: list[ConfusionMatrix]) -> None:
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
    metric = ConfusionMatrix(C, VOID)
    metric.update(torch.zeros(shape, dtype=torch.uint8), torch.full(shape, VOID, dtype=torch.uint8))
    assert all(math.isnan(metric.compute()[name]) for name in FIGURES)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_the_entries_of_a_matrix_give_it_back(dtype: torch.dtype) -> None:
    matrix = torch.tensor([[0, 3, 0], [1 << 40, 0, 0], [0, 0, 7]], dtype=dtype)
    entries = to_entries(matrix)
    assert entries[0].tolist() == [1, 3, 8]
    assert entries[1].tolist() == [3, 1 << 40, 7]
    assert torch.equal(from_entries(entries, 3), matrix)
    assert from_entries(entries, 3).dtype == dtype


def test_compute_gives_the_log_keys_and_updates_add_up() -> None:
    prediction, target = random_maps(4)
    metric = ConfusionMatrix(C, VOID)
    metric.update(prediction[0], target[0])
    metric.update(prediction[1:], target[1:])
    assert tuple(metric.compute()) == FIGURES
    assert torch.equal(metric.matrix, by_hand(prediction, target))
    metric.reset()
    assert metric.matrix.sum() == 0


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_do_not_change_the_figures(processes: int) -> None:
    """Seven images, so that two and three processes hold unequal numbers."""
    prediction, target = random_maps(5, images=7, absent=(3,))
    alone = ConfusionMatrix(C, VOID)
    alone.update(prediction, target)
    shards = [ConfusionMatrix(C, VOID) for _ in range(processes)]
    for rank, shard in enumerate(shards):
        shard.update(prediction[rank::processes], target[rank::processes])
    merged(shards[0], shards)
    torch.testing.assert_close(shards[0].compute(), alone.compute(), rtol=0, atol=1e-15)
