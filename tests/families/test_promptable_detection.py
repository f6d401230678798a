"""A detector that is prompted: trained as `Detection` trains, asked as a `Promptable` is, by every command."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from segfolio.architectures.one_stage.yolo_seg import YOLOSeg
from segfolio.architectures.promptable.fast_sam import FastSAM
from segfolio.architectures.promptable.sam import SAM
from segfolio.data.batches import collate
from segfolio.data.datasets import Shapes
from segfolio.data.formats import rle
from segfolio.data.formats.images import write_image
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.data.sample import Batch, Sample, to_pixels
from segfolio.errors import SegfolioError
from segfolio.families import Detection, Promptable, PromptableDetection
from segfolio.inference.all_masks import AllMasks
from segfolio.inference.clicks import first_click
from segfolio.inference.everything import Everything
from segfolio.inference.prompt_protocols import Clicks
from segfolio.inference.prompt_test import PromptProtocols
from tests.architectures.promptable.prompts import find_several
from tests.families.test_per_pixel import trainer

SGD = partial(torch.optim.SGD, lr=0.01)
SMALL = {**FastSAM.tiny, "image_size": 64}
DETECTOR = {"version": 8, "depth": 0.33, "width": 0.125, "max_channels": 512, "bins": 26}
ONE = LabelSpace(("object",), things=("object",))


def family(network: Any = FastSAM, labels: LabelSpace = Shapes.labels, **arguments: Any) -> PromptableDetection:
    torch.manual_seed(0)
    return PromptableDetection(labels, partial(network, **SMALL), optimizer=SGD, **arguments)


def several(model: PromptableDetection) -> PromptableDetection:
    find_several(model.network.image_encoder)
    return model.eval()


def shapes(**arguments: Any) -> DataModule:
    dataset = partial(Shapes, size=(48, 64), train=2, val=2, test=2)
    return DataModule(lambda root, split: dataset(root, split), batch_size=2, num_workers=0, **arguments)


def drawn(preparation: Any, count: int = 2) -> list[Sample]:
    dataset, rng = Shapes(size=(48, 64), train=count), np.random.default_rng(0)
    return [preparation(dataset[i], rng) for i in range(count)]


def batch(samples: list[Sample]) -> Batch:
    return collate([[sample] for sample in samples])


def test_it_learns_what_a_detector_of_one_class_learns() -> None:
    ours = family()
    theirs = Detection(ONE, partial(YOLOSeg, **DETECTOR), optimizer=SGD)
    theirs.network.load_state_dict(ours.network.image_encoder.state_dict())
    samples = drawn(ours.preparation)
    found = ours.train().compute_losses(batch(samples))
    assert {label for sample in samples for label in sample.target.segments.labels.tolist()} - {0}
    for sample in samples:
        sample.target.segments.labels.zero_()
    expected = theirs.train().compute_losses(batch(samples))
    assert found.keys() == expected.keys() == {"box", "cls", "dfl", "mask"}
    assert all(torch.equal(loss, expected[name]) for name, loss in found.items())
    assert found["mask"] > 0


def test_whatever_is_no_background_is_an_object() -> None:
    labels = LabelSpace(("nothing", "sky", "cat"), things=("cat",), background="nothing")
    model = family(labels=labels)
    assert model.places.tolist() == [-1, 0, 0]
    assert model.preparation.labels.is_thing == (False, True, True)


def test_it_is_validated_and_tested_as_a_promptable_is() -> None:
    also: Any = {"box": "boxes", "everything": "all_masks", "merged": Clicks(1, multimask=False)}
    model = family(test=PromptProtocols(Clicks(3), also))
    (found,) = trainer().test(model, shapes(), verbose=False)
    names = ("mIoU_1click", "mIoU_3clicks", "box/mIoU_box", "everything/AR_1000", "merged/mIoU_1click")
    assert {f"test/{name}" for name in names} <= found.keys()
    assert family().main_figure.name == "mIoU_1click"
    words = "everything: all masks that are found without being asked; merged: 1 clicks on each object at most, in its"
    assert words in model.protocol
    assert model.protocol.endswith("one mask")


def test_everything_s_grid_asks_it_like_any_other() -> None:
    """And finds no more than there are."""
    samples = drawn(lambda sample, rng: sample)
    together, model = batch(samples), several(family())
    all_of_them = AllMasks().predict(model, together)
    asked = Everything(points_per_side=6, iou_threshold=1e-6, stability_threshold=0).predict(model, together)
    for each, of_grid in zip(all_of_them, asked, strict=True):
        masks = {mask["counts"] for mask in each.instances.rles}
        assert len(each.instances.rles) == SMALL["max_masks"]
        assert 0 < len(of_grid.instances.rles) <= len(each.instances.rles)
        assert sum(mask["counts"] in masks for mask in of_grid.instances.rles) > 0


def test_all_masks_are_those_above_the_threshold_best_first() -> None:
    model = several(family())
    embedded = model.embedded(torch.rand(1, 3, 48, 64), [(48, 64)])
    found = AllMasks().find(embedded)
    assert len(found.rles) == SMALL["max_masks"]
    assert torch.equal(found.iou, found.iou.sort(descending=True).values)
    middle = float(found.iou[9])
    fewer = AllMasks(score_threshold=middle).find(embedded)
    assert len(fewer.rles) == int((found.iou > middle).sum()) < 10
    assert fewer.rles == found.rles[: len(fewer.rles)]
    boxes = torch.from_numpy(rle.boxes(found.rles)).float()
    there = boxes[:, 2] > 0
    assert torch.equal(found.points[there], (boxes[:, :2] + boxes[:, 2:] / 2)[there])


def test_a_network_that_has_to_be_asked_is_told_so() -> None:
    sam = Promptable(Shapes.labels, partial(SAM, **SAM.tiny), optimizer=SGD)
    with pytest.raises(SegfolioError, match="SAM finds nothing without being asked; take everything mode"):
        AllMasks().predict(sam, batch(drawn(lambda sample, rng: sample)))
    with pytest.raises(SegfolioError, match="SAM finds no masks by itself among which prompts could choose; take Fast"):
        PromptableDetection(Shapes.labels, partial(SAM, **SAM.tiny), optimizer=SGD)
    with pytest.raises(SegfolioError, match=r"score_threshold is 2, expected 0 to 1"):
        AllMasks(2)


def test_a_network_that_selects_is_not_trained_by_prompts() -> None:
    with pytest.raises(SegfolioError, match=r"FastSAM is not trained by prompts but as a detector; take .*Detection"):
        Promptable(Shapes.labels, partial(FastSAM, **SMALL), optimizer=SGD)


@pytest.mark.parametrize("classes", [ONE, Shapes.labels], ids=["one class", "classes"])
def test_a_run_of_a_detector_is_what_it_starts_from(tmp_path: Path, classes: LabelSpace) -> None:
    detector = Detection(classes, partial(YOLOSeg, **DETECTOR), optimizer=SGD)
    content: dict[str, Any] = {"state_dict": detector.state_dict()}
    detector.on_save_checkpoint(content)
    torch.save(content, tmp_path / "last.ckpt")
    ours = family(init_from=str(tmp_path / "last.ckpt")).network.image_encoder.state_dict()
    taken = [name for name, value in detector.network.state_dict().items() if torch.equal(value, ours[name])]
    missing = ours.keys() - taken
    assert bool(missing) == (classes is Shapes.labels)
    assert all(name.startswith("classes.") for name in missing)


def config(**network: Any) -> dict[str, Any]:
    return {
        "model": {
            "class_path": "segfolio.families.PromptableDetection",
            "init_args": {
                "architecture": {
                    "class_path": "segfolio.architectures.promptable.fast_sam.FastSAM",
                    "init_args": {**SMALL, "image_size": 96, **network},
                },
                "test": {"protocol": "clicks_5", "also": {"everything": "all_masks"}},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.0}},
            },
        },
        "data": {
            "dataset": {
                "class_path": "segfolio.data.datasets.Shapes",
                "init_args": {"size": [96, 96], "train": 2, "val": 1, "test": 1},
            },
            "batch_size": 2,
            "num_workers": 0,
        },
        "trainer": {"accelerator": "cpu", "max_steps": 1, "limit_val_batches": 0, "logger": False},
    }


def test_one_training_answers_prompts_alike_by_every_command(segfolio, tmp_path: Path, capsys) -> None:
    """`test` clicks in the middle of each object, `prompt` where it is told, and `predict` is `--everything`."""
    network = FastSAM(1, **{**SMALL, "image_size": 96})
    find_several(network.image_encoder)
    torch.save(network.state_dict(), "several.pt")
    Path("row.yaml").write_text(yaml.safe_dump(config(weights="several.pt")))
    assert segfolio("fit", "-c", "row.yaml", "--output=run") == 0, capsys.readouterr().err
    assert segfolio("test", "--ckpt_path=run/checkpoints/last.ckpt") == 0, capsys.readouterr().err
    figures = json.loads(Path("run/test/figures.json").read_text())
    assert figures["test/mIoU_1click"] > 0

    dataset = Shapes(split="test", size=(96, 96), test=1)
    sample = dataset[0]
    write_image(Path("photos/one.png"), to_pixels(sample.image))
    objects = rle.decode(sample.target.segments.rles, (96, 96))
    clicks = [first_click(mask) for mask in objects]
    asked = [part for x, y, _ in clicks for part in ("--point", f"{x - 0.5:g},{y - 0.5:g}", "--object")][:-1]
    assert segfolio("prompt", "--ckpt_path=run", "--image", "photos/one.png", *asked, "--output=out") == 0
    found = rle.decode([rle.from_segmentation(x["segmentation"], (96, 96)) for x in results("out")], (96, 96))
    shared, either = (objects & found).sum((1, 2)), (objects | found).sum((1, 2))
    assert (shared / either).mean() == pytest.approx(figures["test/mIoU_1click"])

    assert segfolio("prompt", "--ckpt_path=run", "--image", "photos/one.png", "--everything", "--output=all") == 0
    assert segfolio("predict", "--ckpt_path=run/checkpoints/last.ckpt", "--data.images=photos", "--output=pre") == 0
    everything, predicted = results("all"), json.loads(next(Path("pre").rglob("instances.json")).read_text())
    assert len(everything) == SMALL["max_masks"]
    assert [x["segmentation"] for x in predicted] == [x["segmentation"] for x in everything]


def results(folder: str) -> list[dict[str, Any]]:
    return json.loads(Path(folder, "instances.json").read_text())
