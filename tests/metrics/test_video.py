"""J and F against the packages that others use: their numbers as stored, and themselves where they are installed; the
rules one by one.

`expected/video.json` is what `trackeval` 1.3.0 (DAVIS) and `vos-benchmark` 0.1.0 (SA-V), with scikit-image 0.26.0, say
of the clips that `case` draws: by rules and seed the figures of `NAMES`, as far as they have them. Both require
opencv-python, whose files are those of our opencv-python-headless, so they are no dependency. To make it again, with
`pip install --no-deps trackeval vos-benchmark scikit-image lazy-loader`: `python -m tests.metrics.test_video`.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segfolio.data.datasets import DAVIS2017, Shapes
from segfolio.data.formats import rle
from segfolio.data.image_ids import is_image_id
from segfolio.data.sample import Prediction, Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.metrics import Evaluation, VideoMetric
from segfolio.metrics.video import Statistics, boundary, boundary_f, jaccard
from tests.fake import davis2017
from tests.metrics.test_panoptic_quality import Dice

EXPECTED = Path(__file__).parent / "expected" / "video.json"
CASES = 80
NAMES = {"davis": ["J", "F", "J_recall", "F_recall", "J_decay", "F_decay"], "sav": ["J", "F"]}
SIZES = [(20, 30), (48, 64), (90, 70), (180, 240)]
"""At which the tolerance is 1, 1, 1 and 3 pixels."""

Ids = NDArray[Any]
"""`[T, H, W]` numbers of objects, 0 where there is none."""


def blob(dice: Dice, size: tuple[int, int]) -> Ids:
    """A rectangle or an ellipse, some of them with stripes cut out; it may touch the border."""
    y, x = np.mgrid[: size[0], : size[1]]
    top, left = dice(size[0]) - size[0] // 8, dice(size[1]) - size[1] // 8
    height, width = 2 + dice(size[0] // 2), 2 + dice(size[1] // 2)
    a, b = (y - top) / height, (x - left) / width
    mask = (a >= 0) & (a < 1) & (b >= 0) & (b < 1) if dice(2) else (2 * a - 1) ** 2 + (2 * b - 1) ** 2 <= 1
    if dice(5) == 0:
        mask &= (x + y) % 5 > 0
    return mask


def case(seed: int) -> tuple[Ids, Ids]:
    """A truth and a prediction of up to four objects that move, disappear and appear; 3 to 12 frames, or one in eight
    clips 30. Some are predicted as they are, some moved or grown, some as another or not at all."""
    dice = Dice(seed)
    size, frames = SIZES[dice(len(SIZES))], 30 if dice(8) == 0 else 3 + dice(10)
    truth, found = np.zeros((2, frames, *size), np.uint8)
    for number in range(1, 2 + dice(4)):
        mask, step, quality = blob(dice, size), (dice(5) - 2, dice(5) - 2), dice(4)
        hidden = range(0) if dice(2) else range(begin := dice(frames), begin + 1 + dice(frames))
        for t in range(frames):
            mask = np.roll(mask, step, (0, 1))
            if t not in hidden:
                truth[t][mask] = number
            if quality and dice(6):
                guess = np.roll(mask, (dice(5) - 2, dice(5) - 2), (0, 1)) if dice(3) else mask
                found[t][guess | np.roll(guess, dice(4), 1) if quality == 2 else guess] = number
    found[~np.isin(found, np.unique(truth))] = 0
    return found, truth


def pair(image_id: str, found: Ids, truth: Ids | None) -> tuple[Prediction, Target]:
    """A frame, of ids `[H, W]`; None where it is not annotated."""

    def segments(ids: Ids) -> Segments:
        numbers = np.unique(ids[ids > 0])
        masks = torch.from_numpy(ids == numbers[:, None, None])
        zeros = torch.zeros(len(numbers), dtype=torch.int64)
        return Segments(masks, zeros, zeros > 0, tracks=torch.from_numpy(numbers.astype(np.int64)))

    target = Target(segments=None if truth is None else segments(truth))
    return Prediction(image_id, found.shape, tracked=segments(found)), target


def figures(*clips: tuple[Any, Any], rules: str = "davis") -> dict[str, float]:
    metric = VideoMetric(Shapes.labels, rules)
    for number, (found, truth) in enumerate(clips):
        pairs = [pair(f"{number}/{t}", *frame) for t, frame in enumerate(zip(found, truth, strict=True))]
        metric.update_clip(*map(list, zip(*pairs, strict=True)))
    return {name: float(value) for name, value in metric.compute().items()}


def ours(seed: int, rules: str) -> list[float | None]:
    found = figures(case(seed), rules=rules)
    return [None if math.isnan(found[name]) else found[name] for name in NAMES[rules]]


def trackeval(seed: int) -> list[float | None]:
    """Each object of the first frame as a sequence of its own, which leaves nothing to be matched."""
    from trackeval.metrics import JAndF

    found, truth = case(seed)
    metric, sequences = JAndF(), {}
    for number in np.unique(truth[0][truth[0] > 0]).tolist():
        dets = [[[code] for code in rle.encode(ids[1:-1] == number)] for ids in (truth, found)]
        data = {"num_timesteps": len(truth) - 2, "num_gt_ids": 1, "num_tracker_ids": 1}
        data |= {"gt_dets": dets[0], "tracker_dets": dets[1]}
        data |= {name: [np.zeros(1, int)] * (len(truth) - 2) for name in ("gt_ids", "tracker_ids")}
        sequences[number] = metric.eval_sequence(data)
    if not sequences:
        return [None] * len(NAMES["davis"])
    all_of_them = metric.combine_sequences(sequences)
    return [float(all_of_them[f"{kind}-{what}"]) for what in ("Mean", "Recall", "Decay") for kind in "JF"]


def vos_benchmark(seed: int) -> list[float | None]:
    from vos_benchmark.evaluator import Evaluator

    evaluator = Evaluator()
    for found, truth in list(zip(*case(seed), strict=True))[1:-1]:
        evaluator.feed_frame(found, truth)
    means = [np.array(list(each.values())) / 100 for each in evaluator.conclude()]
    return [float(values.mean()) if len(values) else None for values in means]


OFFICIAL = {"davis": ("trackeval", trackeval), "sav": ("vos_benchmark", vos_benchmark)}


@pytest.mark.parametrize("rules", NAMES)
def test_drawn_clips_have_the_figures_of_others(rules: str) -> None:
    for seed, expected in enumerate(json.loads(EXPECTED.read_text())[rules]):
        assert ours(seed, rules) == pytest.approx(expected, abs=1e-12), seed


@pytest.mark.parametrize("rules", NAMES)
def test_drawn_clips_have_the_figures_of_others_where_these_are_installed(rules: str) -> None:
    package, official = OFFICIAL[rules]
    pytest.importorskip(package)
    for seed in range(CASES, CASES + 20):
        assert ours(seed, rules) == pytest.approx(official(seed), abs=1e-12), seed


def test_the_drawn_clips_have_all_that_the_rules_speak_of() -> None:
    stored = json.loads(EXPECTED.read_text())
    for rules in NAMES:
        assert len(stored[rules]) == CASES
        assert sum(row[0] is not None and 0 < row[0] < 1 and row[1] != row[0] for row in stored[rules]) > 60
    assert sum(a[0] != b[0] for a, b in zip(stored["davis"], stored["sav"], strict=True)) > 20
    came, went, never, empty = 0, 0, 0, 0
    for found, truth in map(case, range(CASES)):
        for number in np.unique(truth[truth > 0]):
            seen, guessed = ((ids == number).any((1, 2)) for ids in (truth, found))
            came += not seen[0]
            went += bool(seen[0]) and not seen.all()
            never += not guessed.any()
            empty += bool((~seen & ~guessed)[1:-1].any())
    assert min(came, went, never, empty) > 10


def square(left: int, top: int = 10, number: int = 1, size: tuple[int, int] = (480, 854)) -> Ids:
    """100 pixels wide and high."""
    ids = np.zeros(size, np.uint8)
    ids[top : top + 100, left : left + 100] = number
    return ids


NOTHING = np.zeros((480, 854), np.uint8)


def test_the_first_and_the_last_frame_do_not_count() -> None:
    here, elsewhere = square(50), square(500)
    for rules in NAMES:
        right = figures(([elsewhere, here, elsewhere], [here, here, here]), rules=rules)
        assert (right["J"], right["F"], right["J_and_F"]) == (1, 1, 1)
        wrong = figures(([here, elsewhere, here], [here, here, here]), rules=rules)
        assert (wrong["J"], wrong["F"], wrong["J_and_F"]) == (0, 0, 0)


def test_void_is_background(tmp_path: Path) -> None:
    """The lowest four of 48 rows are void, which object 2 is predicted to hold."""
    davis2017.write(tmp_path)
    dataset = DAVIS2017(tmp_path, "train", videos=True)
    samples = [dataset[i] for i in dataset.frames_of(0)]
    found = []
    for sample in samples:
        segments = sample.target.segments
        masks = segments.masks.clone()
        masks[segments.tracks == 2, -4:] = True
        tracked = Segments(masks, segments.labels, segments.crowd, tracks=segments.tracks)
        found.append(Prediction(sample.image_id, segments.size, tracked=tracked))
    metric = VideoMetric(dataset.labels)
    metric.update(found, [sample.target for sample in samples])
    area = 8 * 16
    assert float(metric.compute()["J"]) == pytest.approx((1 + area / (area + 4 * 64) + 1) / 3)


def test_the_objects_are_those_of_the_first_frame_or_all_that_are_seen() -> None:
    one, two = square(50), square(50) + square(500, number=2)
    later = [one, two, two, two], [one, one, two, two]
    assert figures(later)["J"] == 1  # the second comes later, and is no object
    found = figures(later, rules="sav")
    assert found["J"] == pytest.approx((1 + 1 / 2) / 2)  # the second is predicted a frame too early


def test_an_object_counts_from_where_it_is_first_seen_by_the_rules_of_sav() -> None:
    one, two = square(50), square(50) + square(500, number=2)
    truth = [one, one, one, two, two]
    missed = [one, one, one, one, one]
    assert figures((missed, truth), rules="sav")["J"] == pytest.approx((1 + 0) / 2)
    early = [one, two, one, two, two]  # too early, then right twice: empty beside empty, and the object
    assert figures((early, truth), rules="sav")["J"] == pytest.approx((1 + 2 / 3) / 2)


def test_the_tolerance_is_eight_pixels_at_480p() -> None:
    """0.008 of 979.6 is 7.84."""
    truth = np.zeros((1, 480, 854), np.bool_)
    truth[:, :, :300] = True
    assert {shift: boundary_f(*rle.encode(np.concatenate([np.roll(truth, shift, 2), truth]))) for shift in (8, 9)} == {
        8: pytest.approx(1 / 2 * 4 / 3),  # half of the moved boundary is at the left border, where there was none
        9: 0.0,
    }
    left, right = np.zeros((2, 1, 480, 854), np.bool_)
    left[:, :, :300], right[:, :, :308] = True, True
    assert boundary_f(*rle.encode(np.concatenate([left, right]))) == 1
    right[:, :, :309] = True
    assert boundary_f(*rle.encode(np.concatenate([left, right]))) == 0


def test_empty_masks() -> None:
    nothing, everything, something = rle.encode(
        np.stack([np.zeros((40, 50), np.bool_), np.ones((40, 50), np.bool_), np.eye(40, 50) > 0])
    )
    assert [jaccard(nothing, nothing), jaccard(nothing, something), jaccard(something, nothing)] == [1, 0, 0]
    assert [boundary_f(nothing, nothing), boundary_f(nothing, something), boundary_f(something, nothing)] == [1, 0, 0]
    assert [boundary_f(everything, everything), boundary_f(everything, something)] == [1, 0]  # it has no boundary


def test_the_boundary_lies_to_the_upper_left_and_the_border_is_none() -> None:
    mask = np.zeros((5, 6), np.bool_)
    mask[2:, 2:4] = True
    assert boundary(mask).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 0, 1, 0, 0],
        [0, 1, 0, 1, 0, 0],
        [0, 1, 0, 1, 0, 0],
    ]


def test_an_object_that_is_not_predicted_is_empty() -> None:
    here = square(50)
    found = figures(([here, NOTHING, here, here], [here, here, here, here]))
    assert (found["J"], found["F"]) == (0.5, 0.5)
    gone = figures(([here, NOTHING, here, here], [here, NOTHING, here, here]))
    assert (gone["J"], gone["F"]) == (1, 1)


def test_the_mean_is_over_objects_not_over_clips() -> None:
    one, three = square(50), square(50) + square(300, number=2) + square(600, number=3)
    wrong, right = ([one, square(500), one], [one] * 3), ([three] * 3, [three] * 3)
    assert figures(wrong, right)["J"] == 3 / 4


def test_each_object_has_figures_of_its_own() -> None:
    metric, two = VideoMetric(Shapes.labels), square(50) + square(300, number=2)
    for name, middle in (("bear", two), ("goat", square(50))):
        pairs = [pair(f"{name}/{t}", found, two) for t, found in enumerate([two, middle, two])]
        metric.update_clip(*map(list, zip(*pairs, strict=True)))
    assert metric.per_object() == {
        ("bear/0", 1): (1, 1),
        ("bear/0", 2): (1, 1),
        ("goat/0", 1): (1, 1),
        ("goat/0", 2): (0, 0),
    }


def test_recall_and_decay_of_an_object() -> None:
    values = np.array([1.0, 0.9, 0.6, 0.5, 0.4, 0.4, 0.1, 0.0])
    found = Statistics.of(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.recall == 3 / 8
    assert found.decay == pytest.approx((1.0 + 0.9 + 0.6) / 3 - (0.4 + 0.1 + 0.0) / 3)
    long = np.linspace(1, 0, 401)
    assert Statistics.of(long).decay == pytest.approx(long[:101].mean() - long[300:].mean())


def test_frames_without_annotation_are_left_out() -> None:
    """Four frames of six are annotated, of which the first and the last do not count."""
    here, away = square(50), square(400)
    truth = [here, None, here, None, here, here]
    for rules in NAMES:
        assert figures(([away, away, here, away, here, away], truth), rules=rules)["J"] == 1
        assert figures(([here, here, away, here, here, here], truth), rules=rules)["J"] == 0.5


def test_what_comes_back_has_a_figure_of_its_own() -> None:
    """The first object is away in the third frame, and right in one of the two that count after it."""
    both, second = square(50) + square(500, number=2), square(500, number=2)
    truth = [both, both, second, both, both, both]
    found = figures(([both, both, second, second, both, both], truth))
    assert found["J_reappeared"] == 0.5
    assert found["J"] == pytest.approx((3 / 4 + 1) / 2)
    assert math.isnan(figures(([both] * 4, [both] * 4))["J_reappeared"])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_clips_of_which_no_frame_counts_have_no_figure() -> None:
    here = square(50)
    for rules in NAMES:
        for clip in (([here] * 2, [here] * 2), ([here] * 3, [None] * 3), ([NOTHING] * 3, [NOTHING] * 3)):
            assert all(math.isnan(value) for value in figures(clip, rules=rules).values())
    assert all(math.isnan(value) for value in figures().values())


def test_clips_of_a_batch_are_measured_by_themselves() -> None:
    here, away = square(50), square(400)
    pairs = [pair(f"clip/{t}", found, here) for t, found in enumerate([here, here, here, away, away, away, away])]
    evaluation = Evaluation([VideoMetric(Shapes.labels)])
    evaluation.update(*map(list, zip(*pairs, strict=True)), [3, 4])
    assert float(evaluation.figures()["J"]) == 0.5
    assert all(is_image_id(prediction.image_id) for prediction, _ in pairs)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(SegfolioError, match="the rules of J and F are 'mose', expected davis or sav"):
        VideoMetric(Shapes.labels, "mose")  # type: ignore[arg-type]
    here = square(50)
    with pytest.raises(SegfolioError, match=r"^0/1: the prediction has the object 7, and the truth of its clip \[1\]"):
        figures(([here, square(50, number=7), here], [here] * 3))
    with pytest.raises(SegfolioError, match=r"^0/2: a mask is \[100, 854\] .* but the truth is \[480, 854\]"):
        figures(([here, here, here[:100]], [here] * 3))
    unnamed = pair("a", here, here)
    unnamed[0].tracked.tracks = None  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="a: J and F are of objects that are followed"):
        VideoMetric(Shapes.labels).update(*([each] for each in unnamed))
    twice = pair("a", square(50) + square(300, number=2), here)
    twice[0].tracked.tracks[:] = 1  # type: ignore[union-attr, index]
    with pytest.raises(ValueError, match=r"a: two objects have one number among \[1, 1\]"):
        VideoMetric(Shapes.labels).update(*([each] for each in twice))


if __name__ == "__main__":
    content = {rules: [official(seed) for seed in range(CASES)] for rules, (_, official) in OFFICIAL.items()}
    EXPECTED.write_text(json.dumps(content).replace("], ", "],\n") + "\n")
