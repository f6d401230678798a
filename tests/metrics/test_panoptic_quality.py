"""The figures of panopticapi on 125 drawn images and on real ones, and its rules on cases made by hand.

`expected/panoptic_quality.json` is what `panopticapi.evaluation.pq_compute` (commit 7bb4655) says of the files that
`write` leaves. To make it again, with panopticapi installed: `python -m tests.metrics.test_panoptic_quality DATA`,
where DATA is the folder of the `real_data` fixture.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from segfolio.data.datasets.coco_panoptic import CocoPanoptic
from segfolio.data.formats.panoptic import panoptic_annotation, panoptic_json, write_panoptic
from segfolio.data.labels import LabelSpace
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.data.sample import Segments, Target
from segfolio.metrics.panoptic_quality import match, quality

EXPECTED = Path(__file__).parent / "expected" / "panoptic_quality.json"
GROUPS, IMAGES, SIZE = 25, 5, (40, 56)
LABELS = LabelSpace(tuple("abcdefghijkl"), tuple(range(3, 39, 3)), (0,), tuple("abcdefg"))
SAMPLE = {"annotations": "panoptic_examples.json", "panoptic": "panoptic_examples", "images": "input_images"}

Pair = tuple[Segments, Segments]
"""Prediction and truth."""


class Dice:
    """Whole numbers of `random.random()` alone, whose sequence Python promises to keep."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def __call__(self, n: int) -> int:
        return int(self._rng.random() * n)


def visible(ids, labels, crowd) -> Segments:
    return panoptic_truth(Target(segments=Segments(*map(torch.tensor, (ids, labels, crowd)))), LABELS)


