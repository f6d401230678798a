"""Data as people have them: boxes without masks, nuclei that overlap, masks in colours, CVAT's XML, images alone."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.datasets import DSB2018, CocoInstances, MaskFolder
from segfolio.data.datasets.mask_folder import read_classes
from segfolio.data.formats import coco, rle
from segfolio.data.formats.images import read_id_map, write_id_map, write_image, write_palette
from segfolio.data.sample import Instances, Prediction
from segfolio.data.transforms import RandomWindow
from segfolio.errors import SegfolioError
from segfolio.families.detection import detection_target
from segfolio.inspection import inspect_dataset
from segfolio.metrics import InstanceMetric
from tests.fake import coco_instances, dsb2018, mask_folder
from tests.tiny_detector import experiment

# boxes without masks


def boxes_alone(root: Path, segmentation: Any = (), only: Callable[[int], bool] = lambda place: True) -> None:
    """COCO's layout; annotations have boxes and what is given in place of a mask."""
    coco_instances.write(root)
    for path in (root / "annotations").iterdir():
        content = json.loads(path.read_text())
        for place, annotation in enumerate(content["annotations"]):
            if only(place):
                annotation["segmentation"] = segmentation
                if segmentation == "missing":
                    del annotation["segmentation"]
        path.write_text(json.dumps(content))


@pytest.mark.parametrize("segmentation", [[], None, [[]], "missing"], ids=str)
def test_boxes_without_masks_are_read_as_annotated(tmp_path, segmentation) -> None:
    boxes_alone(tmp_path, segmentation)
    dataset = CocoInstances(tmp_path, "train")
    with pytest.warns(UserWarning, match="9 annotations with a box and no mask, which networks that learn masks"):
        dataset.check()
    segments = dataset[0].target.segments
    assert segments.box_only.tolist() == [True] * 3
    assert segments.boxes.tolist() == [[4, 4, 28, 40], [6, 24, 30, 16], [32, 0, 32, 6]]
    assert rle.boxes(segments.rles).tolist() == segments.boxes.tolist()
    assert "has 9 annotations without a segmentation, with a box alone (annotation 300)" in dataset.without_masks()


def test_boxes_without_masks_train_and_test_a_network_of_boxes(segfolio, tmp_path, capsys) -> None:
    boxes_alone(tmp_path / "coco")
    assert segfolio("fit", "-c", experiment(tmp_path, masks=False), "--data.root", "coco", "--output", "run") == 0
    assert segfolio("test", "--ckpt_path", "run/checkpoints/last.ckpt") == 0
    figures = json.loads((tmp_path / "run/test/figures.json").read_text())
    assert 0 <= figures["test/AP_box"] <= 1


@pytest.mark.parametrize("only", [lambda place: True, lambda place: place == 1], ids=["all", "one of nine"])
def test_boxes_without_masks_are_refused_by_a_network_of_masks(segfolio, tmp_path, capsys, only) -> None:
    boxes_alone(tmp_path / "coco", only=only)
    assert segfolio("fit", "-c", experiment(tmp_path), "--data.root", "coco") == 2
    said = capsys.readouterr().err
    assert "without a segmentation, with a box alone" in said
    assert "but this network learns masks" in said
    assert "FasterRCNN with kinds: [bbox]" in said


def test_boxes_without_masks_make_no_semantic_map_and_no_pixels(tmp_path) -> None:
    boxes_alone(tmp_path)
    with pytest.raises(SegfolioError, match=r"9 annotations without .*; a semantic map is made of masks"):
        CocoInstances(tmp_path, "train", background="ground")
    report = inspect_dataset({"train": partial(CocoInstances, tmp_path, "train")})
    assert report.fatal == []
    assert report.splits["train"].objects.tolist() == [3, 3]
    assert report.splits["train"].pixels[:-1].tolist() == [0, 0]
    assert report.splits["train"].empty == ["000000000103"]
    assert report.class_weights == {}


def test_boxes_without_masks_follow_a_flip_and_are_no_masks_to_learn(tmp_path) -> None:
    boxes_alone(tmp_path)
    sample = RandomWindow(hflip=1.0)(CocoInstances(tmp_path, "train")[0], np.random.default_rng(0))
    found = detection_target("a", sample.target, torch.tensor([0, 1]))
    assert found.boxes.tolist() == [[32, 4, 60, 44], [28, 24, 58, 40]]  # the crowd is not learned
    assert found.masks is None


