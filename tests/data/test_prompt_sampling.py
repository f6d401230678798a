"""Which objects are asked for, and where a simulated user points."""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.tv_tensors import Image, Mask

from segfolio.data.batches import Augmented, collate
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.datasets import DSB2018, SA1B, CocoInstances, Shapes
from segfolio.data.formats import rle
from segfolio.data.prompt_sampling import PromptSampling, check_objects
from segfolio.data.prompts import OBJECT
from segfolio.data.sample import Sample, Target
from segfolio.data.samplers import Draw
from segfolio.data.segments import Segments, is_id_map
from segfolio.data.transforms import RandomWindow
from segfolio.errors import SegfolioError
from tests.fake import coco_instances, dsb2018, sa1b

SIZE = (40, 50)


def squares(*sides: int) -> Mask:
    """Squares, one below and beside the other."""
    masks, start = torch.zeros(len(sides), *SIZE, dtype=torch.bool), 0
    for mask, side in zip(masks, sides, strict=True):
        mask[start : start + side, start : start + side] = True
        start += side
    return Mask(masks)


def sample(masks: Mask, form: str = "masks", **arguments: Any) -> Sample:
    count = len(masks)
    forms: dict[str, Any] = {"masks": masks, "rles": rle.encode(masks.numpy())}
    segments = Segments(forms["masks"], torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.bool))
    forms["id_map"] = segments.compact().form
    segments = Segments(forms[form], segments.labels, segments.crowd, SIZE)
    for name, value in arguments.items():
        setattr(segments, name, value)
    return Sample(Image(torch.zeros(3, *SIZE, dtype=torch.uint8)), "a", SIZE, Target(segments=segments))


def truth(prepared: Sample) -> Tensor:
    assert prepared.target is not None
    assert prepared.target.segments is not None
    return prepared.target.segments.masks.as_subclass(Tensor)


def drawn(sampling: PromptSampling, given: Sample, times: int = 200) -> list[Sample]:
    return [sampling(given, np.random.default_rng(i)) for i in range(times)]


@pytest.mark.parametrize("form", ["masks", "rles", "id_map"])
def test_the_form_of_segments_does_not_matter(form: str) -> None:
    sampling = pickle.loads(pickle.dumps(PromptSampling(max_objects=2)))
    expected, found = (sampling(sample(squares(4, 6, 8, 10), f), np.random.default_rng(3)) for f in ("masks", form))
    assert torch.equal(truth(found), truth(expected))
    assert is_id_map(found.target.segments.form)
    for name in ("of", "points", "kinds", "boxes"):
        assert torch.equal(getattr(found.prompts, name), getattr(expected.prompts, name))
    assert torch.equal(found.extras["clicks"], expected.extras["clicks"])


def test_no_mask_is_decoded_that_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decode = list[int](), rle.decode
    monkeypatch.setattr(rle, "decode", lambda rles, size: decoded.append(len(rles)) or decode(rles, size))
    PromptSampling(max_objects=2)(sample(squares(4, 4, 4, 4, 4, 4), "rles"), np.random.default_rng(0))
    assert decoded
    assert set(decoded) == {2}


def test_objects_are_drawn_alike() -> None:
    """Three of four, each as often as the other: 600 of 200 draws, 150 each."""
    given = sample(squares(4, 6, 8, 10))
    of_sides = [truth(s).sum((1, 2)).tolist() for s in drawn(PromptSampling(max_objects=3), given)]
    counts = [sum(side**2 in areas for areas in of_sides) for side in (4, 6, 8, 10)]
    assert sum(counts) == 600
    assert min(counts) > 130


def test_crowds_boxes_small_and_large_objects_are_left_out() -> None:
    masks = squares(3, 4, 5, 6, 7)
    masks[4] = True
    given = sample(
        masks,
        crowd=torch.tensor([False, True, False, False, False]),
        box_only=torch.tensor([False, False, True, False, False]),
    )
    prepared = PromptSampling(min_area=10, max_area=0.9)(given, np.random.default_rng(0))
    assert truth(prepared).sum((1, 2)).tolist() == [36]
    everything = PromptSampling(min_area=9, max_area=1.0)(given, np.random.default_rng(0))
    assert truth(everything).sum((1, 2)).tolist() == [9, 36, 2000]


