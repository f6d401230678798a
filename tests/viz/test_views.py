"""What a prediction holds, and how it is numbered against the truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.datasets import CocoInstances, CocoPanoptic, Shapes
from segfolio.data.formats import rle
from segfolio.data.labels import LabelSpace
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.data.sample import Instances, Prediction, Segments, Target
from segfolio.viz.overlay import IGNORED
from segfolio.viz.views import true_numbers, views

LABELS = LabelSpace(("car", "person", "sky"), things=("car", "person"))
SIZE = (12, 20)


def masks(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Rectangles top, left, bottom, right."""
    found = np.zeros((len(boxes), *SIZE), bool)
    for mask, (top, left, bottom, right) in zip(found, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return found


def segments(found: np.ndarray, classes: list[int], crowd: tuple[int, ...] = ()) -> Segments:
    flags = torch.tensor([i in crowd for i in range(len(classes))], dtype=torch.bool)
    return Segments(Mask(torch.from_numpy(found)), torch.tensor(classes, dtype=torch.int64), flags)


def instances(found: np.ndarray, classes: list[int], scores: list[float]) -> Prediction:
    objects = Instances(rle.encode(found), torch.tensor(classes, dtype=torch.int64), torch.tensor(scores))
    return Prediction("a", SIZE, instances=objects)


TRUTH = Target(segments=segments(masks((0, 0, 6, 6), (0, 10, 6, 16), (7, 0, 12, 4)), [0, 1, 0]))


def test_what_was_found_has_the_number_of_the_true_object_and_what_is_none_a_new_one():
    prediction = instances(masks((0, 10, 6, 15), (7, 12, 12, 16), (0, 0, 5, 6)), [1, 0, 0], [0.9, 0.8, 0.7])
    (view,) = views(prediction, TRUTH, LABELS)
    drawn = view.prediction.ids
    assert [drawn[0, 12], drawn[8, 13], drawn[0, 0], drawn[8, 1]] == [2, 4, 1, 0]
    assert view.classes == [0, 1, 0, 0]
    assert {n: texts[0] for n, texts in view.prediction.captions.items()} == {
        2: "person 0.90", 4: "car 0.80", 1: "car 0.70"
    }  # fmt: skip
    assert view.truth is not None
    assert {n: texts[0] for n, texts in view.truth.captions.items()} == {1: "car", 2: "person", 3: "car"}
    wrong, ignored = view.errors()
    assert wrong.sum() == 6 + 6 + 20 + 20  # two strips, one missed, one too many
    assert not ignored.any()


def test_an_object_of_another_class_or_with_half_the_area_is_not_the_true_one():
    prediction = instances(masks((0, 0, 6, 6), (0, 10, 6, 13)), [1, 1], [0.9, 0.8])
    (view,) = views(prediction, TRUTH, LABELS)
    assert set(view.prediction.captions) == {4, 5}


def test_objects_below_the_score_are_left_out_and_the_one_that_scores_more_is_in_front():
    found = masks((0, 0, 6, 6), (0, 0, 6, 6), (7, 12, 12, 16))
    prediction = instances(found, [0, 1, 0], [0.9, 0.8, 0.3])
    (view,) = views(prediction, None, LABELS)
    assert view.truth is None
    assert view.classes == [1, 0]  # by score
    assert np.unique(view.prediction.ids[:6, :6]).tolist() == [2]
    assert view.note == "2 of 3 score 0.5 or more"
    assert len(views(prediction, None, LABELS, min_score=0.1)[0].classes) == 3


def test_crowds_and_what_belongs_to_no_segment_do_not_count():
    ids = torch.zeros(SIZE, dtype=torch.int32)
    ids[:6], ids[6:9] = 1, 2
    crowd = torch.tensor([False, True])
    truth = Target(segments=Segments(ids, torch.tensor([2, 0]), crowd))
    found = torch.ones(SIZE, dtype=torch.int32)
    prediction = Prediction("a", SIZE, panoptic=Segments(found, torch.tensor([2]), torch.zeros(1).bool()))
    (view,) = views(prediction, truth, LABELS)
    wrong, ignored = view.errors()
    assert ignored[6:].all()
    assert not ignored[:6].any()
    assert not wrong.any()
    assert set(view.prediction.captions) == {1}  # all of it that counts is the true sky, half of what it covers


def test_numbers_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        true_ids, ids = (np.kron(rng.integers(-1, 5, (4, 4)), np.ones((5, 5), int)) for _ in range(2))
        ids = np.where(rng.random(ids.shape) < 0.8, np.abs(true_ids), np.abs(ids))
        true_classes, classes = rng.integers(0, 2, 4), rng.integers(0, 2, 4)
        counts, expected, new = true_ids != IGNORED, [], 4
        for m in range(4):
            mine = (ids == m + 1) & counts
            pairs = [(n + 1, mine & (true_ids == n + 1), mine | (true_ids == n + 1)) for n in range(4)]
            same = [n for n, a, b in pairs if 2 * a.sum() > b.sum() and true_classes[n - 1] == classes[m]]
            new += not same
            expected.append(same[0] if same else new)
        assert true_numbers(ids, classes, true_ids, true_classes).tolist() == expected


def test_a_panoptic_model_has_three_readings_and_the_truth_as_prediction_no_error():
    dataset = Shapes(split="val")
    target = dataset[0].target
    assert target is not None
    assert target.semantic is not None
    assert target.segments is not None
    prediction = Prediction("a", (96, 96), target.semantic, panoptic=panoptic_truth(target, dataset.labels))
    scores = torch.ones(len(target.segments))
    prediction.instances = Instances(target.segments.rles, target.segments.labels, scores)
    found = views(prediction, target, dataset.labels)
    assert [view.name for view in found] == ["semantic", "instances", "panoptic"]
    for view in found:
        assert view.truth is not None
        assert not view.errors()[0].any()
        assert np.array_equal(view.prediction.ids, view.truth.ids)


def followed(found: np.ndarray, tracks: list[int], classes: list[int]) -> Segments:
    return replace(segments(found, classes), tracks=torch.tensor(tracks, dtype=torch.int64))


def test_an_object_that_is_followed_has_one_number_and_colour_in_all_frames():
    here, there = followed(masks((0, 0, 6, 6), (2, 2, 4, 4)), [4, 2], [0, 1]), followed(masks((7, 0, 12, 4)), [4], [0])
    target = Target(segments=followed(masks((0, 0, 6, 5), (2, 2, 4, 4), (8, 8, 9, 9)), [4, 2, -1], [0, 1, 0]))
    (first,) = views(Prediction("a/0", SIZE, tracked=here), target, LABELS)
    (second,) = views(Prediction("a/1", SIZE, tracked=there), None, LABELS)
    assert (first.name, second.name) == ("tracked", "tracked")
    assert [first.prediction.ids[0, 0], first.prediction.ids[3, 3], second.prediction.ids[8, 1]] == [5, 3, 5]
    assert first.prediction.captions == {5: ("4",), 3: ("2",)}
    assert (first.colors[4] == second.colors[4]).all()
    assert not (first.colors[4] == first.colors[2]).all()
    assert (first.classes[4], first.classes[2]) == (0, 1)
    assert first.errors()[0].sum() == 6  # the last column; what is not followed is no truth
    assert second.truth is None
    (nothing,) = views(Prediction("a/2", SIZE, tracked=followed(masks(), [], [])), Target(), LABELS)
    assert nothing.prediction.ids.dtype.kind == "i"  # numbers by which colours are looked up
    assert not nothing.prediction.ids.any()
    assert nothing.prediction.ids.dtype.kind == "i"


def test_nothing_found_and_nothing_there():
    empty = instances(masks(), [], [])
    (view,) = views(empty, Target(segments=segments(masks(), [])), LABELS)
    assert (view.classes, view.note) == ([], "0 of 0 score 0.5 or more")
    assert not view.prediction.ids.any()
    (view,) = views(empty, TRUTH, LABELS)
    assert view.errors()[0].sum() == 36 + 36 + 20


@pytest.mark.parametrize("name", ["dsb2018", "coco_panoptic"])
def test_real_truth_as_prediction_is_without_error(real_data: Path, name: str):
    if name == "dsb2018":
        dataset = CocoInstances(real_data / name, "val", "instances_val.json", "images")
    else:
        files = ("panoptic_examples.json", "panoptic_examples", "input_images")
        dataset = CocoPanoptic(real_data / name, "val", *(f"sample_data/{file}" for file in files))
    sample = dataset[0]
    assert sample.target is not None
    truth = sample.target.segments
    assert truth is not None
    prediction = Prediction("a", sample.original_size)
    if name == "dsb2018":
        prediction.instances = Instances(truth.rles, truth.labels, torch.linspace(0.5, 1, len(truth)))
    else:
        prediction.panoptic = truth
    (view,) = views(prediction, sample.target, dataset.labels)
    assert not view.errors()[0].any()
    numbers = (torch.arange(1, len(truth) + 1)[~truth.crowd]).tolist()
    assert sorted(n for n in view.prediction.captions if n <= len(truth)) == numbers