def test_boxes_without_masks_are_measured_as_boxes_alone(tmp_path) -> None:
    boxes_alone(tmp_path)
    dataset = CocoInstances(tmp_path, "train")
    truth = dataset[0].target
    found = Instances(truth.segments.rles[:2], torch.tensor([0, 1]), torch.tensor([0.9, 0.8]))
    prediction = Prediction("a", truth.segments.size, instances=found)
    metric = InstanceMetric(dataset.labels, ["bbox"])
    metric.update(prediction, truth)
    assert float(metric.compute()["AP_box"]) == pytest.approx(1)
    with pytest.raises(SegfolioError, match=r"a has objects with a box and no mask; measure kinds: \[bbox\]"):
        InstanceMetric(dataset.labels).update(prediction, truth)


def test_boxes_without_masks_are_written_as_boxes_without_masks(tmp_path) -> None:
    boxes_alone(tmp_path)
    dataset = CocoInstances(tmp_path, "train")
    content = coco.annotations_json([("a.png", dataset[0].target.segments)], dataset.labels, as_polygons=True)
    assert [a["segmentation"] for a in content["annotations"]] == [[], [], []]
    assert [a["bbox"] for a in content["annotations"]] == dataset[0].target.segments.boxes.tolist()


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ([1, 2, 3, 4], (2, 6, 1, 4)),
        ([1.4, 2.4, 0.2, 0.2], (2, 3, 1, 2)),  # a pixel at least
        ([-5, -5, 7, 8], (0, 3, 0, 2)),
        ([90, 2, 5, 5], (0, 0, 0, 0)),
        ([1, 2, 0, 4], (0, 0, 0, 0)),
    ],
)
def test_boxes_without_masks_are_drawn_within_the_image(box, pixels) -> None:
    top, bottom, left, right = pixels
    expected = np.zeros((10, 12), np.bool_)
    expected[top:bottom, left:right] = True
    assert np.array_equal(rle.decode([rle.from_box(box, (10, 12))], (10, 12))[0], expected)


# nuclei that overlap


def overlapping(root: Path, columns: int) -> None:
    """The second nucleus of a01 grows over the first, of 8x8 pixels, by some columns."""
    dsb2018.write(root, images=5)
    first, second = sorted((root / "stage1_train/a01/masks").iterdir())[:2]
    mask, y, x = np.zeros((64, 80), np.uint8), *np.argwhere(read_id_map(first))[0]
    mask[y : y + 8, x + 8 - columns : x + 12] = 255
    write_id_map(second, mask)


@pytest.mark.parametrize("columns", [1, 3])
def test_nuclei_that_overlap_are_read_and_counted_as_a_remark(tmp_path, columns) -> None:
    overlapping(tmp_path, columns)
    dataset = DSB2018(tmp_path, "train")
    with pytest.warns(UserWarning, match=rf"4 images: 1 mask that overlaps .*\({8 * columns} pixels of a01-"):
        dataset.check()
    segments = dataset[1].target.segments
    assert segments.masks[:2].sum((1, 2)).tolist() == [64, 8 * (columns + 4)]
    assert int((segments.masks[0] & segments.masks[1]).sum()) == 8 * columns
    assert isinstance(dataset[0].target.segments.form, torch.Tensor)  # an id map where none overlap


def test_nuclei_that_overlap_survive_a_window(tmp_path) -> None:
    overlapping(tmp_path, 2)
    moved = RandomWindow(hflip=1.0, scale=(2.0, 2.0))(DSB2018(tmp_path, "train")[1], np.random.default_rng(0))
    assert int((moved.target.segments.masks[0] & moved.target.segments.masks[1]).sum()) == 4 * 8 * 2


# masks in colours

CAMVID = "64 128 64\tAnimal\n192 0 128\tBicycle Lane\n0 0 0\t\tVoid\n"
CVAT = "# label:color_rgb:parts:actions\nAnimal:64,128,64::\nBicycle Lane:192,0,128::act\nvoid:0,0,0::\n"
CSV = "name,r,g,b\nAnimal,64,128,64\nBicycle Lane,192,0,128\nvoid,0,0,0\n"
YAML = "names: [Animal, Bicycle Lane]\npalette: [[64, 128, 64], [192, 0, 128]]\nvoid_colors: [[0, 0, 0]]\n"
TABLES = {"label_colors.txt": CAMVID, "labelmap.txt": CVAT, "class_dict.csv": CSV, "classes.yaml": YAML}
COLORS = np.array([(64, 128, 64), (192, 0, 128), (0, 0, 0)], np.uint8)
INDICES = np.array([[0, 1, 1], [2, 0, 1]], np.uint8)
"""The last is no class."""


