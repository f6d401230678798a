"""Annotations that tools write and people edit: each is read right, or refused in a sentence before training."""

import base64
import io
import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segfolio.data.checks.truth import expect_truth
from segfolio.data.datasets import CocoInstances, CocoPanoptic, MaskFolder, Shapes
from segfolio.data.formats import coco, label_studio, rle
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.data.remap import Remapped
from segfolio.data.sample import Instances, Prediction
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from segfolio.metrics.average_precision import evaluate
from tests.fake import coco_instances, coco_panoptic, mask_folder
from tests.tiny_detector import experiment

LABELS = LabelSpace(("cell", "debris"), ids=(1, 2), things=("cell", "debris"))
MASK = np.zeros((8, 10), np.bool_)
MASK[2:6, 3:8] = True


# Label Studio


def region(kind: str, value: dict[str, Any], label: str | None = "cell", **changes: Any) -> dict[str, Any]:
    named = {} if label is None else {kind: [label]}
    return {
        "id": "r1",
        "type": kind,
        "original_width": 10,
        "original_height": 8,
        "value": {**value, **named},
        **changes,
    }


def bitmask(pixels: np.ndarray) -> dict[str, Any]:
    Image.fromarray(pixels).save(stream := io.BytesIO(), "PNG")
    return {"imageDataURL": f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"}


def black_on_transparent(mask: np.ndarray) -> np.ndarray:
    return np.dstack([np.zeros((*mask.shape, 3), np.uint8), 255 * mask.astype(np.uint8)])


def task(*results: dict[str, Any], url: str = "/data/upload/1/a.png", number: int = 5) -> dict[str, Any]:
    return {"id": number, "data": {"image": url}, "annotations": [{"id": 1, "result": list(results)}]}


def export(folder: Path, *tasks: dict[str, Any]) -> list[tuple[str, Segments]]:
    (path := folder / "export.json").write_text(json.dumps(tasks))
    return label_studio.load(path, LABELS)


RECTANGLE = region("rectanglelabels", {"x": 30, "y": 25, "width": 50, "height": 50, "rotation": 0})
POLYGON = region("polygonlabels", {"points": [[30, 25], [80, 25], [80, 75], [30, 75]]})
KEYPOINT = region("keypointlabels", {"x": 40, "y": 50, "width": 0.5})


@pytest.mark.parametrize(
    "results",
    [
        [region("bitmasklabels", bitmask(black_on_transparent(MASK)))],
        [region("bitmasklabels", bitmask(255 * MASK.astype(np.uint8)))],  # a PNG of a user's own, without alpha
        [region("brushlabels", {"format": "rle", "rle": label_studio.encode(MASK)})],
        [POLYGON],
        [  # `Bitmask` beside `Labels`: two results are one region
            region("bitmask", bitmask(black_on_transparent(MASK)), None),
            region("labels", bitmask(black_on_transparent(MASK))),
        ],
        [POLYGON, region("choices", {**POLYGON["value"], "choices": ["blurred"]}, None)],  # said of the region
    ],
    ids=["bitmask", "grey bitmask", "brush", "polygon", "Labels beside Bitmask", "choices per region"],
)
def test_label_studio_region_of_every_kind_with_an_area_is_the_mask(tmp_path, results) -> None:
    ((_, segments),) = export(tmp_path, task(*results))
    assert segments.size == (8, 10)
    assert np.array_equal(segments.masks, [MASK])
    assert segments.labels.tolist() == [0]


def test_label_studio_ellipse_has_the_area_that_it_encloses(tmp_path) -> None:
    value = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 15, "rotation": 90}
    ellipse = region("ellipselabels", value, original_width=400, original_height=200)
    ((_, segments),) = export(tmp_path, task(ellipse))
    assert rle.areas(segments.rles)[0] == pytest.approx(np.pi * 80 * 30, rel=0.02)
    assert rle.boxes(segments.rles)[0].tolist() == pytest.approx([170, 20, 60, 160], abs=1)


