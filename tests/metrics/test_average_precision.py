"""COCO's AP and AR, against pycocotools to the last bit and against counts by hand."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segfolio.data.formats import rle
from segfolio.errors import SegfolioError
from segfolio.metrics.average_precision import AveragePrecision, Kind, evaluate, evaluate_files

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
NAMES += ("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")
KINDS: tuple[Kind, ...] = ("segm", "bbox")
REGION = {"segm": "segmentation", "bbox": "bbox"}
CASES = 200


def by_pycocotools(
    annotations: Any, results: Any, kind: Kind, max_dets: tuple[int, ...] = (1, 10, 100), classes: bool = True
) -> tuple[list[float], list[float]]:
    """The twelve figures and the AP of each category; -1 where not defined."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        if results:
            found = truth.loadRes(copy.deepcopy(results))
        else:  # which loadRes does not take
            found.dataset = {**annotations, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, kind)
        evaluation.params.maxDets, evaluation.params.useCats = list(max_dets), int(classes)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]
    of_categories = [precision[:, :, k, 0, -1] for k in range(precision.shape[2])]
    return evaluation.stats.tolist(), [float(np.mean(s[s > -1])) if (s > -1).any() else -1 for s in of_categories]


def ours(result: AveragePrecision) -> tuple[list[float], list[float]]:
    figures = list(result.figures.values()), result.per_category
    return tuple([-1 if np.isnan(v) else v for v in values] for values in figures)  # type: ignore[return-value]


def blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A box, whole or frayed, of any size; one in ten is empty."""
    mask = np.zeros((height, width), np.bool_)
    y, x = rng.integers(height), rng.integers(width)
    mask[y : y + rng.integers(1, height), x : x + rng.integers(1, width)] = rng.random() < 0.9
    return mask & (rng.random(mask.shape) < rng.choice([0.8, 1.0]))


def segmentation(rng: np.random.Generator, mask: np.ndarray) -> Any:
    """Run lengths, compressed or not, or a polygon around the mask."""
    (code,), (box,) = rle.encode(mask[None]), rle.boxes(rle.encode(mask[None]))
    x, y, w, h = box.tolist()
    match rng.integers(4):
        case 0 if w * h > 0:
            return [[x, y, x + w, y, x + w, y + h, x, y + h]]
        case 1:
            return {"size": code["size"], "counts": rle.to_counts(code).tolist()}
    return {"size": code["size"], "counts": code["counts"].decode()}


def random_case(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations, and results that have both masks and boxes."""
    rng = np.random.default_rng(seed)
    sizes = [(int(h), int(w)) for h, w in rng.integers(20, rng.choice([60, 140, 400]), (rng.integers(1, 5), 2))]
    image_ids = rng.choice(1000, len(sizes), replace=False).tolist()
    category_ids = rng.choice(100, rng.integers(1, 4), replace=False).tolist()
    ties, crowded, truths = rng.random() < 0.5, seed % 10 == 0, seed % 15 != 1
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (height, width) in zip(image_ids, sizes, strict=True):
        masks = [blob(rng, height, width) for _ in range(rng.integers(5))]
        labels = rng.choice(category_ids, len(masks)).tolist()
        for mask, category in zip(masks, labels, strict=True):
            code = rle.encode(mask[None])
            annotations.append(
                {
                    "image_id": image,
                    "category_id": category,
                    "iscrowd": int(rng.random() < 0.2),
                    "segmentation": segmentation(rng, mask),
                    "area": float(rle.areas(code)[0] * rng.choice([1.0, 1.0, 0.7, 1.3])),
                    "bbox": (rle.boxes(code)[0] + rng.choice([0, 0.3, 4], 4)).tolist(),
                }
            )
        for _ in range(rng.integers(102, 130) if crowded else rng.integers(8)):
            near = masks and rng.random() < 0.7
            place = rng.integers(len(masks)) if near else 0
            mask = np.roll(masks[place], rng.integers(-2, 3, 2), (0, 1)) if near else blob(rng, height, width)
            code = rle.encode(mask[None])
            results.append(
                {
                    "image_id": image,
                    "category_id": labels[place] if near and rng.random() < 0.8 else int(rng.choice(category_ids)),
                    "score": float(rng.integers(1, 5) / 4 if ties else rng.random()),
                    "segmentation": {"size": code[0]["size"], "counts": code[0]["counts"].decode()},
                    "bbox": (rle.boxes(code)[0] + rng.choice([0, 0.2], 4)).tolist(),
                }
            )
    rng.shuffle(annotations)
    rng.shuffle(results)
    truth = {
        "images": [{"id": i, "height": h, "width": w} for i, (h, w) in zip(image_ids, sizes, strict=True)],
        "categories": [{"id": c, "name": str(c)} for c in category_ids],
        "annotations": [{"id": 3 * n + 1, **a} for n, a in enumerate(annotations)] if truths else [],
    }
    return truth, results if seed % 15 != 2 else []


