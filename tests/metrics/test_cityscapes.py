"""Cityscapes' figures against its own evaluation script: its numbers as stored, and itself where it is installed."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.metrics import CityscapesMetric, SemanticMetric
from segfolio.metrics.cityscapes import CATEGORIES, INSTANCE_SIZES

EXPECTED = Path(__file__).parent / "expected" / "cityscapes.json"
VOID = (0, 3, 9, 14, 29, 30)  # of them 29 and 30, caravan and trailer, have instances
LABELS = LabelSpace(
    tuple(name for names in CATEGORIES.values() for name in names),
    (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
    VOID,
    things=tuple(INSTANCE_SIZES),
)
SEEDS = (0, 1, 2)
Map = np.ndarray[Any, Any]


def images(seed: int) -> Iterator[tuple[Map, Map, Map]]:
    """Predicted ids, true ids and instance ids of four images of 48 x 64, in Cityscapes' own numbers.

    Objects are blocks of 4 x 4 to 12 x 12 pixels, a third of them groups without instance ids; the first seed has
    every class, the others lack some.
    """
    rng = np.random.default_rng(seed)
    ids = rng.permutation(LABELS.ids)[: 19 - 6 * seed]
    for _ in range(4):
        truth = np.kron(rng.choice([*ids, *VOID], (6, 8)), np.ones((8, 8), int))
        instances = truth.copy()
        for number in range(12):
            y, x = rng.integers(0, (44, 60))
            h, w = rng.integers(4, 13, 2)
            kind = rng.choice([i for i in ids if i >= 24] + [29, 30])
            truth[y : y + h, x : x + w] = kind
            instances[y : y + h, x : x + w] = kind if number % 3 == 0 else 1000 * kind + number
        wrong = np.kron(rng.random((12, 16)) < 0.4, np.ones((4, 4), bool)) | np.isin(truth, VOID)
        prediction = np.where(wrong, np.kron(rng.choice(ids, (12, 16)), np.ones((4, 4), int)), truth)
        yield prediction.astype(np.uint8), truth.astype(np.uint8), instances.astype(np.uint16)


def as_target(truth: Map, instances: Map) -> Target:
    values = [v for v in np.unique(instances) if LABELS.encode(np.uint8([v if v < 1000 else v // 1000]), "")[0] != 255]
    values = [v for v in values if v >= 1000 or v in LABELS.ids[11:]]  # instances, and groups of things
    id_map = np.zeros(instances.shape, np.int32)
    for place, value in enumerate(values, 1):
        id_map[instances == value] = place
    kinds = torch.tensor([LABELS.ids.index(v if v < 1000 else v // 1000) for v in values])
    segments = Segments(torch.from_numpy(id_map), kinds, torch.tensor([v < 1000 for v in values]))
    return Target(Mask(torch.from_numpy(LABELS.encode(truth, "truth"))), segments)


def ours(seed: int) -> dict[str, float]:
    metrics = SemanticMetric(LABELS), CityscapesMetric(LABELS)
    for number, (predicted, truth, instances) in enumerate(images(seed)):
        semantic = torch.from_numpy(LABELS.encode(predicted, "prediction"))
        for metric in metrics:
            metric.update(Prediction(str(number), truth.shape, semantic), as_target(truth, instances))
    return {name: float(value) for metric in metrics for name, value in metric.compute().items()}


def official(seed: int, folder: Path) -> dict[str, Any]:
    """The official script's results for `images(seed)`, NaN as None."""
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script
    from PIL import Image

    predictions, truths = [], []
    for number, maps in enumerate(images(seed)):
        names = [str(folder / f"a_{number}_0_{kind}.png") for kind in ("prediction", "labelIds", "instanceIds")]
        for name, pixels in zip(names, maps, strict=True):
            Image.fromarray(pixels).save(name)
        predictions.append(names[0])
        truths.append(names[1])
    script.args.quiet, script.args.JSONOutput = True, False
    results = script.evaluateImgLists(predictions, truths, script.args)
    kept = {key: value for key, value in results.items() if key.startswith(("average", "class", "category"))}
    return json.loads(json.dumps(kept).replace("NaN", "null"))


def expect_equal(found: dict[str, float], expected: dict[str, Any]) -> None:
    for figure, key in (
        ("mIoU", "averageScoreClasses"),
        ("iIoU", "averageScoreInstClasses"),
        ("IoU_category", "averageScoreCategories"),
        ("iIoU_category", "averageScoreInstCategories"),
    ):
        assert found[figure] == pytest.approx(expected[key], abs=1e-12), figure
    compared = 0
    for figure, key in (
        ("IoU", "classScores"),
        ("iIoU", "classInstScores"),
        ("IoU_category", "categoryScores"),
        ("iIoU_category", "categoryInstScores"),
    ):
        for name, value in expected[key].items():
            if value is None:
                assert math.isnan(found.get(f"{figure}/{name}", math.nan)), (figure, name)
            else:
                assert found[f"{figure}/{name}"] == pytest.approx(value, abs=1e-12), (figure, name)
                compared += 1
    assert compared >= 12


@pytest.mark.parametrize("seed", SEEDS)
def test_figures_equal_those_the_official_script_gave(seed: int) -> None:
    expect_equal(ours(seed), json.loads(EXPECTED.read_text())[str(seed)])


@pytest.mark.parametrize("seed", SEEDS)
def test_figures_equal_the_official_script(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # numpy has dropped the name
    expect_equal(ours(seed), official(seed, tmp_path))


def test_a_small_instance_weighs_as_much_as_a_large_one() -> None:
    """Two cars of 2 and 8 pixels, the large one found; a crowd of 4 that is missed; 3 pixels of road called car."""
    labels = LabelSpace(("road", "car"), things=("car",))
    semantic = torch.tensor([[1] * 2 + [1] * 8 + [1] * 4 + [0] * 6], dtype=torch.uint8)
    places = torch.tensor([[1] * 2 + [2] * 8 + [3] * 4 + [0] * 6], dtype=torch.int32)
    segments = Segments(places, torch.tensor([1, 1, 1]), torch.tensor([False, False, True]))
    found = torch.tensor([[0] * 2 + [1] * 8 + [0] * 4 + [1] * 3 + [0] * 3], dtype=torch.uint8)
    metric = CityscapesMetric(labels, {"all": ["road", "car"], "vehicle": ["car"]}, {"car": 10.0})
    metric.update(Prediction("a", (1, 20), found), Target(Mask(semantic), segments))
    figures = {name: float(value) for name, value in metric.compute().items()}
    assert figures["iIoU"] == figures["iIoU/car"] == figures["iIoU_category/vehicle"] == 10 / (10 + 10 + 3)
    assert figures["IoU_category/vehicle"] == 8 / (14 + 3)
    assert figures["IoU_category/all"] == 1
    assert "iIoU/road" not in figures
    assert "iIoU_category/all" not in figures


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_image_is_nan() -> None:
    assert all(value.isnan() for value in CityscapesMetric(LABELS).compute().values())


def test_what_does_not_fit_the_dataset_is_named() -> None:
    labels = LabelSpace(("road", "bike"), things=("bike",))
    with pytest.raises(SegfolioError, match=r"categories name building, .*; its classes are road, bike"):
        CityscapesMetric(labels, {"construction": ["building"]})
    with pytest.raises(SegfolioError, match="instance_sizes lacks the thing bike"):
        CityscapesMetric(labels, {"flat": ["road"]})
    with pytest.raises(SegfolioError, match="the dataset has no segments"):
        CityscapesMetric(LABELS).update(Prediction("a", (1, 1)), Target(Mask(torch.zeros(1, 1).byte())))
