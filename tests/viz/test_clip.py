"""Frames of a clip side by side."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from segfolio.data.datasets import MovingShapes
from segfolio.data.sample import Prediction, to_pixels
from segfolio.viz.clip import clip_sheet, shown_frames
from segfolio.viz.views import views

FRAMES = 20


@pytest.mark.parametrize(("frames", "shown"), [(1, [0]), (3, [0, 1, 2]), (20, [0, 4, 8, 11, 15, 19])])
def test_frames_are_evenly_spaced_from_the_first_to_the_last(frames: int, shown: list[int]) -> None:
    assert shown_frames(frames) == shown


def test_the_truth_is_above_what_was_followed_in_the_same_colours() -> None:
    dataset = MovingShapes(None, "val", size=(32, 32), frames=FRAMES, val=1)
    samples = [dataset[place] for place in shown_frames(FRAMES)]
    each = []
    for sample in samples:
        assert sample.target is not None
        assert sample.target.segments is not None
        found = replace(sample.target.segments)
        (view,) = views(Prediction(sample.image_id, (32, 32), tracked=found), sample.target, dataset.labels)
        each.append(view)
    images, headings = [to_pixels(sample.image) for sample in samples], [f"frame {k}" for k in range(6)]
    sheet = clip_sheet(images, each, headings, dataset.labels, "a clip", max_width=1000)
    assert sheet.shape[1] <= 1000
    masked = replace(each[3], prediction=replace(each[3].prediction, ids=np.zeros((32, 32), int)))
    other = clip_sheet(images, [*each[:3], masked, *each[4:]], headings, dataset.labels, "a clip", max_width=1000)
    rows, columns = np.nonzero((sheet != other).any(2))
    width = sheet.shape[1] // 6
    assert 3 * width <= columns.min() <= columns.max() < 4 * width  # of the fourth frame alone
    top, place = rows.min(), (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    above = (sheet[top - up : place[0].stop - up, place[1]] for up in range(1, top))
    assert any(np.array_equal(each, sheet[place]) for each in above)


def test_frames_without_truth_are_shown_as_they_are() -> None:
    dataset = MovingShapes(None, "val", size=(32, 32), frames=2, val=1)
    sample = dataset[0]
    assert sample.target is not None
    assert sample.target.segments is not None
    followed = sample.target.segments[torch.arange(1)]
    (view,) = views(Prediction("a", (32, 32), tracked=followed), None, dataset.labels)
    sheet = clip_sheet([to_pixels(sample.image)], [view], ["frame 0"], dataset.labels)
    image = to_pixels(sample.image)
    assert {tuple(c) for c in image.reshape(-1, 3).tolist()} <= {tuple(c) for c in sheet.reshape(-1, 3).tolist()}