def test_points_are_uniform_in_the_mask() -> None:
    points = torch.cat([s.prompts.points[0] for s in drawn(PromptSampling(), sample(squares(4)), 1600)])
    cells, counts = (points - 0.5).long().unique(dim=0, return_counts=True)
    assert torch.equal(points, points.floor() + 0.5)
    assert cells.max() == 3
    assert len(cells) == 16
    assert 60 < counts.min() < counts.max() < 140  # of 100


def test_boxes_are_noisy_by_a_tenth_of_their_sides_and_stay_inside() -> None:
    mask = torch.zeros(1, *SIZE, dtype=torch.bool)
    mask[0, 10:30, 5:45] = True
    boxes = torch.cat([s.prompts.boxes for s in drawn(PromptSampling(), sample(Mask(mask)), 800)])
    assert boxes.mean(0).tolist() == pytest.approx([5, 10, 45, 30], abs=0.5)
    assert boxes[:, [1, 3]].std(0).tolist() == pytest.approx([2, 2], rel=0.1)  # of 20 pixels
    assert boxes[:, 0].min() == 0
    assert boxes[:, 2].max() == 50
    bounded = torch.cat([s.prompts.boxes for s in drawn(PromptSampling(most_box_noise=1.0), sample(Mask(mask)), 50)])
    assert (bounded - torch.tensor([5.0, 10, 45, 30])).abs().max() == 1
    exact = PromptSampling(box_noise=0.0)(sample(Mask(mask)), np.random.default_rng(0))
    assert exact.prompts.boxes.tolist() == [[5, 10, 45, 30]]


def test_of_eleven_rounds_two_have_no_new_point_and_one_of_them_is_the_last() -> None:
    clicks = torch.stack([s.extras["clicks"] for s in drawn(PromptSampling(max_objects=5), sample(squares(9)))])
    assert clicks.shape == (200, 5, 10)  # the eleventh is the first prompt
    paused = clicks < 0
    assert paused[:, :, -1].all()
    assert (paused.sum(2) == 2).all()
    assert (paused == paused[:, :1]).all()  # the objects of an image pause together
    assert paused[:, 0, :-1].any(0).all()
    assert clicks.max() < 1
    without = PromptSampling(clicks=3, pauses=0)(sample(squares(9)), np.random.default_rng(0)).extras["clicks"]
    assert without.min() >= 0
    assert without.shape == (64, 3)


def test_a_step_asks_with_points_or_boxes_by_seed_and_number_alone() -> None:
    sampling = PromptSampling()
    prompts = [sampling.first_prompt(7, step) for step in range(400)]
    assert prompts == [PromptSampling(max_objects=1).first_prompt(7, step) for step in range(400)]
    assert prompts != [sampling.first_prompt(8, step) for step in range(400)]
    assert 170 < [prompt.kind for prompt in prompts].count("box") < 230
    assert {PromptSampling(box_probability=0.0).first_prompt(7, step) for step in range(50)} == {("point", True)}


def test_a_box_is_answered_by_several_masks_or_by_one() -> None:
    def boxes(ambiguity: float) -> list[bool]:
        prompts = PromptSampling(box_probability=1.0, box_ambiguity=ambiguity)
        return [prompts.first_prompt(7, step).ambiguous for step in range(400)]

    assert 170 < sum(boxes(0.5)) < 230
    assert (sum(boxes(0.0)), sum(boxes(1.0))) == (0, 400)