def of_kind(results: list[dict[str, Any]], kind: Kind) -> list[dict[str, Any]]:
    """pycocotools takes the area of a box even where masks are evaluated, if the result has one."""
    drop = REGION["bbox" if kind == "segm" else "segm"]
    return [{key: value for key, value in result.items() if key != drop} for result in results]


@pytest.mark.parametrize("kind", KINDS)
def test_random_cases_equal_pycocotools_to_the_last_bit(kind: Kind) -> None:
    defined = np.zeros(12, np.int64)
    for seed in range(CASES):
        truth, results = random_case(seed)
        results = of_kind(results, kind)
        expected = by_pycocotools(truth, results, kind)
        found = evaluate(truth, results, kind)
        assert tuple(found.figures) == NAMES
        assert ours(found) == expected, seed
        defined += np.array(expected[0]) > 0
    assert (defined > CASES / 20).all(), "cases in which nothing is found test nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_other_numbers_of_detections(kind: Kind) -> None:
    """pycocotools, too, sums up for any numbers; but its AP, which looks for 100, then is -1."""
    for seed in range(10):
        truth, results = random_case(seed)
        results = of_kind(results, kind)
        expected, per_category = by_pycocotools(truth, results, kind, max_dets=(2, 5, 20))
        found = evaluate(truth, results, kind, max_dets=(20, 2, 5))
        assert list(found.figures)[6:9] == ["AR_2", "AR_5", "AR_20"]
        assert expected[0] == -1
        assert (ours(found)[0][1:], ours(found)[1]) == (expected[1:], per_category)
        of_categories = [ap for ap in found.per_category if not np.isnan(ap)]
        assert not of_categories or found.figures["AP"] == pytest.approx(np.mean(of_categories))


@pytest.mark.parametrize("kind", KINDS)
def test_real_annotations_equal_pycocotools(real_data: Path, kind: Kind) -> None:
    """Nuclei that were moved, lost and found twice, with random scores; more than 100 in some images."""
    annotations = json.loads((real_data / "dsb2018" / "instances_val.json").read_text())
    rng = np.random.default_rng(0)
    results = []
    for truth in annotations["annotations"]:
        size = tuple(truth["segmentation"]["size"])
        (mask,) = rle.decode([rle.from_segmentation(truth["segmentation"], size)], size)
        for _ in range(rng.choice([0, 1, 1, 2])):
            shift = rng.integers(-1, 2, 2)
            (code,) = rle.encode(np.roll(mask, shift, (0, 1))[None])
            region = {
                "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
                "bbox": np.add(truth["bbox"], [*shift[::-1], 0, 0]).tolist(),
            }
            named = {name: truth[name] for name in ("image_id", "category_id")}
            results.append({**named, "score": rng.random(), REGION[kind]: region[REGION[kind]]})
    expected = by_pycocotools(annotations, results, kind)
    assert ours(evaluate(annotations, results, kind)) == expected
    assert 0.2 < expected[0][0] < 0.8


def boxes(*at: tuple[int, float]) -> list[dict[str, Any]]:
    """Results of category 5 in image 1: boxes of 10 x 10 by their x, and scores."""
    return [{"image_id": 1, "category_id": 5, "bbox": [x, 0, 10, 10], "score": score} for x, score in at]


def truth_at(*at: int, crowd: int = 0) -> dict[str, Any]:
    found = [{**box, "id": n, "area": 100, "iscrowd": crowd} for n, box in enumerate(boxes(*((x, 0) for x in at)))]
    images = [{"id": 1, "height": 100, "width": 100}]
    return {"images": images, "categories": [{"id": 5}, {"id": 7}], "annotations": found}


