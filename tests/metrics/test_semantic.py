"""Figures of per-pixel classification by their names in the log; what an image is counted as."""

import pickle

import pytest
import torch
from torch import Tensor
from torchvision.tv_tensors import Mask

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.metrics import ConfusionMatrix, SemanticMetric
from segfolio.metrics.confusion import confusion_matrix, dice, mIoU, mIoU_absent_as_zero
from segfolio.metrics.semantic import class_maps

C, VOID = 6, 255
LABELS = LabelSpace(tuple("abcdef"))
IMAGES = 5


def maps(number: int) -> tuple[Tensor, Tensor]:
    """Prediction and truth `[12, 16]` that agree on half of the pixels; class 3 is in none."""
    g = torch.Generator().manual_seed(number)
    present = torch.tensor([0, 1, 2, 4, 5], dtype=torch.uint8)
    truth, other = (present[torch.randint(5, (12, 16), generator=g)] for _ in range(2))
    prediction = torch.where(torch.rand(12, 16, generator=g) < 0.5, truth, other)
    truth[torch.rand(12, 16, generator=g) < 0.1] = VOID
    return prediction, truth


def update(metric: SemanticMetric, image_id: str, prediction: Tensor, truth: Tensor) -> None:
    metric.update(Prediction(image_id, tuple(truth.shape), prediction), Target(Mask(truth)))


def compute(metric: SemanticMetric) -> dict[str, float]:
    return {name: float(value) for name, value in metric.compute().items()}


def test_figures_of_a_split_are_those_of_the_sum_of_its_matrices() -> None:
    metric, plain, alone = SemanticMetric(LABELS), ConfusionMatrix(C, VOID), []
    for number in range(IMAGES):
        update(metric, str(number), *maps(number))
        plain.update(*maps(number))
        alone.append(confusion_matrix(*maps(number), C, VOID))
    found = metric.compute()
    for name, value in plain.compute().items():
        assert torch.equal(found[name], value), name
    assert found["mIoU_absent_as_zero"] == mIoU_absent_as_zero(sum(alone))
    assert found["mIoU_absent_as_zero"] == pytest.approx(float(found["mIoU"]) * 5 / 6)
    assert found["mIoU_per_image"] == pytest.approx(float(sum(map(mIoU, alone))) / IMAGES, abs=1e-15)
    assert found["dice_per_image"] == pytest.approx(float(sum(map(dice, alone))) / IMAGES, abs=1e-15)
    assert {value.dtype for value in found.values()} == {torch.float64}
    assert found["IoU/d"].isnan()


def test_a_rare_class_shows_what_dataset_level_means() -> None:
    """Class b: one missed pixel in one image, 10,000 right ones in the other."""
    metric = SemanticMetric(LabelSpace(("a", "b")))
    first, second = torch.zeros(100, 100, dtype=torch.uint8), torch.ones(100, 100, dtype=torch.uint8)
    update(metric, "second", second, second)
    update(metric, "first", first, first.index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(1).byte()))
    found = compute(metric)
    assert found["IoU/b"] == pytest.approx(10_000 / 10_001)
    assert found["mIoU_per_image"] == pytest.approx(((9_999 / 10_000 + 0) / 2 + 1) / 2)
    assert found["dice_per_image"] == pytest.approx(((2 * 9_999 / 19_999 + 0) / 2 + 1) / 2)


def test_the_log_has_every_class_by_its_name() -> None:
    metric = SemanticMetric(LabelSpace(("sky", "road")))
    update(metric, "a", torch.tensor([[0, 1, 1, 1]]).byte(), torch.tensor([[0, 0, 1, VOID]]).byte())
    logged = {name: round(value, 6) for name, value in compute(metric).items()}
    assert logged["IoU/sky"] == logged["IoU/road"] == logged["accuracy/sky"] == logged["mIoU"] == 0.5
    assert logged["accuracy/road"] == 1.0
    assert logged["dice/sky"] == logged["dice/road"] == 0.666667


def test_an_image_of_void_leaves_all_figures_alone() -> None:
    metric = SemanticMetric(LABELS)
    update(metric, "0", *maps(0))
    before = compute(metric)
    update(metric, "void", maps(0)[0], torch.full((12, 16), VOID, dtype=torch.uint8))
    assert compute(metric) == pytest.approx(before, abs=0, nan_ok=True)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_image_is_nan_not_zero() -> None:
    figures = compute(SemanticMetric(LABELS))
    assert all(value != value for name, value in figures.items() if name != "mIoU_absent_as_zero")


def test_a_record_is_no_larger_than_what_the_image_holds() -> None:
    """Two of 1000 classes: three entries of 12 bytes, not a matrix of 8 MB."""
    metric = SemanticMetric(LabelSpace(tuple(map(str, range(1000))), ignore_index=1000))
    truth = torch.tensor([[7, 7, 9, 9]], dtype=torch.int32)
    update(metric, "a", torch.tensor([[7, 9, 9, 9]], dtype=torch.int32), truth)
    (record,) = metric.records().values()
    assert len(record[0]) == 3
    assert len(pickle.dumps(record, protocol=5)) < 400


def test_a_map_that_is_missing_or_of_another_size_is_named() -> None:
    metric, one = SemanticMetric(LABELS), torch.zeros(2, 3, dtype=torch.uint8)
    with pytest.raises(SegfolioError, match=r"^a: the metric compares semantic maps but the family predicts none"):
        metric.update(Prediction("a", (2, 3)), Target(Mask(one)))
    with pytest.raises(SegfolioError, match="but the dataset has none"):
        metric.update(Prediction("a", (2, 3), one), Target())
    with pytest.raises(SegfolioError, match=r"prediction is \[2, 3\] but its target is \[3, 2\]"):
        metric.update(Prediction("a", (3, 2), one), Target(Mask(one.T)))


@pytest.mark.parametrize(("classes", "dtype"), [(6, "uint8"), (254, "uint8"), (255, "uint16"), (300, "uint16")])
def test_class_maps_count_from_one_and_are_zero_at_void(classes: int, dtype: str) -> None:
    last, labels = classes - 1, LabelSpace(tuple(map(str, range(classes))), ignore_index=1000)
    prediction = torch.tensor([[0, last, 2000]], dtype=torch.int32)
    target = Target(Mask(torch.tensor([[last, 0, 1000]], dtype=torch.int32)))
    predicted, truth = class_maps(Prediction("a", (1, 3), prediction), target, labels)
    assert predicted.tolist() == [[1, classes, 0]]
    assert truth.tolist() == [[classes, 1, 0]]
    assert predicted.dtype == truth.dtype == dtype


def test_class_maps_name_a_value_that_is_no_class() -> None:
    prediction, truth = torch.tensor([[0, 255]]).byte(), torch.tensor([[0, 1]]).byte()
    with pytest.raises(SegfolioError, match="the prediction holds 255 where classes are 0 to 5"):
        class_maps(Prediction("a", (1, 2), prediction), Target(Mask(truth)), LABELS)