def rectangle(dice: Dice, size: tuple[int, int]) -> tuple[slice, slice]:
    y, x = dice(size[0]), dice(size[1])
    return slice(y, y + size[0] // 8 + dice(size[0] // 2)), slice(x, x + size[1] // 8 + dice(size[1] // 2))


def drawn(dice: Dice) -> Segments:
    """Rectangles over rectangles, some of them void, crowds among the things."""
    ids, labels = np.full(SIZE, dice(2), np.int32), [7 + dice(5)]
    for _ in range(4 + dice(10)):
        labels.append(dice(12))
        ids[rectangle(dice, SIZE)] = len(labels) if dice(6) else 0
    return visible(ids, labels, [label < 7 and dice(4) == 0 for label in labels])


def guessed(dice: Dice, truth: Segments, classes: int) -> Segments:
    """The truth moved; segments missed, split, merged and confused; others where none are; at times nothing."""
    ids = np.roll(truth.form.numpy(), (dice(5) - 2, dice(5) - 2), (0, 1))
    labels = truth.labels.tolist()
    for place in range(1, len(labels) + 1):
        inside, fate = ids == place, dice(10)
        if fate == 0:
            ids[inside] = 0
        elif fate == 1:
            labels.append(labels[place - 1])
            ids[inside & (np.arange(ids.shape[1]) < dice(ids.shape[1]))] = len(labels)
        elif fate == 2:
            ids[inside] = 1 + dice(len(labels))
        elif fate == 3:
            labels[place - 1] = dice(classes)
    for _ in range(dice(4)):
        labels.append(labels[dice(len(labels))] if labels and dice(2) else dice(classes))
        ids[rectangle(dice, ids.shape)] = len(labels)
    if labels and dice(2):
        ids[ids == 0] = 1 + dice(len(labels))
    return visible(ids if dice(12) else ids * 0, labels, [False] * len(labels))


def drawn_group(seed: int) -> list[Pair]:
    dice = Dice(seed)
    truths = [drawn(dice) for _ in range(IMAGES)]
    return [(guessed(dice, truth, 12), truth) for truth in truths]


def real_group(seed: int, dataset: CocoPanoptic) -> list[Pair]:
    dice = Dice(seed)
    truths = [panoptic_truth(dataset[i].target, dataset.labels) for i in range(len(dataset))]
    return [(guessed(dice, truth, dataset.labels.num_classes), truth) for truth in truths]


def real_dataset(data: Path) -> CocoPanoptic:
    return CocoPanoptic(data / "coco_panoptic" / "sample_data", "val", **SAMPLE)


def stats_of(pairs: list[Pair], labels: LabelSpace) -> torch.Tensor:
    return torch.from_numpy(sum(match(*pair, labels.num_classes) for pair in pairs))


def figures(pairs: list[Pair], labels: LabelSpace) -> dict[str, list[float]]:
    """Ours, in the form of `theirs`."""
    per_class = quality(stats_of(pairs, labels))
    things = torch.tensor(labels.is_thing)
    found = {}
    for kind, chosen in (("All", things | True), ("Things", things), ("Stuff", ~things)):
        found[kind] = [*per_class[chosen].nanmean(0).tolist(), (~per_class[chosen, 0].isnan()).sum().item()]
    named = zip(labels.ids, per_class.nan_to_num(0).tolist(), strict=True)
    return found | {str(number): row for number, row in named if any(row)}


def write(pairs: list[Pair], labels: LabelSpace, root: Path) -> tuple[str, str]:
    """The files that panopticapi takes: truth and prediction, each a JSON and a folder of PNGs of large ids."""
    paths = []
    for kind, side in (("truth", 1), ("prediction", 0)):
        annotations = []
        for number, segments in enumerate(pair[side] for pair in pairs):
            write_panoptic(root / kind / f"{number}.png", segments.form.numpy() * 70_001)
            annotation = panoptic_annotation(segments, labels, number, f"{number}.png")
            annotation["segments_info"] = [i | {"id": i["id"] * 70_001} for i in annotation["segments_info"]]
            annotations.append(annotation)
        paths.append(root / f"{kind}.json")
        paths[-1].write_text(json.dumps(panoptic_json(annotations, labels)))
    return str(paths[0]), str(paths[1])


def theirs(pairs: list[Pair], labels: LabelSpace) -> dict[str, list[float]]:
    """Of panopticapi: PQ, SQ, RQ and number of classes of each kind; PQ, SQ, RQ of classes that are not 0."""
    from panopticapi.evaluation import pq_compute

    with tempfile.TemporaryDirectory() as folder:
        results = pq_compute(*write(pairs, labels, Path(folder)))
    found = {kind: [results[kind][key] for key in ("pq", "sq", "rq", "n")] for kind in ("All", "Things", "Stuff")}
    return found | {str(k): [*row.values()] for k, row in results["per_class"].items() if any(row.values())}


def agree(ours: dict[str, list[float]], other: dict[str, list[float]]) -> None:
    assert ours.keys() == other.keys()
    for key, values in other.items():
        assert ours[key] == pytest.approx(values, abs=1e-12, rel=0), key


@pytest.mark.parametrize("seed", range(GROUPS))
def test_drawn_images_have_the_figures_of_panopticapi(seed):
    agree(figures(drawn_group(seed), LABELS), json.loads(EXPECTED.read_text())["drawn"][seed])


def test_real_images_have_the_figures_of_panopticapi(real_data):
    dataset = real_dataset(real_data)
    for seed, expected in enumerate(json.loads(EXPECTED.read_text())["real"]):
        agree(figures(real_group(seed, dataset), dataset.labels), expected)


def test_drawn_images_have_the_figures_of_panopticapi_where_it_is_installed():
    pytest.importorskip("panopticapi")
    pairs = drawn_group(GROUPS)
    agree(figures(pairs, LABELS), theirs(pairs, LABELS))


def test_the_drawn_images_have_all_that_the_rules_speak_of():
    groups = [drawn_group(seed) for seed in range(GROUPS)]
    pairs = [pair for group in groups for pair in group]
    assert sum(len(prediction) == 0 for prediction, _ in pairs) >= 5
    assert sum(int(truth.crowd.sum()) > 1 for _, truth in pairs) >= 20
    assert sum(bool((truth.form == 0).any()) for _, truth in pairs) >= 50
    _, tp, fp, fn = sum(stats_of(group, LABELS) for group in groups).sum(0).tolist()
    assert min(tp, fp, fn) > 150


CAT, DOG, SKY = 0, 1, 11


def segments(row: str, labels: str = "", crowd: str = "") -> Segments:
    """A map of one row, of digits, with its labels and the places of crowds; `.` is void."""
    ids = torch.tensor([[int(c) for c in row.replace(".", "0")]], dtype=torch.int32)
    kinds = torch.tensor([{"c": CAT, "d": DOG, "s": SKY}[name] for name in labels], dtype=torch.int64)
    return Segments(ids, kinds, torch.tensor([str(i) in crowd for i in range(1, len(labels) + 1)], dtype=torch.bool))


@pytest.mark.parametrize(
    ("prediction", "truth", "cat"),
    [
        # IoU, TP, FP, FN of cat
        pytest.param(("1111....", "c"), ("1111....", "c"), (1, 1, 0, 0), id="right"),
        pytest.param(("111111..", "c"), ("1111....", "c"), (1, 1, 0, 0), id="what it has in void is not in the union"),
        pytest.param(("111111..", "c"), ("111122..", "cs"), (4 / 6, 1, 0, 0), id="what it has in others is"),
        pytest.param(("11......", "c"), ("1111....", "c"), (0, 0, 1, 1), id="an IoU of 0.5 is no match"),
        pytest.param(("1111....", "c"), ("1111....", "d"), (0, 0, 1, 0), id="another class"),
        pytest.param(("........", ""), ("1111....", "c"), (0, 0, 0, 1), id="missed"),
        pytest.param(("1111....", "c"), ("........", ""), (0, 0, 0, 0), id="in void"),
        pytest.param(("1111....", "c"), ("11......", "s"), (0, 0, 1, 0), id="half in void"),
        pytest.param(("1111....", "c"), ("1.......", "s"), (0, 0, 0, 0), id="more than half in void"),
        pytest.param(("........", ""), ("1111....", "c", "1"), (0, 0, 0, 0), id="a crowd is not missed"),
        pytest.param(("1111....", "c"), ("1111....", "c", "1"), (0, 0, 0, 0), id="nor matched"),
        pytest.param(("1111....", "c"), ("1111....", "d", "1"), (0, 0, 1, 0), id="a crowd of another class"),
        pytest.param(("1111....", "c"), ("1122....", "cs", "1"), (0, 0, 1, 0), id="half in a crowd"),
        pytest.param(("1111....", "c"), ("1.22....", "ds", ""), (0, 0, 1, 0), id="a quarter in void"),
        pytest.param(("1111....", "c"), ("11.2....", "cs", "1"), (0, 0, 0, 0), id="void and crowd add up"),
        pytest.param(("1111....", "c"), ("1112....", "cc", "12"), (0, 0, 1, 0), id="of two crowds the last counts"),
        pytest.param(("1111....", "c"), ("1222....", "cc", "12"), (0, 0, 0, 0), id="of two crowds the last one"),
        pytest.param(("11112222", "cc"), ("11111111", "c"), (0, 0, 2, 1), id="split in halves"),
        pytest.param(("11111222", "cc"), ("11111111", "c"), (5 / 8, 1, 1, 0), id="split unevenly"),
        pytest.param(("11111111", "c"), ("11111222", "cc"), (5 / 8, 1, 0, 1), id="merged"),
        pytest.param(("1111....", "cc"), ("1111....", "c"), (1, 1, 0, 0), id="a segment without a pixel is none"),
    ],
)
def test_rules(prediction, truth, cat):
    assert match(segments(*prediction), segments(*truth), 12)[CAT].tolist() == pytest.approx(cat)


def test_quality_of_counts():
    """Class 1 has no match, class 2 does not occur."""
    stats = torch.tensor([[1.5, 2, 1, 2], [0, 0, 3, 1], [0, 0, 0, 0]], dtype=torch.float64)
    assert quality(stats)[:2].tolist() == [pytest.approx([1.5 / 3.5, 0.75, 2 / 3.5]), [0, 0, 0]]
    assert quality(stats)[2].isnan().all()


def test_what_cannot_be_compared_is_an_error():
    good = segments("11", "c")
    with pytest.raises(ValueError, match=r"prediction is \(1, 2\), its truth \(1, 3\) pixels"):
        match(good, segments("111", "c"), 12)
    with pytest.raises(ValueError, match="ids are 1 to 2, expected 0 to 1"):
        match(segments("12", "c"), good, 12)
    with pytest.raises(ValueError, match="labels are 11 to 11, expected 0 to 1"):
        match(good, segments("11", "s"), 2)


if __name__ == "__main__":
    dataset = real_dataset(Path(sys.argv[1]))
    content = {
        "drawn": [theirs(drawn_group(seed), LABELS) for seed in range(GROUPS)],
        "real": [theirs(real_group(seed, dataset), dataset.labels) for seed in range(6)],
    }
    EXPECTED.parent.mkdir(exist_ok=True)
    EXPECTED.write_text(json.dumps(content).replace("}, ", "},\n") + "\n")
