"""J&F after each round in which one frame more is prompted."""

import math

import numpy as np
import pytest
import torch

from segfolio.data.datasets import Shapes
from segfolio.data.sample import Prediction, Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.metrics import VideoRoundsMetric
from segfolio.metrics.video import boundary_f, jaccard
from tests.metrics.test_video import NOTHING, Ids, pair, square

FRAMES = 5


def segments(ids: Ids) -> Segments:
    prediction, _ = pair("a", ids, None)
    assert prediction.tracked is not None
    return prediction.tracked


def clip(name: str, rounds: list[list[Ids]], truth: list[Ids | None]) -> tuple[list[Prediction], list[Target]]:
    """Of ids `[K][T]` after each round."""
    predictions, targets = [], []
    for t, true in enumerate(truth):
        shown = [segments(each[t]) for each in rounds]
        predictions.append(Prediction(f"{name}/{t}", NOTHING.shape, tracked_rounds=shown))
        targets.append(pair("a", NOTHING, true)[1])
    return predictions, targets


def figures(metric: VideoRoundsMetric) -> dict[str, float]:
    return {name: float(value) for name, value in metric.compute().items()}


def test_figures_are_means_over_objects_of_the_mean_over_frames() -> None:
    """One object is right in k of 5 frames after round k; another in all from the start."""
    here, beside = square(50), square(500, number=2)
    truth = [here + beside] * FRAMES
    rounds = [[beside + (here if t < k else NOTHING) for t in range(FRAMES)] for k in range(1, 9)]
    metric = VideoRoundsMetric(Shapes.labels)
    metric.update_clip(*clip("a", rounds, truth))
    metric.update_clip(*clip("b", [[here] * FRAMES] * 8, [here] * FRAMES))
    by_round = [min(k, 5) / 5 for k in range(1, 9)]
    found = figures(metric)
    assert found["J_and_F_1frame"] == pytest.approx((1 / 5 + 2) / 3)
    assert found["J_and_F_3frames"] == pytest.approx((3 / 5 + 2) / 3)
    assert found["J_and_F_8frames"] == 1
    assert found["J_and_F_rounds"] == pytest.approx((np.mean(by_round) + 2) / 3)
    assert found["NoP75"] == pytest.approx((4 + 1 + 1) / 3)
    assert [figure.name for figure in metric.figures] == list(found)


def test_j_and_f_have_equal_weight() -> None:
    truth, moved = square(50), square(53)
    metric = VideoRoundsMetric(Shapes.labels, 1)
    metric.update_clip(*clip("a", [[moved] * 3], [truth] * 3))
    (code,), (true,) = (segments(ids).rles for ids in (moved, truth))
    expected = (jaccard(code, true) + boundary_f(code, true)) / 2
    assert expected != jaccard(code, true)
    assert figures(metric)["J_and_F_1frame"] == pytest.approx(expected)


def test_an_object_counts_from_where_the_truth_first_has_it_and_in_annotated_frames() -> None:
    """It is wrong in the first frame and in the third, which do not count, and in one of the four others."""
    here, away = square(50), square(400)
    truth = [NOTHING, here, None, here, here, here]
    metric = VideoRoundsMetric(Shapes.labels, 1)
    metric.update_clip(*clip("a", [[away, here, away, here, away, here]], truth))
    assert figures(metric)["J_and_F_1frame"] == 3 / 4


def test_an_object_that_never_reaches_it_counts_as_all_rounds() -> None:
    metric = VideoRoundsMetric(Shapes.labels, 2)
    metric.update_clip(*clip("a", [[NOTHING] * 3] * 2, [square(50)] * 3))
    assert figures(metric) == {"J_and_F_1frame": 0, "J_and_F_rounds": 0, "NoP75": 2}


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_object_at_all_is_no_figure() -> None:
    metric = VideoRoundsMetric(Shapes.labels, 1)
    assert all(math.isnan(value) for value in figures(metric).values())
    metric.update_clip(*clip("a", [[NOTHING] * 3], [NOTHING] * 3))
    assert all(math.isnan(value) for value in figures(metric).values())


def test_what_cannot_be_compared_is_refused() -> None:
    here = square(50)
    with pytest.raises(SegfolioError, match="rounds of VideoRoundsMetric is 0; give at least 1"):
        VideoRoundsMetric(Shapes.labels, 0)
    metric = VideoRoundsMetric(Shapes.labels, 3)
    with pytest.raises(ValueError, match="a/0 has 2 rounds, the metric measures 3"):
        metric.update_clip(*clip("a", [[here] * 3] * 2, [here] * 3))
    with pytest.raises(SegfolioError, match=r"a/0: the prediction has the object 7, and the truth of its clip \[1\]"):
        metric.update_clip(*clip("a", [[square(50, number=7)] * 3] * 3, [here] * 3))
    predictions, targets = clip("a", [[here] * 3] * 3, [here] * 3)
    predictions[0].tracked_rounds[1].tracks = None
    with pytest.raises(ValueError, match="nothing says which is which"):
        metric.update_clip(predictions, targets)
    assert torch.is_tensor(targets[0].segments.tracks)  # type: ignore[union-attr]