def test_label_studio_rectangle_is_a_box_without_a_mask(tmp_path) -> None:
    ((name, segments),) = export(tmp_path, task(RECTANGLE, region("brushlabels", {"rle": label_studio.encode(MASK)})))
    assert segments.box_only.tolist() == [True, False]
    assert segments.boxes.tolist() == [[3, 2, 5, 4], [3, 2, 5, 4]]
    first, second = coco.annotations_json([(name, segments)], LABELS)["annotations"]
    assert (first["segmentation"], first["bbox"], first["area"]) == ([], [3, 2, 5, 4], 20)
    assert rle.areas([second["segmentation"]]).tolist() == [20]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (region("timeserieslabels", {"start": 1, "end": 2}), "region r1: a region of type 'timeserieslabels'"),
        (region("videorectangle", {"sequence": []}, None), "region r1: a region of type 'videorectangle'"),
        (region("polygon", {"points": [[1, 1], [9, 1], [5, 9]]}, None), "region r1: the label is None"),
        (region("bitmasklabels", {"imageDataURL": "data:image/png;base64,nonsense"}), "region r1: imageDataURL is"),
        (region("bitmasklabels", bitmask(black_on_transparent(MASK[:4]))), "the bitmask is 10x4 but its image 10x8"),
        ({**POLYGON, "image_rotation": 90}, "region r1: its image was turned by 90 degrees"),
    ],
)
def test_label_studio_region_that_is_not_read_is_refused_by_type_and_task(tmp_path, wrong, said) -> None:
    with pytest.raises(SegfolioError, match=rf"export\.json, task 5, .*{said}"):
        export(tmp_path, task(POLYGON, wrong))


@pytest.mark.parametrize("left", [KEYPOINT, region("vectorlabels", {"vertices": [{"x": 1, "y": 2}]})])
def test_label_studio_region_without_an_area_is_left_out_counted_and_said(tmp_path, left) -> None:
    kind = left["type"]
    with pytest.warns(UserWarning, match=rf"2 regions without an area left out \({kind}\); the first is .*task 5"):
        ((_, segments),) = export(tmp_path, task(POLYGON, left, {**left, "id": "r2"}))
    assert np.array_equal(segments.masks, [MASK])


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["?d=cam1/0001.png", "?d=cam2/0001.png"], ["cam1/0001.png", "cam2/0001.png"]),
        (["?d=day/cam1/a%20b.png", "?d=day/cam2%5Ca%20b.png"], ["cam1/a b.png", "cam2/a b.png"]),
        (["s3://bucket/x/1/a.png", "s3://bucket/x/2/a.png"], ["1/a.png", "2/a.png"]),
        (["/data/upload/1/a.png", "/data/upload/2/b.png"], ["a.png", "b.png"]),
        (["https://host/x/a.png?v=1", "https://host/x/b.png?v=1"], ["a.png", "b.png"]),
    ],
)
def test_label_studio_tasks_of_one_base_name_have_two_names(tmp_path, urls, names) -> None:
    assert [name for name, _ in export(tmp_path, *(task(POLYGON, url=url) for url in urls))] == names


def test_label_studio_tasks_of_one_image_are_refused(tmp_path) -> None:
    with pytest.raises(SegfolioError, match=r"task 6 is of the image a\.png, as .*task 5 is; leave one of each"):
        export(tmp_path, task(POLYGON, url="/data/upload/1/a.png"), task(url="/data/upload/2/a.png", number=6))


