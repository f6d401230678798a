import json
from functools import partial

import numpy as np
import pytest

from segfolio.data.datasets.mapillary_vistas import MapillaryVistas, label_space
from segfolio.data.formats.images import write_id_map
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import mapillary_vistas
from tests.fake.mapillary_vistas import LABELS


@pytest.fixture
def root(tmp_path):
    mapillary_vistas.write(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("written", "version"), [("", "v1.2"), ("v1.2", "v1.2"), ("v2.0", "v2.0")])
def test_each_archive_has_its_layout(tmp_path, written, version):
    mapillary_vistas.write(tmp_path, version=written)
    splits = {split: MapillaryVistas(tmp_path, split, version) for split in ("train", "val", "test")}
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 3, "val": 2, "test": 1}
    assert splits["train"].image_id(1) == "tW01-x_"
    assert splits["train"][0].target.segments is not None
    assert splits["test"][0].target is None


def test_classes_are_those_of_the_config(root):
    labels = MapillaryVistas(root, "train").labels
    assert labels.names == tuple(label["name"] for label in LABELS[:4])
    assert (labels.ids, labels.void_ids) == ((0, 1, 2, 3), (4,))
    assert labels.things == ("animal--bird", "object--vehicle--car")
    assert labels.palette[3] == (0, 0, 142)


def test_a_class_in_the_middle_that_is_not_evaluated_leaves_a_gap(tmp_path):
    config = {"labels": [LABELS[0], LABELS[4], LABELS[1]]}
    labels = label_space(config, tmp_path)
    assert (labels.names, labels.ids, labels.void_ids) == (("construction--flat--road", "animal--bird"), (0, 2), (1,))


def test_objects_count_from_zero(root):
    target = MapillaryVistas(root, "train")[0].target
    segments = target.segments
    strip = segments.id_map[0, ::16].tolist()
    assert segments.labels[[place - 1 for place in strip]].tolist() == [1, 1, 3, 1]
    assert (len(set(strip)), strip[1]) == (3, strip[3])
    assert not segments.crowd.any()
    assert sorted(segments.labels.tolist()) == [0, 1, 1, 2, 3]
    semantic = target.semantic.numpy()
    classes = np.append(255, segments.labels.numpy())[segments.id_map.numpy()]
    assert (semantic == classes).all()
    assert set(np.unique(semantic)) == {0, 1, 2, 3, 255}


def test_semantic_maps_alone(root):
    (root / "training/v1.2/instances").rename(root / "elsewhere")
    assert MapillaryVistas(root, "train", instances=False)[0].target.segments is None
    with pytest.raises(SegfolioError, match=r"training: 3 instance maps missing: .* or set instances: false"):
        MapillaryVistas(root, "train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dev",), "Mapillary Vistas has no split 'dev'; it has test, train, val"),
        (("train", "v1.1"), r"version is 'v1\.1', expected v1\.2 or v2\.0"),
        (("train", "v2.0"), r"lacks config_v2\.0\.json, training/v2\.0/labels of Mapillary Vistas: found config_v1\.2"),
    ],
)
def test_wrong_arguments_say_what_there_is(root, arguments, message):
    with pytest.raises(SegfolioError, match=message):
        MapillaryVistas(root, *arguments)


def test_a_wrong_root_says_what_was_found(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(
        SegfolioError, match=r"lacks config\.json, training/images, training/labels .* found holiday\.jpg"
    ):
        MapillaryVistas(tmp_path, "train")
    with pytest.raises(SegfolioError, match=r"data\.root is not set"):
        MapillaryVistas(None, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"config_v1\.2\.json describes no classes, expected a list 'labels' of objects with name, color,"),
        ({"labels": [{"name": "road"}]}, "describes no classes"),
        ({"labels": [LABELS[0], LABELS[0]]}, r"config_v1\.2\.json: name construction--flat--road occurs twice"),
        ({"labels": [LABELS[4]]}, r"config_v1\.2\.json: a label space needs at least one class"),
    ],
)
def test_a_config_of_other_content_is_refused(root, content, message):
    (root / "config_v1.2.json").write_text(json.dumps(content))
    with pytest.raises(SegfolioError, match=message):
        MapillaryVistas(root, "train")


def test_inspection_passes_the_fake_and_names_planted_faults(root):
    opened = {split: partial(MapillaryVistas, root, split) for split in ("train", "val")}
    report = inspect_dataset(opened)
    assert report.fatal == []
    assert report.splits["train"].objects.tolist() == [0, 6, 0, 3]
    write_id_map(root / "training/v1.2/instances/tW00-x_.png", np.full((48, 64), 256 * 9, np.uint16))
    (root / "training/v1.2/labels/tW01-x_.png").write_bytes(b"")
    where = " ".join(p.where for p in inspect_dataset(opened).fatal)
    assert "instances/tW00-x_.png: label id 9 is not in the label space" in where
    assert "labels/tW01-x_.png" in where
