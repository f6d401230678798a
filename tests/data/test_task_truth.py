"""What is to be found in an image, by task."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from benchmarks.task_truth import dense
from segfolio.data.formats import rle
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Segments, Target
from segfolio.data.task_truth import TaskTruth, check_task, task_truth
from segfolio.errors import SegfolioError

LABELS = LabelSpace(("sky", "road", "car"), things=("car",))


@pytest.fixture
def target():
    """Sky above road; two cars, a crowd of cars, and a void column."""
    semantic = torch.zeros(6, 8, dtype=torch.uint8)
    semantic[3:] = 1
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 3:5, 0:2] = masks[1, 3:5, 2:4] = masks[2, 3:5, 4:6] = True
    semantic[masks.any(0)] = 2
    semantic[:, 7] = 255
    return Target(Mask(semantic), Segments(Mask(masks), torch.tensor([2, 2, 2]), torch.tensor([False, False, True])))


def found(target, task):
    truth = task_truth(target, LABELS, task)
    assert truth.semantic is None
    segments = truth.segments
    assert not segments.crowd.any()
    return dict(zip(segments.labels.tolist(), segments.masks.sum((1, 2)).tolist(), strict=True)), segments, truth.weight


def test_semantic_segments_are_the_classes_of_the_image(target):
    areas, _, weight = found(target, "semantic")
    assert areas == {0: 21, 1: 9, 2: 12}
    assert weight.sum() == 48 - 6  # void does not count


def test_instances_are_things_and_crowds_do_not_count(target):
    _, segments, weight = found(target, "instance")
    assert segments.labels.tolist() == [2, 2]
    assert segments.masks.sum((1, 2)).tolist() == [4, 4]
    assert (weight == 0).sum() == 4
    assert (weight[3:5, 4:6] == 0).all()


def test_panoptic_segments_are_things_and_stuff_without_void_and_crowds(target):
    _, segments, weight = found(target, "panoptic")
    assert sorted(segments.labels.tolist()) == [0, 1, 2, 2]
    assert segments.masks.sum() == 21 + 9 + 8
    assert segments.masks.sum(0).max() == 1
    assert weight.sum() == 48 - 6 - 4


def test_the_weight_of_the_recipe_stays_where_pixels_count(target):
    target.weight = Mask(torch.full((6, 8), 2.5))
    weight = task_truth(target, LABELS, "semantic").weight
    assert weight.unique().tolist() == [0, 2.5]


def test_without_a_weight_of_the_recipe_pixels_count_or_do_not(target):
    assert task_truth(target, LABELS, "panoptic").weight.dtype == torch.bool


def test_segments_stay_small_until_they_are_on_the_device(target):
    """One map of 8 bits, or one more for what overlaps; not a mask for each."""
    assert (form := task_truth(target, LABELS, "panoptic").segments.form).shape == (6, 8)
    assert form.dtype == torch.uint8
    target.segments.masks[1] |= target.segments.masks[0]
    assert task_truth(target, LABELS, "instance").segments.form.shape == (2, 6, 8)


def test_an_image_of_void_has_nothing_to_be_found(target):
    target.semantic = Mask(torch.full((6, 8), 255, dtype=torch.uint8))
    truth = task_truth(target, LABELS, "semantic")
    assert truth.segments.masks.shape == (0, 6, 8)
    assert not truth.weight.any()


@pytest.mark.parametrize(("task", "says"), [("semantic", "needs a semantic map"), ("instance", "needs segments")])
def test_an_annotation_that_does_not_serve_the_task_is_refused(task, says):
    with pytest.raises(ValueError, match=says):
        task_truth(Target(), LABELS, task)


def random_target(seed):
    """Up to five objects and stuff, some of them overlapping, empty or crowds, in each form; void; weights or none."""
    rng = np.random.default_rng(seed)
    size, count = (6, 8), rng.integers(6)
    masks = rng.random((count, *size)) < rng.choice([0, 0.1, 0.5], (count, 1, 1))
    ids = rng.integers(0, count + 1, size).astype(np.int32)
    form = [Mask(torch.from_numpy(masks)), rle.encode(masks), Mask(torch.from_numpy(ids))][seed % 3]
    labels, crowd = torch.from_numpy(rng.integers(0, 3, count)), torch.from_numpy(rng.random(count) < 0.3)
    semantic = rng.choice([0, 1, 2, 255], size).astype(np.uint8)
    weight = rng.choice([0.0, 0.5, 3.0], size).astype(np.float32) if rng.random() < 0.5 else None
    return Target(
        Mask(torch.from_numpy(semantic)),
        Segments(form, labels, crowd, size),
        None if weight is None else Mask(torch.from_numpy(weight)),
    )


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
@pytest.mark.parametrize("seed", range(30))
def test_masks_of_the_maps_are_those_that_were_made_before(seed, task):
    """To the bit those of `dense`, with which segfolio 0.1 trained."""
    ours, before = (make(random_target(seed), LABELS, task) for make in (task_truth, dense))
    assert torch.equal(ours.segments.masks, before.segments.masks)
    assert torch.equal(ours.segments.labels, before.segments.labels)
    assert torch.equal(ours.weight > 0, before.weight > 0)
    assert not isinstance(ours.segments.form, list)
    assert ours.segments.form.dtype == torch.uint8


def test_the_preparation_travels_to_workers_and_draws_nothing(target):
    prepare = pickle.loads(pickle.dumps(TaskTruth(LABELS, "panoptic")))
    rng = np.random.default_rng(0)
    sample = prepare(Sample(Image(torch.zeros(3, 6, 8)), "0", (6, 8), target), rng)
    assert torch.equal(sample.target.segments.masks, task_truth(target, LABELS, "panoptic").segments.masks)
    assert rng.random() == np.random.default_rng(0).random()


def split(*targets):
    """Images 0, 1, ... of 6 x 8."""
    samples = [Sample(Image(torch.zeros(3, 6, 8)), f"{i}", (6, 8), target) for i, target in enumerate(targets)]

    class Images(list):
        labels = LABELS

    return Images(samples)


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_an_annotation_that_serves_the_task_is_accepted(target, task, recwarn):
    check_task(split(target, target), "train", task)
    assert not recwarn


@pytest.mark.parametrize(
    ("lacks", "task", "says"),
    [
        ("segments", "instance", "has no segments; its annotation serves semantic: choose"),
        ("segments", "panoptic", "has no segments; its annotation serves semantic: choose"),
        ("semantic", "semantic", "has no semantic map; its annotation serves instance and panoptic: choose"),
    ],
)
def test_one_that_does_not_is_refused_by_image(target, lacks, task, says):
    with pytest.raises(SegfolioError, match=rf"^model.task is {task}, but train 1 {says}"):
        check_task(split(target, replace(target, **{lacks: None})), "train", task)


@pytest.mark.parametrize("label", [3, -1])
def test_a_segment_of_no_class_is_refused(target, label):
    target.segments.labels[1] = label
    with pytest.raises(SegfolioError, match=f"val 0 has a segment of class {label}, expected 0 to 2"):
        check_task(split(target), "val", "instance")


def test_panoptic_truth_without_stuff_is_refused(target):
    objects = replace(target, semantic=None)
    with pytest.raises(SegfolioError, match=r"the images of train have neither stuff .*; choose the task instance"):
        check_task(split(objects, objects), "train", "panoptic")
    check_task(split(objects, target), "train", "panoptic")  # an image of objects alone is none yet


def test_objects_that_are_no_things_are_told(target):
    target.segments.labels[1] = 1
    with pytest.warns(UserWarning, match=r"1 image with objects of classes .*the first is train 0 \(road\)"):
        check_task(split(replace(target, semantic=None)), "train", "instance")


def test_stuff_of_a_panoptic_annotation_is_no_object(target, recwarn):
    target.segments.labels[1] = 1
    check_task(split(target), "train", "instance")
    assert not recwarn


def test_what_panoptic_truth_loses_is_one_warning_of_each_sort(target):
    target.segments.masks[1] |= target.segments.masks[0]
    target.semantic[0, 0] = 2
    images = split(*[target] * 40)
    with pytest.warns(UserWarning, match=r"16 of 40 images looked at: 16 images whose segments overlap") as caught:
        check_task(images, "train", "panoptic")
    assert len(caught) == 2
    assert "the first is train 0 (car)" in str(caught[1].message)


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_more_segments_than_queries_are_told_or_refused(target, task, recwarn):
    number = len(task_truth(target, LABELS, task).segments.labels)
    check_task(split(target), "train", task, queries=number, refuse=True)
    assert not recwarn
    says = rf"1 image with more segments than the {number - 1} queries of an image .raise the number of queries."
    with pytest.warns(UserWarning, match=rf"{says}; the first is train 0 .{number}."):
        check_task(split(target), "train", task, queries=number - 1)
    with pytest.raises(SegfolioError, match=rf"{says}: train 0 .{number}."):
        check_task(split(target), "train", task, queries=number - 1, refuse=True)