@pytest.mark.parametrize("path", ["cam1/0001.png", "a b#1.jpg", "50%/ü?.tif", "street/x+y.png"])
def test_label_studio_round_trip_keeps_name_suffix_and_size(tmp_path, path) -> None:
    """Of a prediction without an object, too; beside it another one, so that the folder is told."""
    nothing = Instances([], torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    tasks = [
        label_studio.prediction_task(Prediction("x", (8, 10), instances=nothing), LABELS, label_studio.url_of(p), "m")
        for p in (path, "other.png")
    ]
    found = export(tmp_path, *({**t, "annotations": t["predictions"]} for t in tasks))
    assert [(name, segments.size) for name, segments in found] == [(path, (8, 10)), ("other.png", (8, 10))]


@pytest.mark.parametrize("told_by", ["image", "prediction", "image in a folder"])
def test_label_studio_task_without_a_region_has_its_real_size(tmp_path, told_by) -> None:
    """And an object found there is one false positive."""
    empty = task(url="?d=x/b.png", number=6)
    images = None
    if told_by == "prediction":
        empty["predictions"] = [{"result": [POLYGON]}]
    else:
        images = tmp_path / "pictures" if told_by == "image in a folder" else None
        write_image((images or tmp_path) / "b.png", np.zeros((8, 10, 3), np.uint8))
    (path := tmp_path / "export.json").write_text(json.dumps([task(POLYGON, url="?d=x/a.png"), empty]))
    found = label_studio.load(path, LABELS, images=images)
    assert [segments.size for _, segments in found] == [(8, 10), (8, 10)]
    content = coco.annotations_json(found, LABELS)
    detection = {"category_id": 1, "segmentation": content["annotations"][0]["segmentation"]}
    right, wrong = {**detection, "image_id": 1, "score": 0.5}, {**detection, "image_id": 2, "score": 0.9}
    assert evaluate(content, [right]).figures["AP50"] == pytest.approx(1)
    assert evaluate(content, [right, wrong]).figures["AP50"] == pytest.approx(0.5)


def test_size_that_nothing_tells_is_refused_wherever_it_is_written(tmp_path) -> None:
    with pytest.raises(SegfolioError, match=r"task 5 does not tell the size of its image, and .*a\.png is none"):
        export(tmp_path, task())
    unsized = Segments([], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    with pytest.raises(SegfolioError, match=r"a\.png is 0x0 pixels; give its segments the size of the image"):
        coco.annotations_json([("a.png", unsized)], LABELS)


# nothing to learn


def changed_coco(root: Path, change: Callable[[dict[str, Any]], None], split: str = "train") -> None:
    path = root / "annotations" / f"instances_{split}2017.json"
    change(content := json.loads(path.read_text()))
    path.write_text(json.dumps(content))


def crowds_alone(content: dict[str, Any]) -> None:
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


def no_annotation(content: dict[str, Any]) -> None:
    content["annotations"] = []


@pytest.mark.parametrize("background", [None, "ground"])
@pytest.mark.parametrize("change", [crowds_alone, no_annotation])
@pytest.mark.parametrize("split", ["train", "val"])
def test_nothing_to_learn_in_coco_is_refused_before_training_as_inspect_does(tmp_path, split, change, background):
    coco_instances.write(tmp_path)
    changed_coco(tmp_path, change, split)
    data = DataModule(partial(CocoInstances, background=background), str(tmp_path))
    with pytest.raises(SegfolioError, match=rf"{split} has \d images, but nothing to learn or to measure"):
        data.setup("fit")
    report = inspect_dataset({split: lambda: CocoInstances(tmp_path, split, background=background)})
    assert [problem.kind for problem in report.fatal] == ["split"]


def test_nothing_to_learn_after_remapping_and_in_void_masks_is_refused(tmp_path) -> None:
    coco_instances.write(tmp_path / "coco")
    changed_coco(tmp_path / "coco", lambda c: c.update(annotations=[a for a in c["annotations"] if a["iscrowd"]]))
    dataset = CocoInstances(tmp_path / "coco", "val")
    expect_truth(dataset, "val")
    mask_folder.write(tmp_path / "masks")
    for path in (tmp_path / "masks" / "masks" / "val").iterdir():
        write_id_map(path, np.full((64, 96), 255, np.uint8))
    changed_coco(
        tmp_path / "coco", lambda c: c.update(annotations=[a for a in c["annotations"] if a["category_id"] == 1]), "val"
    )
    without_persons = Remapped(CocoInstances(tmp_path / "coco", "val"), {"person": None, "dog": "dog"})
    for nothing in (without_persons, MaskFolder(tmp_path / "masks", "val")):
        with pytest.raises(SegfolioError, match="val has 2 images, but nothing to learn or to measure"):
            expect_truth(nothing, "val")


def test_nothing_to_learn_ends_fit_with_status_2(segfolio, tmp_path, capsys) -> None:
    coco_instances.write(tmp_path / "coco")
    changed_coco(tmp_path / "coco", crowds_alone)
    assert segfolio("fit", "-c", experiment(tmp_path), "--data.root", "coco") == 2
    assert "train has 4 images, but nothing to learn" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# splits that share images


def one_file(root: Path) -> DataModule:
    coco_instances.write(root)
    (root / "my.json").write_bytes((root / "annotations/instances_train2017.json").read_bytes())
    return DataModule(partial(CocoInstances, annotations="my.json", images="train2017"), str(root))


def told(data: DataModule, stage: str) -> list[str]:
    """What is said of splits that share images."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup(stage)
        data.setup(stage)
    return [str(w.message) for w in caught if "figures do not tell" in str(w.message)]


@pytest.mark.parametrize(("stage", "split"), [("fit", "val"), ("test", "test")])
def test_shared_images_of_one_annotation_file_are_said_once(tmp_path, stage, split) -> None:
    (said,) = told(one_file(tmp_path), stage)
    assert f"all 4 images of {split} are images of train, too (the first is 000000000100)" in said
    assert "my_{split}.json" in said


def test_shared_images_of_other_names_and_compression_are_found_in_small_sets(tmp_path) -> None:
    mask_folder.write(tmp_path)
    pixels = Image.open(tmp_path / "images/train/2.jpg")
    (tmp_path / "images/val/1.jpg").unlink()
    pixels.save(tmp_path / "images/val/1.png", compress_level=1)
    (said,) = told(DataModule(MaskFolder, str(tmp_path)), "fit")
    assert "1 of 2 images of val are images of train, too (the first is 1 = 2)" in said


def test_shared_images_of_large_sets_are_found_by_name_size_and_bytes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("segfolio.data.checks.shared.SMALL", 0)
    mask_folder.write(tmp_path)
    data = partial(DataModule, MaskFolder, str(tmp_path))
    assert told(data(), "fit") == []  # equal names, other images
    (tmp_path / "images/val/1.jpg").write_bytes((tmp_path / "images/train/1.jpg").read_bytes())
    (said,) = told(data(), "fit")
    assert "1 of 2 images of val are images of train, too (the first is 1)" in said


def test_shared_images_are_not_found_where_there_are_none(tmp_path) -> None:
    coco_instances.write(tmp_path)
    assert told(DataModule(CocoInstances, str(tmp_path)), "fit") == []
    assert told(DataModule(partial(Shapes, train=2, val=2)), "fit") == []


def test_shared_images_of_a_split_that_is_trained_and_evaluated_on_are_said(tmp_path) -> None:
    coco_instances.write(tmp_path)
    (said,) = told(DataModule(CocoInstances, str(tmp_path), val_split="train"), "fit")
    assert "train is both trained and evaluated on" in said


# images without annotations, names of other systems


def image_info(root: Path) -> None:
    """As COCO's own of its test images: no `annotations`."""
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    del content["annotations"]
    (root / "annotations" / "image_info_val2017.json").write_text(json.dumps(content))


def test_image_info_is_predicted_under_the_numbers_of_the_json(segfolio, tmp_path) -> None:
    coco_instances.write(tmp_path / "coco")
    image_info(tmp_path / "coco")
    assert segfolio("fit", "-c", experiment(tmp_path), "--data.root", "coco", "--output", "run") == 0
    annotations = "--data.dataset.init_args.annotations=annotations/image_info_val2017.json"
    checkpoint = ("--ckpt_path", "run/checkpoints/last.ckpt")
    assert segfolio("predict", *checkpoint, annotations, "--output", "out") == 0
    found = json.loads((tmp_path / "out/instances.json").read_text())
    assert {result["image_id"] for result in found} == {500, 501}
    assert segfolio("test", *checkpoint, annotations) == 2


@pytest.mark.parametrize("content", [{"images": []}, {"images": [], "categories": [], "annotations": None}])
def test_image_info_that_lacks_more_is_refused(tmp_path, content) -> None:
    (path := tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(SegfolioError, match=r"a\.json lacks the list '(categories|annotations)'"):
        coco.load(path)


def test_windows_separators_in_a_coco_file_are_opened(tmp_path) -> None:
    coco_instances.write(tmp_path)
    changed_coco(tmp_path, lambda c: [i.update(file_name=f"train2017\\{i['file_name']}") for i in c["images"]])
    dataset = CocoInstances(tmp_path, "train")
    dataset.check()
    assert dataset[0].image_id == "train2017/000000000100"
    assert all(path.is_file() for path in dataset.files())


@pytest.mark.parametrize("start", ["C:\\data\\", "/data/", "https://host/"])
def test_names_of_another_machine_are_told_with_what_helps(tmp_path, start) -> None:
    coco_instances.write(tmp_path)

    def elsewhere(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["file_name"] = start + image["file_name"]

    changed_coco(tmp_path, elsewhere)
    with pytest.raises(SegfolioError, match=r"\(the first is .*; make their names relative to that folder"):
        CocoInstances(tmp_path, "train")


def test_windows_separators_in_a_list_of_a_split_are_opened(tmp_path) -> None:
    mask_folder.write(tmp_path)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/fold.txt").write_text("train\\0\nval\\1\n")
    assert [sample.image_id for sample in MaskFolder(tmp_path, "fold")] == ["train/0", "val/1"]


def test_windows_separators_in_panoptic_names_are_opened(tmp_path) -> None:
    coco_panoptic.write(tmp_path)
    path = tmp_path / "annotations/panoptic_train2017.json"
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["file_name"] = f"train2017\\{image['file_name']}"
    for annotation in content["annotations"]:
        annotation["file_name"] = f"panoptic_train2017\\{annotation['file_name']}"
    path.write_text(json.dumps(content))
    dataset = CocoPanoptic(tmp_path, "train", panoptic="annotations", images=".")
    dataset.check()
    assert dataset[0].image_id == "train2017/000000000001"