def in_colors(root: Path, table: str, text: str, mask: Callable[[Path], None] | None = None) -> MaskFolder:
    write_image(root / "images/train/a.png", np.zeros((2, 3, 3), np.uint8))
    (root / "masks/train").mkdir(parents=True)
    if mask is None:
        write_image(root / "masks/train/a.png", COLORS[INDICES])
    else:
        mask(root / "masks/train/a.png")
    (root / table).write_text(text)
    return MaskFolder(root, "train", classes=table)


@pytest.mark.parametrize("table", TABLES)
def test_masks_in_colours_are_read_by_every_kind_of_table(tmp_path, table) -> None:
    dataset = in_colors(tmp_path, table, TABLES[table])
    dataset.check()
    assert dataset.labels.names == ("Animal", "Bicycle Lane")
    assert dataset.labels.palette == ((64, 128, 64), (192, 0, 128))
    assert dataset[0].target.semantic.tolist() == [[0, 1, 1], [255, 0, 1]]


def palette_in_another_order(path: Path) -> None:
    write_palette(path, 2 - INDICES, COLORS[::-1])


def with_alpha(path: Path) -> None:
    Image.fromarray(np.dstack([COLORS[INDICES], np.full((2, 3, 1), 255, np.uint8)])).save(path)


def grey(path: Path) -> None:
    write_image(path, np.zeros((2, 3, 1), np.uint8))


@pytest.mark.parametrize("table", ["label_colors.txt", "labelmap.txt"])
@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (palette_in_another_order, [[0, 1, 1], [255, 0, 1]]),
        (with_alpha, [[0, 1, 1], [255, 0, 1]]),
        (grey, [[255] * 3] * 2),
    ],
)
def test_masks_in_colours_may_be_stored_in_other_ways(tmp_path, table, mask, expected) -> None:
    dataset = in_colors(tmp_path, table, TABLES[table], mask)
    dataset.check()
    assert dataset[0].target.semantic.tolist() == expected


@pytest.mark.parametrize("table", TABLES)
def test_masks_in_colours_name_an_unknown_colour_with_image_and_pixel(tmp_path, table) -> None:
    stray = COLORS[INDICES]
    stray[1, 2] = (1, 2, 3)
    dataset = in_colors(tmp_path, table, TABLES[table], lambda path: write_image(path, stray))
    said = rf"masks/train/a\.png: the pixel in row 1, column 2 has the colour \(1, 2, 3\), which .*{table} does not"
    with pytest.raises(SegfolioError, match=said):
        dataset[0]


def test_masks_in_colours_keep_their_ids_where_they_are_ids(tmp_path) -> None:
    """A palette in classes.yaml is for pictures where the masks are grey or have a palette of their own."""
    mask_folder.write(tmp_path)
    dataset = MaskFolder(tmp_path, "train")
    ids = read_id_map(tmp_path / "masks/train/0.png")
    assert np.array_equal(dataset[0].target.semantic, ids)
    assert tmp_path / "classes.yaml" not in list(dataset.files())


def test_masks_in_colours_have_a_fingerprint_of_their_table(tmp_path) -> None:
    swapped = CAMVID.replace("64 128 64", "1 1 1").replace("192 0 128", "64 128 64").replace("1 1 1", "192 0 128")
    prints = {fingerprint(in_colors(tmp_path / str(i), "t.txt", text)) for i, text in enumerate((CAMVID, swapped))}
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"t\.txt names no class"),
        ("road 1 2 3\ncar 4 5\n", r"t\.txt, line 2: 'car 4 5' is no class and colour"),
        ("car:1,2,3::\ncar:4,5,6::\n", r"t\.txt, line 2: the class 'car' occurs twice"),
        ("1 2 300 car\n", r"t\.txt: the colour of car is \[1, 2, 300\]"),
        ("1 2 3 void\n", r"t\.txt: a label space needs at least one class"),
    ],
)
def test_masks_in_colours_need_a_table_that_says_so(tmp_path, text, said) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(SegfolioError, match=said):
        read_classes(tmp_path / "t.txt")


def test_masks_in_colours_need_a_colour_for_each_class(tmp_path) -> None:
    with pytest.raises(SegfolioError, match=r"the colour \(1, 2, 3\) is given to two classes"):
        in_colors(tmp_path, "t.txt", "1 2 3 road\n1 2 3 car\n")


# images alone


