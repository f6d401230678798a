"""LVIS's figures against its own package: its numbers as stored, and itself where it is installed; its rules by hand.

`expected/federated.json` is what `lvis` 0.5.3 (with numpy 2.4.6, to which `np.float` was given back, and pycocotools
2.0.11) says of the cases that `case` draws: by kind and seed the thirteen figures, then the AP of each category; -1
where not defined. To make it again, with that package installed: `python -m tests.metrics.test_federated`.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segfolio.data.formats import rle
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Federated, Target
from segfolio.errors import SegfolioError
from segfolio.metrics import FederatedMetric, InstanceMetric, instance_metric
from segfolio.metrics.average_precision import Kind
from tests.metrics.test_average_precision import KINDS, of_kind
from tests.metrics.test_instance import SIZE, Pair, computed, from_json, predicted
from tests.metrics.test_instance import truth as annotated
from tests.metrics.test_panoptic_quality import Dice

EXPECTED = Path(__file__).parent / "expected" / "federated.json"
CASES = 60
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
NAMES = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "AP_small": "APs", "AP_medium": "APm", "AP_large": "APl"}
NAMES |= {f"AP_{name}": f"AP{letter}" for letter, name in FREQUENCIES.items()}
NAMES |= {"AR_300": "AR@300", "AR_small": "ARs@300", "AR_medium": "ARm@300", "AR_large": "ARl@300"}
"""Ours to theirs, in their order."""

Json = dict[str, Any]


def blob(dice: Dice, height: int, width: int) -> np.ndarray:
    """A box of any size, whole or with every third column missing; one in twelve is empty."""
    mask = np.zeros((height, width), np.bool_)
    y, x = dice(height), dice(width)
    mask[y : y + 1 + dice(height), x : x + 1 + dice(width)] = dice(12) > 0
    if dice(3) == 0:
        mask[:, ::3] = False
    return mask


def region(mask: np.ndarray, *, moved: float = 0.0) -> Json:
    """Run lengths of a mask, and its box, `moved` to the right."""
    (code,) = rle.encode(mask[None])
    x, y, width, height = rle.boxes([code])[0].tolist()
    return {"segmentation": rle.to_json(code), "bbox": [x + moved, y, width, height]}


def case(seed: int) -> tuple[Json, list[Json]]:
    """A truth as LVIS's files have it, and results with both masks and boxes.

    Some images are empty; some categories of an image are neither in the truth nor known to be absent, and some are
    not exhaustive, absent or not; areas are annotated, of empty masks they are 0. Half of the cases have ties, every
    sixth more than 300 detections in its images.
    """
    dice = Dice(seed)
    categories = [{"id": 2 + 3 * k, "name": f"c{k}", "frequency": "rcf"[dice(3)]} for k in range(2 + dice(5))]
    ids = [category["id"] for category in categories]
    crowded, ties, side = seed % 6 == 0, seed % 2 == 0, (40, 250, 400)[seed % 3]
    images: list[Json] = []
    annotations: list[Json] = []
    results: list[Json] = []
    for place in range(1 + dice(6)):
        height, width, number = side // 2 + dice(side // 2), side // 2 + dice(side // 2), 90 - 7 * place
        searched = {
            "neg_category_ids": [i for i in ids if dice(2)],
            "not_exhaustive_category_ids": [i for i in ids if dice(3) == 0],
        }
        images.append({"id": number, "height": height, "width": width, **searched})
        masks = [blob(dice, height, width) for _ in range(dice(6))]
        here = [ids[dice(len(ids))] for _ in range(2)]
        labels = [here[dice(2)] for _ in masks]
        for mask, label in zip(masks, labels, strict=True):
            area = float(mask.sum()) * (1, 1, 0.75, 1.25)[dice(4)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label,
                    "area": area,
                    "iscrowd": 0,
                    **region(mask, moved=dice(3) / 4),
                }
            )
        for _ in range(290 + dice(200) if crowded else 1 + dice(20)):
            near = dice(len(masks)) if masks and dice(2) else None
            mask = (
                blob(dice, height, width) if near is None else np.roll(masks[near], (dice(4) - 1, dice(4) - 1), (0, 1))
            )
            right = near is not None and dice(5) > 0
            results.append(
                {
                    "image_id": number,
                    "category_id": labels[near] if right else ids[dice(len(ids))],  # type: ignore[index]
                    "score": (1 + dice(4)) / 4 if ties else dice(2**20) / 2**20,
                    **region(mask, moved=dice(2) / 4),
                }
            )
    for place in range(len(results) - 1, 0, -1):
        other = dice(place + 1)
        results[place], results[other] = results[other], results[place]
    return {"images": images, "categories": categories, "annotations": annotations}, results


def official(seed: int, kind: Kind, folder: Path) -> list[float]:
    """What the `lvis` package says."""
    from lvis import LVIS, LVISEval, LVISResults

    truth, results = case(seed)
    (path := folder / "truth.json").write_text(json.dumps(truth))
    annotations = LVIS(str(path))
    evaluation = LVISEval(annotations, LVISResults(annotations, of_kind(results, kind)), kind)
    evaluation.run()
    of_categories = [np.ravel(evaluation.eval["precision"][:, :, k, 0]) for k in range(len(truth["categories"]))]
    per_category = [float(np.mean(s[s > -1])) if (s > -1).any() else -1.0 for s in of_categories]
    return [float(evaluation.results[name]) for name in NAMES.values()] + per_category


def as_pairs(truth: Json, results: list[Json]) -> tuple[LabelSpace, list[Pair]]:
    """Predictions and targets, last image first."""
    labels, pairs = from_json(truth, results)
    ids, images = [category["id"] for category in truth["categories"]], {i["id"]: i for i in truth["images"]}
    for _, target in pairs:
        searched = [images[target.number][f"{name}_category_ids"] for name in ("neg", "not_exhaustive")]
        target.federated = Federated(*(tuple(map(ids.index, numbers)) for numbers in searched))
    frequencies = tuple(FREQUENCIES[category["frequency"]] for category in truth["categories"])
    return replace(labels, frequencies=frequencies), pairs


def ours(seed: int, kind: Kind = "segm", max_dets: int = 300, **searched: tuple[int, ...]) -> list[float]:
    """In the order of what is stored; `searched` of all images in place of their own."""
    truth, results = case(seed)
    labels, pairs = as_pairs(truth, results)
    for _, target in pairs:
        assert target.federated is not None
        target.federated = replace(target.federated, **searched)
    figures = computed(FederatedMetric(labels, [kind], [max_dets]), pairs)
    figures["AR_300"] = figures.get(f"AR_{max_dets}", np.nan)
    suffix = "_box" if kind == "bbox" else ""
    names = [f"{name}{suffix}" for name in NAMES] + [f"AP{suffix}/{name}" for name in labels.names]
    return [-1.0 if np.isnan(figures[name]) else figures[name] for name in names]


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_cases_have_the_figures_of_lvis_to_the_last_bit(kind: Kind) -> None:
    for seed, expected in enumerate(json.loads(EXPECTED.read_text())[kind]):
        assert ours(seed, kind) == expected, seed


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_cases_have_the_figures_of_lvis_where_it_is_installed(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # numpy has dropped the name
    for seed in range(CASES, CASES + 10):
        assert ours(seed, kind) == official(seed, kind, tmp_path), seed


def test_the_drawn_cases_have_all_that_the_rules_speak_of() -> None:
    stored = json.loads(EXPECTED.read_text())["segm"]
    assert ((np.array([figures[:13] for figures in stored]) > 0).sum(0) >= CASES / 4).all(), "what is never found"
    for least, change in (
        (CASES / 4, {"absent": ()}),
        (CASES / 4, {"not_exhaustive": ()}),
        (CASES / 20, {"max_dets": 1000}),
    ):
        differing = sum(ours(seed, **change) != stored[seed] for seed in range(CASES))  # type: ignore[arg-type]
        assert differing >= least, change
    cases = [case(seed) for seed in range(CASES)]
    assert sum(a["area"] == 0 for truth, _ in cases for a in truth["annotations"]) > 10
    assert sum(r["bbox"][2] == 0 for _, results in cases for r in results) > 10
    assert sum({i["id"] for i in t["images"]} > {a["image_id"] for a in t["annotations"]} for t, _ in cases) > 10


LABELS = LabelSpace(("cat", "dog", "cow"), frequencies=("rare", "common", "frequent"))
CAT, DOG, COW = range(3)


def searched(*at: tuple[int, int], absent: tuple[int, ...] = (), not_exhaustive: tuple[int, ...] = ()) -> Target:
    """A truth of squares by column and label, and what else its image was searched for."""
    return replace(annotated(*at), federated=Federated(absent, not_exhaustive))


@pytest.mark.parametrize(
    ("known", "ap"),
    [
        pytest.param({"absent": (DOG,)}, 0.5, id="a class that it lacks"),
        pytest.param({}, 1.0, id="one of which nothing is known"),
        pytest.param({"not_exhaustive": (DOG,)}, 1.0, id="nor exhaustively"),
        pytest.param({"absent": (DOG,), "not_exhaustive": (DOG,)}, 1.0, id="one that it lacks in part"),
    ],
)
def test_what_is_found_where_nobody_looked_is_not_wrong(known: dict[str, Any], ap: float) -> None:
    """A dog, found in one image, and better still in another."""
    pairs = [
        (predicted("a", (0, DOG, 0.5)), searched((0, DOG))),
        (predicted("b", (50, DOG, 0.9)), searched((50, CAT), **known)),
    ]
    figures = computed(FederatedMetric(LABELS), pairs)
    assert figures["AP/dog"] == figures["AP_common"] == pytest.approx(ap)
    assert figures["AP/cat"] == figures["AP_rare"] == 0
    assert np.isnan(figures["AP_frequent"])
    assert figures["AP"] == pytest.approx(ap / 2)


@pytest.mark.parametrize(("not_exhaustive", "ap"), [((), 0.5), ((CAT,), 1.0)])
def test_more_objects_than_are_annotated_are_wrong_only_if_all_are(not_exhaustive: tuple[int, ...], ap: float) -> None:
    pair = predicted("a", (0, CAT, 0.5), (50, CAT, 0.9)), searched((0, CAT), not_exhaustive=not_exhaustive)
    assert computed(FederatedMetric(LABELS), [pair])["AP"] == pytest.approx(ap)


def test_detections_of_an_image_are_counted_over_all_classes() -> None:
    """The cat comes third, after two that do not count."""
    pair = predicted("a", (0, COW, 0.9), (0, COW, 0.8), (0, CAT, 0.7)), searched((0, CAT))
    figures = computed(FederatedMetric(LABELS, max_dets=[2, 3]), [pair])
    assert (figures["AR_2"], figures["AR_3"], figures["AP"]) == pytest.approx((0, 1, 1))
    assert computed(FederatedMetric(LABELS, max_dets=[2]), [pair])["AP"] == 0


def test_what_has_no_area_is_neither_truth_nor_detection() -> None:
    prediction, target = predicted("a", (0, CAT, 0.5), (SIZE[1], CAT, 0.9)), searched((0, CAT), (30, CAT))
    assert target.segments is not None
    target.segments.areas = torch.tensor([100.0, 0.0], dtype=torch.float64)
    assert computed(FederatedMetric(LABELS), [(prediction, target)])["AP"] == pytest.approx(1)


def test_nothing_found_is_0_and_no_image_nan() -> None:
    figures = computed(FederatedMetric(LABELS), [(predicted("a"), searched((0, CAT)))])
    assert (figures["AP"], figures["AR_300"]) == (0, 0)
    assert np.isnan(figures["AP/dog"])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_image_at_all_is_nan() -> None:
    assert all(np.isnan(value) for value in computed(FederatedMetric(LABELS, KINDS), []).values())


def test_only_things_count() -> None:
    """A dog that is stuff: nor is it among the classes that an image lacks."""
    labels = replace(LABELS, things=("cat", "cow"))
    pair = predicted("a", (0, CAT, 0.5), (60, DOG, 0.9)), searched((0, CAT), absent=(DOG, COW))
    figures = computed(FederatedMetric(labels), [pair])
    assert figures["AP"] == figures["AP_rare"] == pytest.approx(1)
    assert np.isnan(figures["AP_common"])


def test_a_dataset_is_measured_by_what_it_says() -> None:
    assert type(instance_metric(LABELS)) is FederatedMetric
    assert type(instance_metric(replace(LABELS, frequencies=()))) is InstanceMetric
    found = instance_metric(LABELS, ["bbox"], [1, 10, 100])
    assert (found.kinds, found.max_dets) == (("bbox",), (300,))
    with pytest.raises(SegfolioError, match="this one does not say for which: use InstanceMetric"):
        FederatedMetric(replace(LABELS, frequencies=()))
    with pytest.raises(SegfolioError, match=r"^a: its dataset does not say for which classes"):
        found.update(predicted("a"), annotated())


if __name__ == "__main__":
    vars(np)["float"] = float  # numpy has dropped the name
    with tempfile.TemporaryDirectory() as folder:
        content = {kind: [official(seed, kind, Path(folder)) for seed in range(CASES)] for kind in KINDS}
    EXPECTED.write_text(json.dumps(content).replace("], ", "],\n") + "\n")
