"""A detector's boxes become instances."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segfolio.data.batches import ForEvaluation, collate
from segfolio.data.datasets import LVIS, CocoInstances, Shapes
from segfolio.data.formats import rle
from segfolio.data.formats.coco_results import ResultBoxes
from segfolio.errors import SegfolioError
from segfolio.inference.detected_boxes import DetectedBoxes
from segfolio.layers.prompting import best
from tests.fake import lvis
from tests.fake.coco_instances import write
from tests.inference.prompted import Asking

GOOD = {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4.5], "score": 0.5}


@pytest.fixture
def dataset(tmp_path: Path) -> CocoInstances:
    write(tmp_path)
    return CocoInstances(tmp_path, "val")


def results(path: Path, *entries: dict, **changes: object) -> Path:
    path.write_text(json.dumps([{**GOOD, **entry, **changes} for entry in entries]))
    return path


def test_boxes_lie_under_their_image_the_best_first(tmp_path: Path) -> None:
    file = results(
        tmp_path / "r.json",
        {"score": 0.25, "segmentation": {"counts": "x"}},
        {"image_id": 3},
        {"score": 1, "category_id": 9},
        {"score": 0.25, "bbox": [0, 0, 0, 2]},
    )
    found = ResultBoxes(file, {1, 2, 3}, {7, 9})
    assert found.of(1).tolist() == [[9, 1, 1, 2, 3, 4.5], [7, 0.25, 1, 2, 3, 4.5], [7, 0.25, 0, 0, 0, 2]]
    assert [len(found.of(number)) for number in (2, 3)] == [0, 1]
    file.write_text(file.read_text(), "utf-16")
    assert len(ResultBoxes(file, {1, 3}, {7, 9}).of(1)) == 3
    assert len(ResultBoxes(results(file), {1}, {7}).of(1)) == 0


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"image_id": 4}, r"entry 1 has the image_id 4, which the dataset does not know; take the boxes"),
        ({"image_id": "1"}, r"entry 1 has the image_id 1, which the dataset does not know"),
        ({"category_id": 8}, r"entry 1 has the category_id 8, which the dataset does not know"),
        ({"bbox": [1, 2, -3, 4]}, r"entry 1 has the bbox \[1, 2, -3, 4\], expected x, y, width, height in pixels"),
        ({"bbox": None}, r"entry 1 has the bbox None"),
        ({"bbox": [1, 2, 3, float("nan")]}, r"entry 1 has the bbox \[1, 2, 3, nan\]"),
        ({"score": "high"}, r"entry 1 has the score high, expected a number"),
    ],
)
def test_an_entry_that_is_wrong_is_one_sentence(tmp_path: Path, entry: dict, said: str) -> None:
    with pytest.raises(SegfolioError, match=said):
        ResultBoxes(results(tmp_path / "r.json", {}, entry), {1}, {7})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"annotations": []}', "r.json holds a dict, expected COCO's results, a list"),
        ('[{"image_id": 1', "r.json is no JSON"),
        ('[{"category_id": 7}]', "entry 0 has no 'image_id'; COCO's results are a list of image_id, category_id, bbox"),
        ("[3]", "entry 0 has no 'image_id'"),
        ("", "r.json is no JSON"),
    ],
)
def test_a_file_that_is_no_list_of_detections_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(SegfolioError, match=said):
        ResultBoxes(tmp_path / "r.json", {1}, {7})


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match=r"r.json cannot be read: no such file"):
        ResultBoxes(tmp_path / "r.json", {1}, {7})


def detections(dataset: CocoInstances, path: Path) -> Path:
    """Each true box, and one that scores less."""
    entries = []
    for index in range(len(dataset)):
        target = dataset[index].target
        for place, box in enumerate(rle.boxes(target.segments.rles).tolist()):
            category = dataset.labels.ids[target.segments.labels[place]]
            same = {"image_id": target.number, "category_id": category}
            entries += [{**same, "bbox": box, "score": 0.9 - place / 10}, {**same, "bbox": [3, 4, 5, 6], "score": 0.1}]
    return results(path, *entries)


@pytest.mark.parametrize(("refine", "prompts_per_pass"), [(True, 64), (True, 2), (False, 3)])
def test_instances_have_the_detector_s_classes_and_scores_and_the_network_s_masks(
    dataset: CocoInstances, tmp_path: Path, refine: bool, prompts_per_pass: int
) -> None:
    protocol = DetectedBoxes(str(detections(dataset, tmp_path / "r.json")), refine, 4, prompts_per_pass)
    protocol.check(dataset, "val")
    family, batch = Asking(), collate([ForEvaluation(dataset, ())[i] for i in range(len(dataset))])
    family.labels = dataset.labels
    with torch.no_grad():
        found, empty = protocol.answer(family, batch)
    assert empty.instances.rles == []
    instances, segments = found.instances, batch.targets[0].segments
    np.testing.assert_allclose(instances.scores, [0.9, 0.8, 0.7, 0.1])  # the best four
    assert instances.labels[:3].tolist() == segments.labels.tolist()
    assert family.network.embedded == [2]
    asked = family.network.asked
    assert {multimask for _, multimask in asked} == ({True, False} if refine else {False})
    if not refine or prompts_per_pass < 4:
        return
    (first, _), (second, _) = asked
    assert torch.equal(first.boxes, second.boxes)
    with torch.no_grad():
        network = Asking().network
        answer = network.decode(family.embedded(batch.images, batch.sizes).embedding, first)
        again = network.decode(
            family.embedded(batch.images, batch.sizes).embedding, first._replace(masks=best(answer)[0]), multimask=False
        )
    assert torch.equal(second.masks, best(answer)[0])
    for place in range(4):
        mask = family.embedded(batch.images, batch.sizes).enlarge(again.masks[place], 0)[0] > 0
        np.testing.assert_array_equal(rle.decode([instances.rles[place]], (48, 64))[0], mask)


@pytest.mark.parametrize(("most", "figures"), [(100, (1, 10, 100)), (10, (1, 10)), (5, (1, 5)), (1, (1,))])
def test_recall_is_of_no_more_boxes_than_are_asked(most: int, figures: tuple[int, ...]) -> None:
    (metric,) = DetectedBoxes("r.json", max_detections=most).evaluators(Shapes.labels)
    assert metric.max_dets == figures


def test_what_is_evaluated_is_what_is_asked(dataset: CocoInstances) -> None:
    (metric,) = DetectedBoxes("r.json", max_detections=300).evaluators(dataset.labels)
    assert "AR_300" in {figure.name for figure in metric.figures}
    federated = replace(dataset.labels, frequencies=("rare", "common"))
    (metric,) = DetectedBoxes("r.json", max_detections=300).evaluators(federated)
    assert "AP_rare" in {figure.name for figure in metric.figures}


def test_boxes_of_a_federated_dataset_are_evaluated_as_lvis_does(tmp_path: Path) -> None:
    lvis.write(tmp_path)
    protocol = DetectedBoxes("r.json", max_detections=300)
    assert protocol.words.endswith("COCO evaluation")
    (metric,) = protocol.evaluators(LVIS(tmp_path, "val").labels)
    assert {"AP_rare", "AR_300"} < {figure.name for figure in metric.figures}
    assert protocol.words.endswith("LVIS evaluation")


def test_images_without_numbers_and_other_images_are_refused_before_the_test(
    dataset: CocoInstances, tmp_path: Path
) -> None:
    file = detections(dataset, tmp_path / "r.json")
    with pytest.raises(SegfolioError, match=r"the images of test have no numbers by which .*r.json could name them"):
        DetectedBoxes(str(file)).check(Shapes(split="test", test=2), "test")
    with pytest.raises(SegfolioError, match=r"entry 0 has the image_id 500, which the dataset does not know"):
        DetectedBoxes(str(file)).check(CocoInstances(tmp_path, "train"), "train")
