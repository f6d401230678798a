"""Exports of predictions: what other tools read is what was predicted."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from segfolio.callbacks.predictions import PredictionWriter
from segfolio.data.formats import label_studio, rle
from segfolio.data.formats.images import read_id_map, read_image
from segfolio.data.formats.panoptic import read_panoptic
from segfolio.data.image_space import RGB
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Instances, Prediction, Segments, Target

LABELS = LabelSpace(("car", "sky"), ids=(7, 900), things=("car",))
SIZE = (20, 30)


@pytest.fixture
def masks():
    """Two that overlap and one apart."""
    masks = np.zeros((3, *SIZE), bool)
    masks[0, 2:10, 2:10] = masks[1, 5:15, 5:15] = masks[2, 1:4, 20:28] = True
    return masks


def write(folder, predictions, number=None, labels=LABELS, **arguments):
    writer = PredictionWriter(**arguments)
    trainer = SimpleNamespace(default_root_dir=str(folder), world_size=1, is_global_zero=True, predict_dataloaders=None)
    module = SimpleNamespace(labels=labels, image_space=RGB)
    images = torch.zeros(len(predictions), 3, *SIZE, dtype=torch.uint8)
    ids = [p.image_id for p in predictions]
    targets = [] if number is None else [Target(number=number)] * len(predictions)
    writer.on_predict_start(trainer, module)
    writer.on_predict_batch_end(trainer, module, predictions, Batch(images, ids, [SIZE] * len(ids), targets), 0)
    writer.on_predict_epoch_end(trainer, module)


def instances(masks, scores=(0.9, 0.5, 0.7)):
    return Instances(rle.encode(masks), torch.tensor([0, 0, 0]), torch.tensor(scores))


@pytest.mark.parametrize(("number", "known_as"), [(42, 42), (None, "street/a")])
def test_coco_results_hold_the_objects_under_the_number_of_the_annotation_file(tmp_path, masks, number, known_as):
    write(tmp_path, [Prediction("street/a", SIZE, instances=instances(masks))], number)
    results = json.loads((tmp_path / "instances.json").read_text())
    assert [r["image_id"] for r in results] == [known_as] * 3
    assert [r["category_id"] for r in results] == [7, 7, 7]
    assert [r["score"] for r in results] == pytest.approx([0.9, 0.5, 0.7])
    np.testing.assert_array_equal([coco_mask.decode(r["segmentation"]) for r in results], masks)
    assert results[2]["bbox"] == [20, 1, 8, 3]


def test_the_id_map_shows_the_object_with_the_higher_score_where_two_overlap(tmp_path, masks):
    write(tmp_path, [Prediction("street/a", SIZE, instances=instances(masks))])
    ids = read_id_map(tmp_path / "instances/street/a.png")
    np.testing.assert_array_equal(ids, np.where(masks[0], 1, np.where(masks[1], 2, np.where(masks[2], 3, 0))))


def test_panoptic_png_and_json_hold_the_segments(tmp_path):
    ids = torch.zeros(SIZE, dtype=torch.int32)
    ids[:, :10], ids[:5, 10:] = 1, 2
    segments = Segments(ids, torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool))
    write(tmp_path, [Prediction("a", SIZE, panoptic=segments)], number=3)
    np.testing.assert_array_equal(read_panoptic(tmp_path / "panoptic/a.png"), ids)
    content = json.loads((tmp_path / "panoptic.json").read_text())
    (annotation,) = content["annotations"]
    assert (annotation["image_id"], annotation["file_name"]) == (3, "a.png")
    assert [(s["id"], s["category_id"], s["area"]) for s in annotation["segments_info"]] == [(1, 7, 200), (2, 900, 100)]


def test_objects_and_segments_are_drawn_over_the_image(tmp_path, masks):
    ids = torch.zeros(SIZE, dtype=torch.int32)
    ids[:, :10] = 1
    segments = Segments(ids, torch.tensor([1]), torch.zeros(1, dtype=torch.bool))
    prediction = Prediction("a", SIZE, instances=instances(masks, (0.9, 0.3, 0.7)), panoptic=segments)
    write(tmp_path, [prediction], min_score=0.5)
    drawn = read_image(tmp_path / "overlay_instances/a.png").any(-1)  # the image is black
    np.testing.assert_array_equal(drawn, masks[0] | masks[2])
    np.testing.assert_array_equal(read_image(tmp_path / "overlay_panoptic/a.png").any(-1), ids > 0)


def test_palette_files_have_the_colours_of_the_label_space(tmp_path):
    few = LabelSpace(("car", "sky"), ids=(7, 3), palette=((1, 2, 3), (4, 5, 6)))
    indices = torch.zeros(SIZE, dtype=torch.uint8)
    indices[:, 10:] = 1
    write(tmp_path, [Prediction(name, SIZE, indices) for name in "ab"], labels=few)
    for name in "ab":
        stored = Image.open(tmp_path / f"palette/{name}.png")
        np.testing.assert_array_equal(np.array(stored), few.decode(indices.numpy()))
        np.testing.assert_array_equal(np.array(stored.convert("RGB")), np.array(few.palette)[indices])


def test_label_studio_tasks_give_the_masks_back(tmp_path, masks):
    write(tmp_path, [Prediction("a", SIZE, instances=instances(masks))], label_studio=True)
    (task,) = json.loads((tmp_path / "label_studio.json").read_text())
    regions = task["predictions"][0]["result"]
    found = [label_studio.decode(region["value"]["rle"], SIZE) for region in regions]
    np.testing.assert_array_equal(found, masks)
    assert {region["value"]["brushlabels"][0] for region in regions} == {"car"}


def test_nothing_is_written_of_what_was_not_predicted(tmp_path):
    write(tmp_path, [Prediction("a", SIZE, torch.zeros(SIZE, dtype=torch.uint8))])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ids", "overlay"]  # ids of 16 bits have no palette