@pytest.mark.parametrize("form", ["masks", "rles", "id_map"])
def test_an_image_without_objects_has_no_prompts(form: str) -> None:
    prepared = PromptSampling()(sample(squares(), form), np.random.default_rng(0))
    assert truth(prepared).shape == (0, *SIZE)
    assert len(prepared.prompts) == 0
    other = PromptSampling()(sample(squares(9)), np.random.default_rng(0))
    batch = collate([[prepared], [other]])
    assert [len(prompts) for prompts in batch.prompts] == [0, 1]
    assert batch.extras["clicks"].shape == (2, 64, 10)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_objects": 0}, "max_objects of PromptSampling is 0, expected 1 or more"),
        ({"clicks": -1}, "clicks of PromptSampling is -1, expected 0 or more"),
        ({"max_area": 1.5}, "max_area of PromptSampling is 1.5, expected 0 to 1"),
        ({"box_probability": -0.1}, "box_probability of PromptSampling is -0.1, expected 0 to 1"),
    ],
)
def test_arguments_outside_their_range_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(SegfolioError, match=says):
        PromptSampling(**wrong)


def users_json(root: Path) -> SegmentationDataset:
    coco_instances.write(root)
    (root / "annotations/instances_train2017.json").rename(root / "mine.json")
    return CocoInstances(root, "train", annotations="mine.json", images="train2017")


def of_fake(write: Any, cls: Any, root: Path) -> SegmentationDataset:
    write(root)
    return cls(root, "train")


DATASETS = {
    "COCO": partial(of_fake, coco_instances.write, CocoInstances),
    "DSB2018": partial(of_fake, dsb2018.write, DSB2018),
    "SA-1B": partial(of_fake, sa1b.write, partial(SA1B, val_every=4)),
    "Shapes": lambda root: Shapes(None, "train", size=(48, 64), train=4),
    "a user's JSON": users_json,
}


@pytest.mark.parametrize("made", DATASETS.values(), ids=DATASETS)
def test_any_dataset_with_objects_is_asked_for_them(made: Any, tmp_path: Path) -> None:
    dataset = made(tmp_path / "data")
    check_objects(dataset, "train")
    augmented = Augmented(dataset, [RandomWindow((40, 40), hflip=0.5)], PromptSampling(max_objects=3))
    asked = 0
    for index in range(len(dataset)):
        (found,) = augmented[Draw(index, (0, 0, index))]
        masks, prompts = truth(found), found.prompts
        assert len(masks) == len(prompts) <= 3
        assert (prompts.kinds == OBJECT).all()
        for mask, (point,), box in zip(masks, prompts.points, prompts.boxes, strict=True):
            x, y = point.long().tolist()
            assert mask[y, x]
            left, top, right, bottom = box.tolist()
            assert 0 <= left < right <= 40
            assert 0 <= top < bottom <= 40
        asked += len(prompts)
    assert asked >= 3


def test_a_dataset_without_objects_is_refused() -> None:
    with pytest.raises(SegfolioError, match="asked for objects, but train train_00000 has none in its annotation"):
        check_objects(WithoutObjects(), "train")
    given = Sample(Image(torch.zeros(3, *SIZE)), "a", SIZE, Target(semantic=Mask(torch.zeros(SIZE))))
    with pytest.raises(SegfolioError, match="a has no objects to prompt for"):
        PromptSampling()(given, np.random.default_rng(0))


class WithoutObjects(Shapes):
    def __init__(self) -> None:
        super().__init__(None, "train", size=SIZE, train=3)

    def read(self, index: int) -> Sample:
        found = super().read(index)
        found.target.segments = None
        return found


class Floats(Shapes):
    """Of float images, as they are or once normalised."""

    def __init__(self, normalised: bool) -> None:
        super().__init__(None, "train", size=SIZE, train=3)
        self.normalised = normalised

    def read(self, index: int) -> Sample:
        found = super().read(index)
        pixels = found.image.float() / 255
        found.image = Image((pixels - pixels.mean()) / pixels.std() if self.normalised else pixels)
        return found


@pytest.mark.filterwarnings("error")
def test_an_image_that_looks_normalised_is_told_once() -> None:
    check_objects(Floats(False), "train")
    with pytest.warns(UserWarning, match="if it has been normalised, it is a second time") as said:
        check_objects(Floats(True), "train")
    assert len(said) == 1
