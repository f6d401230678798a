import math

import pytest
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Segments, Target
from segfolio.errors import SegfolioError
from segfolio.metrics.panoptic import PanopticMetric

LABELS = LabelSpace(("cat", "dog", "owl", "sky", "road"), things=("cat", "dog", "owl"))
CAT, DOG, _, SKY, ROAD = range(5)


def segments(row, labels):
    return Segments(
        torch.tensor([row], dtype=torch.int32), torch.tensor(labels).long(), torch.zeros(len(labels)).bool()
    )


def image(name, predicted, truth, number=None):
    """A prediction and a target of rows of places and their labels."""
    panoptic = segments(*predicted)
    return Prediction(name, panoptic.size, panoptic=panoptic), Target(segments=segments(*truth), number=number)


IMAGES = (
    image("a", ([1, 1, 1, 2, 2, 2], [CAT, SKY]), ([1, 1, 2, 2, 2, 2], [CAT, SKY])),
    image("b", ([1, 1, 0, 0, 2, 2], [CAT, ROAD]), ([1, 1, 2, 2, 3, 3], [CAT, DOG, SKY])),
)
FIGURES = {
    # of the classes: PQ, SQ, RQ; owls are nowhere
    "cat": ((2 / 3 + 1) / 2, (2 / 3 + 1) / 2, 1),
    "dog": (0, 0, 0),
    "sky": (0.75 / 1.5, 0.75, 1 / 1.5),
    "road": (0, 0, 0),
}


def computed(metric):
    return {name: float(value) for name, value in metric.compute().items()}


def seen(*images):
    metric = PanopticMetric(LABELS)
    for one in images:
        metric.update(*one)
    return metric


def test_the_log_has_means_of_all_things_and_stuff_and_every_class():
    found = computed(seen(*IMAGES))
    assert math.isnan(found.pop("PQ/owl"))
    expected = {f"PQ/{name}": row[0] for name, row in FIGURES.items()}
    for suffix, names in (("", FIGURES), ("_things", ("cat", "dog")), ("_stuff", ("sky", "road"))):
        for place, figure in enumerate(("PQ", "SQ", "RQ")):
            expected[figure + suffix] = sum(FIGURES[name][place] for name in names) / len(names)
    assert found == pytest.approx(expected, abs=1e-15)


def test_an_image_that_is_seen_twice_counts_once_and_order_does_not_matter():
    once = computed(seen(*IMAGES))
    again = computed(seen(*IMAGES[::-1], *IMAGES, image("a", ([0] * 6, []), ([1] * 6, [DOG]))))
    assert repr(again) == repr(once)


def test_a_state_of_two_processes_computes_as_one():
    first, second = seen(IMAGES[0]), seen(IMAGES[1], IMAGES[0])
    first.state += second.state
    assert repr(computed(first)) == repr(computed(seen(*IMAGES)))


def test_records_grow_with_the_classes_of_an_image_and_not_with_its_pixels():
    large = segments([1] * 1_000_000, [CAT])
    metric = seen((Prediction("a", large.size, panoptic=large), Target(segments=large)))
    assert sum(len(packed) for packed in metric.state) < 1000  # bytes


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_image_is_nan_and_reset_forgets():
    metric = seen(*IMAGES)
    metric.reset()
    assert all(math.isnan(value) for value in computed(metric).values())


def test_truth_is_derived_from_things_and_a_semantic_map():
    """Things alone are annotated; the sky is where the map has it."""
    target = Target(Mask(torch.tensor([[CAT, CAT, SKY, SKY, 255, DOG]])), segments([1, 1, 0, 0, 0, 0], [CAT]))
    panoptic = segments([1, 1, 2, 2, 2, 2], [CAT, SKY])
    found = computed(seen((Prediction("a", (1, 6), panoptic=panoptic), target)))
    assert (found["PQ"], found["PQ_things"], found["PQ_stuff"]) == (1, 1, 1)


def test_what_cannot_be_compared_is_an_error():
    metric = PanopticMetric(LABELS)
    prediction, target = IMAGES[0]
    with pytest.raises(ValueError, match="this family predicts none"):
        metric.update(Prediction("a", (1, 6)), target)
    with pytest.raises(ValueError, match="this dataset has neither"):
        metric.update(prediction, Target())
    other = Target(segments=segments([1, 1, 1], [CAT]))
    with pytest.raises(SegfolioError, match="prediction of a is 6x1 pixels but its truth is 3x1; predictions have"):
        metric.update(prediction, other)