def test_images_alone_are_no_dataset_to_inspect_or_train_on(segfolio, tmp_path, capsys) -> None:
    mask_folder.write(tmp_path / "data")
    (tmp_path / "c.yaml").write_text("dataset: {class_path: segfolio.data.datasets.ImageFolder}\nroot: data/images\n")
    assert segfolio("inspect", "c.yaml") == 1
    assert "ImageFolder holds images without a truth, to be predicted by data.images" in capsys.readouterr().out
    config = experiment(tmp_path)
    config.write_text(config.read_text().replace("CocoInstances", "ImageFolder"))
    assert segfolio("fit", "-c", config, "--data.root", "data/images") == 2
    assert "ImageFolder holds images without a truth" in capsys.readouterr().err


# CVAT

META = """<meta><task><size>3</size><labels><label><name>car</name></label><label><name>tree</name></label>
<label><name>leg</name><parent>car</parent></label></labels>
<original_size><width>10</width><height>8</height></original_size></task></meta>"""
SHAPES = {
    "polygon": '<polygon label="tree" points="3.00,2.00;8.00,2.00;8.00,6.00;3.00,6.00" z_order="0"/>',
    "mask": '<mask label="tree" rle="6, 8, 1, 5" left="2" top="2" width="5" height="4"/>',
    "box": '<box label="car" xtl="3.0" ytl="2.0" xbr="8.0" ybr="6.0"/>',
    "turned box": '<box label="car" xtl="3.5" ytl="1.5" xbr="7.5" ybr="6.5" rotation="90.0"/>',
    "ellipse": '<ellipse label="tree" cx="5" cy="4" rx="3" ry="2"/>',
}


def images_xml(*shapes: str) -> str:
    image = f'<image id="4" name="a.png" width="10" height="8">{"".join(shapes)}</image>'
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{META}{image}</annotations>'


def opened(root: Path, xml: str, *names: str, **arguments: Any) -> CocoInstances:
    for name in names or ("a.png",):
        write_image(root / "images" / name, np.zeros((8, 10, 3), np.uint8))
    (root / "annotations.xml").write_text(xml)
    return CocoInstances(root, "train", annotations="annotations.xml", **arguments)


def square() -> np.ndarray:
    mask = np.zeros((8, 10), np.bool_)
    mask[2:6, 3:8] = True
    return mask


def test_cvat_polygon_is_the_mask_under_the_number_of_the_image(tmp_path) -> None:
    dataset = opened(tmp_path, images_xml(SHAPES["polygon"]))
    dataset.check()
    assert dataset.labels.names == ("car", "tree")
    (sample,) = (dataset[i] for i in range(len(dataset)))
    assert (sample.image_id, sample.target.number) == ("a", 4)
    assert np.array_equal(sample.target.segments.masks, [square()])
    assert sample.target.segments.labels.tolist() == [1]


def test_cvat_mask_runs_along_the_rows_of_its_box(tmp_path) -> None:
    expected = np.zeros((8, 10), np.bool_)
    inside = np.repeat([False, True, False, True], [6, 8, 1, 5]).reshape(4, 5)
    expected[2:6, 2:7] = inside
    dataset = opened(tmp_path, images_xml(SHAPES["mask"]), background="ground")
    assert np.array_equal(dataset[0].target.segments.masks, [expected])
    assert np.array_equal(dataset[0].target.semantic == 1, expected)


@pytest.mark.parametrize(("kind", "box"), [("box", [3, 2, 5, 4]), ("turned box", [3, 2, 5, 4])])
def test_cvat_box_is_a_box_without_a_mask(tmp_path, kind, box) -> None:
    dataset = opened(tmp_path, images_xml(SHAPES[kind], SHAPES["polygon"]))
    segments = dataset[0].target.segments
    assert segments.box_only.tolist() == [True, False]
    assert rle.boxes(segments.rles)[0].tolist() == box
    assert "1 annotation without a segmentation, with a box alone" in (dataset.without_masks() or "")


def test_cvat_ellipse_is_what_it_encloses(tmp_path) -> None:
    y, x = np.mgrid[:8, :10] + 0.5
    expected = ((x - 5) / 3) ** 2 + ((y - 4) / 2) ** 2 <= 1
    found = opened(tmp_path, images_xml(SHAPES["ellipse"]))[0].target.segments.masks[0].numpy()
    assert (found != expected).sum() <= 4  # on the edge
    assert rle.boxes(rle.encode(found[None]))[0].tolist() == pytest.approx([2, 2, 6, 4], abs=1)