def test_figures_by_hand() -> None:
    """Two truths: hit, miss, hit at IoU 8/12, hit again. Precision is 1 up to a recall of 1/2, then 2/3."""
    result = evaluate(truth_at(0, 30), boxes((0, 0.9), (60, 0.8), (32, 0.7), (0, 0.6)), "bbox")
    figures = result.figures
    assert figures["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert figures["AP75"] == pytest.approx(51 / 101)
    assert figures["AP"] == pytest.approx((4 * figures["AP50"] + 6 * figures["AP75"]) / 10)
    assert figures["AR_1"] == 0.5
    assert figures["AR_100"] == pytest.approx((4 * 1 + 6 * 0.5) / 10)
    assert np.isnan(figures["AP_large"])
    assert result.per_category[0] == figures["AP"]
    assert np.isnan(result.per_category[1])


def test_a_truth_of_id_0_can_be_found() -> None:
    assert truth_at(0)["annotations"][0]["id"] == 0
    assert evaluate(truth_at(0), boxes((0, 0.9)), "bbox").figures["AP"] == pytest.approx(1)


def test_detections_in_a_crowd_are_neither_right_nor_wrong() -> None:
    truth = truth_at(0)
    truth["annotations"] += truth_at(50, crowd=1)["annotations"]
    for x, ap in ((50, 1), (80, 1 / 3)):
        figures = evaluate(truth, boxes((x, 0.9), (x, 0.8), (0, 0.5)), "bbox").figures
        assert figures["AP"] == pytest.approx(ap)


def test_the_area_of_a_detected_mask_is_that_of_the_mask() -> None:
    """Also where the result has a box: an L that covers 3/4 of its box."""
    mask = np.zeros((1, 50, 50), np.bool_)
    mask[0, :36, :36] = True
    mask[0, :18, :18] = False
    (code,) = rle.encode(mask)
    truth = truth_at(0)
    truth["images"][0] |= {"height": 50, "width": 50}
    truth["annotations"][0] |= {"segmentation": rle.encode(~mask)[0], "area": 500}
    result = {"image_id": 1, "category_id": 5, "score": 0.5, "segmentation": code, "bbox": [0, 0, 36, 36]}
    hit = {**result, "segmentation": rle.encode(~mask)[0], "score": 0.4}
    assert evaluate(truth, [result, hit]).figures["AP_small"] == pytest.approx(0.5)  # 972 px; the box has 1,296


def test_files_are_evaluated(tmp_path: Path) -> None:
    annotations, results = tmp_path / "instances.json", tmp_path / "results.json"
    annotations.write_text(json.dumps(truth_at(0, 30)))
    results.write_text(json.dumps(boxes((0, 0.9))))
    assert evaluate_files(annotations, results, "bbox").figures["AR_100"] == 0.5


@pytest.mark.parametrize(
    ("annotations", "results", "message"),
    [
        (None, "[]", r"truth.json cannot be read: no such file"),
        ("{", "[]", r"truth\.json is no JSON: Expecting"),
        ("[]", "[]", r"truth.json: 'images' is missing"),
        (truth_at(0), "{}", r"found.json: found dict; COCO's results are a list"),
        (truth_at(0), [{**boxes((0, 1))[0], "image_id": 9}], "found.json: entry 0 has the image_id 9, which the annot"),
        (truth_at(0), [{**boxes((0, 1))[0], "category_id": 6}], "entry 0 has the category_id 6, which"),
        (truth_at(0), [*boxes((0, 1)), {"image_id": 1, "category_id": 5, "score": 1}], "entry 1 has no 'bbox', which"),
        (truth_at(0), [{**boxes((0, 1))[0], "bbox": []}], "entry 0 has the box \\[\\], expected x, y, width, height"),
    ],
)
def test_a_fault_in_the_files_is_named(tmp_path: Path, annotations: Any, results: Any, message: str) -> None:
    paths = tmp_path / "truth.json", tmp_path / "found.json"
    for path, content in zip(paths, (annotations, results), strict=True):
        if content is not None:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SegfolioError, match=message):
        evaluate_files(*paths, "bbox")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"size": [3, 3], "counts": [9]}, r"^results: entry 0: .*3.*100"),
        ({"size": [100, 100], "counts": "abc"}, "^results: entry 0: "),
        ({"size": [100, 100]}, "^results: entry 0: the counts are None"),
        ("x", "^results: entry 0: the segmentation is 'x'"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(mask: Any, message: str) -> None:
    truth = {**truth_at(), "annotations": []}
    with pytest.raises(SegfolioError, match=message):
        evaluate(truth, [{"image_id": 1, "category_id": 5, "score": 1, "segmentation": mask}])
