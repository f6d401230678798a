"""What Weights & Biases gets to switch on and off."""

from typing import Any

import numpy as np
import pytest
import torch

from segfolio.data.formats import rle
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Instances, Prediction, Segments, Target
from segfolio.viz.switchable import switchable
from segfolio.viz.views import views

LABELS = LabelSpace(("car", "sky"), things=("car",))
SIZE = (20, 40)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of the last `wandb.Image`."""
    import wandb

    found: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "Image", lambda image, **arguments: found.update(image=image, **arguments))
    return found


def make(truth: np.ndarray, found: np.ndarray, max_width: int = 100) -> None:
    segments = Segments(rle.encode(truth), torch.zeros(len(truth)).long(), torch.zeros(len(truth)).bool(), SIZE)
    scores = torch.linspace(0.95, 0.55, len(found))
    prediction = Prediction("a", SIZE, instances=Instances(rle.encode(found), torch.zeros(len(found)).long(), scores))
    target = Target(segments=segments)
    image = np.zeros((*SIZE, 3), np.uint8)
    switchable(image, views(prediction, target, LABELS), prediction, target, LABELS, max_width)


def squares(*corners: tuple[int, int]) -> np.ndarray:
    found = np.zeros((len(corners), *SIZE), bool)
    for mask, (y, x) in zip(found, corners, strict=True):
        mask[y : y + 4, x : x + 4] = True
    return found


def test_a_value_is_a_true_object_or_another_one(made):
    make(squares((0, 0), (8, 8)), squares((8, 8), (0, 20), (0, 30)))
    truth, prediction = (made["masks"][f"instances_{role}"] for role in ("truth", "prediction"))
    assert truth["class_labels"] == prediction["class_labels"] == {1: "1 car", 2: "2 car", 3: "others", 255: "ignored"}
    assert [int(truth["mask_data"][y, x]) for y, x in ((0, 0), (8, 8), (0, 20))] == [1, 2, 0]
    assert [int(prediction["mask_data"][y, x]) for y, x in ((0, 0), (8, 8), (0, 20), (0, 30))] == [0, 2, 3, 3]


def test_boxes_are_shares_of_the_image_with_class_and_score(made):
    make(squares((8, 8)), squares((8, 8), (0, 20)))
    second, first = made["boxes"]["prediction"]["box_data"]  # the best on top
    assert first["position"] == {"minX": 0.2, "minY": 0.4, "maxX": 0.3, "maxY": pytest.approx(0.6)}
    assert (first["class_id"], first["box_caption"]) == (0, "car 0.95")
    assert second["scores"] == {"score": pytest.approx(0.55)}
    (truth,) = made["boxes"]["truth"]["box_data"]
    assert truth == {"position": first["position"], "class_id": 0}
    assert made["boxes"]["prediction"]["class_labels"] == {0: "car", 1: "sky"}


def test_image_and_masks_have_one_size(made):
    make(squares((0, 0)), squares((0, 0)), max_width=10)
    assert made["image"].shape == (5, 10, 3)
    assert {mask["mask_data"].shape for mask in made["masks"].values()} == {(5, 10)}


def test_more_objects_than_a_mask_has_values(made):
    pixels = np.eye(400, dtype=bool).reshape(400, 10, 40)
    truth = np.zeros((400, *SIZE), bool)
    truth[:, :10] = pixels
    make(truth, truth[:1])
    mask = made["masks"]["instances_truth"]
    assert mask["mask_data"].max() == 254
    assert mask["class_labels"][254] == "others"
    assert len(mask["class_labels"]) == 255
    assert (mask["mask_data"] == 254).sum() == 400 - 253