def test_cvat_group_of_one_label_is_one_object(tmp_path) -> None:
    parts = [
        '<polygon label="tree" group_id="1" points="0,0;2,0;2,2;0,2"/>',
        '<mask label="tree" group_id="1" rle="0, 4" left="6" top="4" width="2" height="2"/>',
        '<polygon label="tree" group_id="1" points="4,4;6,4;6,6;4,6"/>',
        '<polygon label="car" group_id="1" points="0,6;2,6;2,8;0,8"/>',
    ]
    segments = opened(tmp_path, images_xml(*parts))[0].target.segments
    assert segments.labels.tolist() == [1, 0]
    assert segments.masks.sum((1, 2)).tolist() == [12, 4]


def test_cvat_crowd_is_a_crowd(tmp_path) -> None:
    crowd = SHAPES["polygon"].replace("/>", '><attribute name="is_crowd">1</attribute></polygon>')
    assert opened(tmp_path, images_xml(crowd))[0].target.segments.crowd.tolist() == [True]


def test_cvat_shapes_without_an_area_are_left_out_counted_and_said(tmp_path) -> None:
    points = '<points label="car" points="1,1"/>'
    xml = images_xml(
        '<tag label="car"/>', points, points, '<polyline label="car" points="1,1;2,2"/>', SHAPES["polygon"]
    )
    with pytest.warns(UserWarning, match=r"2 shapes without an area left out \(points\); the first is .*image a\.png"):
        assert len(opened(tmp_path, xml)[0].target.segments) == 1


TRACK = """<track id="0" label="car"><box frame="0" outside="0" keyframe="1" xtl="0" ytl="0" xbr="4" ybr="4"/>
<box frame="1" outside="0" keyframe="0" xtl="1" ytl="1" xbr="5" ybr="5"/><box frame="2" outside="1" xtl="1" ytl="1"
xbr="5" ybr="5"/></track><track id="1" label="tree"><polygon frame="1" outside="0" points="3,2;8,2;8,6;3,6"/></track>"""


@pytest.mark.parametrize("suffix", [".png", ".PNG"])
def test_cvat_tracks_are_objects_of_the_frames_in_which_they_are_seen(tmp_path, suffix) -> None:
    names = [f"frame_{i:06d}{suffix}" for i in range(3)]
    dataset = opened(tmp_path, f"<annotations>{META}{TRACK}</annotations>", *names)
    dataset.check()
    assert [dataset.image_id(i) for i in range(len(dataset))] == ["frame_000000", "frame_000001", "frame_000002"]
    labels, boxes = zip(*((s.target.segments.labels.tolist(), s.target.segments.boxes) for s in dataset), strict=True)
    assert labels == ([0], [0, 1], [])
    assert boxes[0].tolist() == [[0, 0, 4, 4]]
    assert np.array_equal(dataset[1].target.segments.masks[1], square())
    assert list(dataset.files())[1:] == [tmp_path / "images" / name for name in names]


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<annotations>", r"annotations\.xml is no XML"),
        ("<html></html>", r"annotations\.xml is <html>, expected <annotations>"),
        (images_xml('<blob label="car"/>'), r"image a\.png has a shape of the unknown kind 'blob'"),
        (images_xml('<polygon label="car" points="1,1;2,2"/>'), r"image a\.png: a polygon of car cannot be read"),
        (images_xml('<polygon label="car"/>'), r"image a\.png: a polygon of car lacks 'points'"),
        (images_xml('<mask label="car" rle="3" left="0" top="0" width="2" height="2"/>'), "its runs sum to 3, but 2x2"),
        (images_xml('<mask label="car" rle="4" left="9" top="0" width="2" height="2"/>'), "leaves the image of 10x8"),
        (images_xml('<polygon label="dog" points="1,1;2,2;3,1"/>'), "the label 'dog' is not among those of the task"),
        (images_xml('<polygon points="1,1;2,2;3,1"/>'), "has a polygon without a label"),
        (f"<annotations>{TRACK}</annotations>", "lists no images, and its meta has no original_size"),
    ],
)
def test_cvat_file_that_is_damaged_is_refused_in_a_sentence(tmp_path, xml, said) -> None:
    with pytest.raises(SegfolioError, match=said):
        opened(tmp_path, xml)


def test_cvat_file_and_coco_file_of_the_same_objects_are_the_same_dataset(tmp_path) -> None:
    dataset = opened(tmp_path, images_xml(SHAPES["polygon"], SHAPES["mask"]))
    written = coco.annotations_json([("a.png", dataset[0].target.segments)], dataset.labels)
    (tmp_path / "same.json").write_text(json.dumps(written))
    same = CocoInstances(tmp_path, "train", annotations="same.json")
    assert same.labels == dataset.labels
    assert np.array_equal(same[0].target.segments.masks, dataset[0].target.segments.masks)
