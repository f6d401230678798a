"""Everything mode as a test of the promptable family, and as what it predicts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segfolio.architectures.promptable.sam import SAM
from segfolio.data.labels import ANYTHING
from segfolio.data.sample import Batch
from segfolio.errors import SegfolioError
from segfolio.inference.everything import Everything
from segfolio.inference.prompt_protocols import Clicks
from segfolio.inference.prompt_test import PromptProtocols
from tests.families.test_per_pixel import trainer
from tests.families.test_promptable import family, shapes
from tests.inference.prompted import Asking, Discs

LOOSE = {"points_per_side": 4, "iou_threshold": 0.01, "stability_threshold": 0.1, "stability_offset": 0.01}


def test_everything_is_a_protocol_of_the_test_and_what_predict_finds() -> None:
    everything = Everything(**LOOSE)
    model = family(test=PromptProtocols(everything, {"clicks": Clicks(1)}), predict_with=everything)
    (found,) = trainer().test(model, shapes(eval_batch_size=3), verbose=False)
    assert {"test/AR_10", "test/AR_100", "test/AR_1000", "test/clicks/mIoU_1click"} <= found.keys()
    (alone,) = trainer().test(family(test=PromptProtocols(everything)), shapes(), verbose=False)
    assert 0 < found["test/AR_1000"] == alone["test/AR_1000"]
    assert model.protocol.startswith("everything mode with 4 x 4 points, predicted IoU > 0.01, stability 0.1, at its")
    predictions = [p for batch in trainer().predict(model, shapes()) or [] for p in batch]
    assert len(predictions) == 3
    assert all(p.instances and len(p.instances.rles) for p in predictions)
    assert model.predicted_labels is ANYTHING


def test_a_resized_image_is_asked_in_pixels_of_its_own_and_gives_no_crops() -> None:
    network = Discs()
    asking, everything = Asking(network), Everything(**LOOSE)
    images = torch.randint(0, 256, (1, 3, 24, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = Batch(images, ["one"], [(48, 64)])
    (found,) = everything.answer(asking, batch)
    assert found.instances
    assert found.instances.rles[0]["size"] == [48, 64]
    with pytest.raises(SegfolioError, match="one is resized before everything mode cuts crops from it"):
        replace(everything, crop_layers=1).answer(asking, batch)
    stored = Batch(images, ["one"], [(24, 32)])
    assert replace(everything, crop_layers=1).answer(asking, stored)[0].instances
    assert network.embedded == [1] * 6  # of the image twice, and of four crops


def test_everything_of_images_is_predicted_by_the_command(segfolio, tmp_path: Path, capsys) -> None:
    torch.manual_seed(0)
    torch.save(SAM(0, **SAM.tiny).state_dict(), tmp_path / "sam.pth")
    protocol = {"class_path": "segfolio.inference.everything.Everything", "init_args": LOOSE}
    content: dict[str, Any] = {
        "model": {
            "class_path": "segfolio.families.Promptable",
            "init_args": {
                "architecture": {
                    "class_path": "segfolio.architectures.promptable.sam.SAM",
                    "init_args": {**SAM.tiny, "weights": str(tmp_path / "sam.pth")},
                },
                "test": {"protocol": protocol, "also": {"preset": "everything"}},
                "predict_with": {**LOOSE, "crop_layers": 1, "crop_points_downscale": 2},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
            },
        },
        "data": {
            "dataset": {
                "class_path": "segfolio.data.datasets.Shapes",
                "init_args": {"size": [48, 64], "train": 1, "val": 1, "test": 2},
            },
            "num_workers": 0,
        },
        "trainer": {"accelerator": "cpu"},
    }
    (tmp_path / "row.yaml").write_text(yaml.safe_dump(content))
    assert segfolio("test", "-c", "row.yaml", "--output=test") == 0, capsys.readouterr().err
    assert "test/preset/AR_1000" in json.loads(Path("test/figures.json").read_text())
    assert segfolio("predict", "-c", "row.yaml", "--output=run") == 0, capsys.readouterr().err
    found = json.loads(Path("run/instances.json").read_text())
    assert found
    assert {result["category_id"] for result in found} == {1}
    assert len(list(Path("run/overlay_instances").rglob("*.png"))) == 2
