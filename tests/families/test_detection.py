"""`Detection`: what is trained on, what is logged, what is measured, and which files are refused."""

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torchvision.tv_tensors import Image, Mask

from segfolio.architectures.region_based.cascade_rcnn import CascadeMaskRCNN, CascadeRCNN
from segfolio.architectures.region_based.faster_rcnn import FasterRCNN
from segfolio.architectures.region_based.mask_rcnn import MaskRCNN
from segfolio.data.datasets import DSB2018, LVIS, CocoInstances, Shapes
from segfolio.data.detection_truth import DetectionTruth
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.data.sample import Batch, Instances, Prediction, Sample, Segments, Target
from segfolio.data.segments import is_id_map
from segfolio.data.transforms import RandomWindow, ResizeShortest
from segfolio.errors import SegfolioError
from segfolio.families import Detection
from segfolio.families.detection import detection_target
from segfolio.layers.detection import Detections, DetectionTarget
from segfolio.layers.proposals import ProposalRecipe
from segfolio.layers.regions import RegionRecipe
from segfolio.metrics import InstanceMetric
from tests.fake import coco_instances, dsb2018, lvis
from tests.families.one_stage import OneStage

LABELS = LabelSpace(("sky", "cat", "grass", "dog"), things=("cat", "dog"))
LOSSES = {"rpn_cls", "rpn_box", "cls", "box", "mask"}


def tiny(network: type = MaskRCNN) -> Callable[[int], nn.Module]:
    anchors = ((8,), (16,), (32,), (64,), (128,))
    return partial(
        network,
        **network.tiny,
        norm="group",
        frozen_stride=0,
        rpn=ProposalRecipe(anchors, samples=64, before_nms=(100, 100), after_nms=(50, 50)),
        roi=RegionRecipe(samples=32, score_threshold=0.0),
    )


def family(labels: LabelSpace, architecture: Any = None, **arguments: Any) -> Detection:
    torch.manual_seed(0)
    optimizer = partial(torch.optim.AdamW, lr=0.002)
    return Detection(labels, architecture or tiny(), **{"optimizer": optimizer, **arguments})


def trainer(**arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return Trainer(**quiet, use_distributed_sampler=False, enable_model_summary=False, **arguments)


def shapes(**arguments: Any) -> DataModule:
    dataset = partial(Shapes, size=(64, 80), train=2, val=2, test=2)
    return DataModule(lambda root, split: dataset(root, split), **{"batch_size": 2, "num_workers": 0, **arguments})


class Fixed(nn.Module):
    """Finds what it was told, and remembers what it was given."""

    def __init__(self, num_classes: int, found: Detections | None = None) -> None:
        super().__init__()
        self.num_classes, self.found, self.weight = num_classes, found, nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, sizes: list[Any], targets: list[DetectionTarget] | None = None) -> Any:
        self.given = images, sizes, targets
        return {"cls": self.weight} if self.training else [self.found] * len(images)


def target(masks: Tensor, labels: list[int], crowd: list[bool]) -> Target:
    return Target(segments=Segments(Mask(masks), torch.tensor(labels).long(), torch.tensor(crowd).bool()))


def test_things_are_trained_on_but_no_crowds_stuff_or_vanished_objects():
    masks = torch.zeros(5, 20, 30, dtype=torch.bool)
    masks[0, 3:9, 4:16] = masks[1, 19, 29] = masks[2, :5, :5] = masks[3, 10:, :] = True  # the last has vanished
    places = family(LABELS, Fixed).places
    found = detection_target("a", target(masks, [3, 1, 1, 2, 3], [False, False, True, False, False]), places)
    assert found.boxes.tolist() == [[4, 3, 16, 9], [29, 19, 30, 20]]
    assert found.labels.tolist() == [1, 0]
    assert found.masks is not None
    assert torch.equal(found.masks, masks[:2])
    none = detection_target("a", target(masks[:0], [], []), places)
    assert (none.boxes.shape, none.labels.shape) == ((0, 4), (0,))


def test_boxes_follow_the_masks_through_a_crop():
    data = shapes(train_transforms=[RandomWindow((40, 40), scale=(0.7, 2.0), hflip=0.5)])
    model = family(Shapes.labels, Fixed)
    batch = next(iter(data.train_dataloader()))
    model.train().compute_losses(batch)
    objects = 0
    for given in model.network.given[2]:
        assert given.masks is not None
        for box, mask in zip(given.boxes.long().tolist(), given.masks, strict=True):
            rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            assert box == [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
            objects += 1
    assert objects > 2


def test_padding_is_the_mean_and_its_extent_is_told():
    model = family(LABELS, Fixed)
    images = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    sizes = [(20, 25), (12, 30)]
    model.train()(images, sizes, [])
    seen, told, _ = model.network.given
    assert told == sizes
    assert model.network.num_classes == 2
    for image, (height, width), whole in zip(seen, sizes, model.normalize(images), strict=True):
        assert torch.equal(image[:, :height, :width], whole[:, :height, :width])
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()


def test_detections_are_things_at_the_original_size():
    found = Detections(
        torch.tensor([[0.0, 0, 10, 10], [4, 2, 8, 8]]),
        torch.tensor([1, 0]),
        torch.tensor([0.9, 0.8]),
        torch.ones(2, 28, 28),
    )
    model = family(LABELS, partial(Fixed, found=found)).eval()
    (prediction,) = model.predict(
        Batch(torch.zeros(1, 3, 20, 40, dtype=torch.uint8), ["a"], [(80, 60)], [], [(20, 20)])
    )
    assert prediction.instances is not None
    assert prediction.instances.labels.tolist() == [3, 1]
    assert prediction.instances.boxes is not None
    assert prediction.instances.boxes.tolist() == [[0, 0, 30, 40], [12, 8, 12, 24]]
    assert [mask["size"] for mask in prediction.instances.rles] == [[80, 60], [80, 60]]


def test_masks_that_are_all_trained_on_are_not_copied():
    """Thousands of small objects are gigabytes of them."""
    masks = torch.ones(3, 20, 30, dtype=torch.bool)
    places = family(LABELS, Fixed).places
    kept = detection_target("a", target(masks, [1, 3, 1], [False] * 3), places).masks
    assert kept is not None
    assert kept.data_ptr() == masks.data_ptr()


def test_weights_of_classes_in_another_order_are_pointed_out(recwarn):
    def architecture(weights_of: tuple[str, ...]) -> Callable[[int], nn.Module]:
        def made(num_classes: int) -> nn.Module:
            network = Fixed(num_classes)
            network.weights_of = weights_of
            return network

        return made

    family(LABELS, architecture(("cat", "dog")))
    family(LABELS, architecture(()))
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"in another order: cat starts as dog; before training the names .* wrong"):
        family(LABELS, architecture(("dog", "cat")))


def test_perfect_detections_have_an_ap_of_one():
    data = shapes(eval_transforms=[ResizeShortest([128])])
    model = family(Shapes.labels, Fixed).eval()
    for batch in data.val_dataloader():
        truth = detection_target("a", batch.targets[0], model.places)
        x1, y1, x2, y2 = truth.boxes.long().T
        assert truth.masks is not None
        masks = [m[None, None, a:b, c:d].float() for m, a, b, c, d in zip(truth.masks, y1, y2, x1, x2, strict=True)]
        small = [nn.functional.interpolate(m, (56, 56), mode="bilinear") for m in masks]
        model.network.found = Detections(
            2 * truth.boxes, truth.labels, torch.ones(len(truth.labels)), torch.cat(small)[:, 0]
        )
        model.validation_step(batch, 0)
    figures = model.evaluation.figures()
    assert figures["AP_box"] == 1
    assert figures["AP75"] == 1  # torchvision's pasting rounds boxes to pixels, which the strictest overlaps see


def test_a_federated_dataset_is_measured_as_lvis_measures_it(tmp_path):
    """All that is there is found, and before it an airplane where not all of them are annotated, applesauce where
    nobody looked for it; COCO would call them wrong."""
    lvis.write(tmp_path)
    data = DataModule(LVIS, str(tmp_path), num_workers=0, test_split="val")
    model, coco = family(data.labels), InstanceMetric(data.labels)

    def predict(batch: Batch) -> list[Prediction]:
        (name,), (size,), (target,) = batch.image_ids, batch.original_sizes, batch.targets
        segments: Any = target.segments
        more = torch.tensor([[], [2, 3], [2]][len(segments)], dtype=torch.int64)
        masks = torch.cat([torch.ones(len(more), *size, dtype=torch.bool), segments.masks.as_subclass(Tensor)])
        scores = torch.tensor([0.9] * len(more) + [0.5] * len(segments))
        whole = replace(segments, form=masks)
        found = Prediction(name, size, instances=Instances(whole.rles, torch.cat([more, segments.labels]), scores))
        coco.update(found, target)
        return [found]

    model.predict = predict  # type: ignore[method-assign]
    loops = trainer(max_steps=1)
    loops.fit(model, data)
    logged = {k.removeprefix("val/"): float(v) for k, v in loops.callback_metrics.items() if k.startswith("val/")}
    assert model.measured_by == "LVIS evaluation"
    found = {name: logged[name] for name in ("AP", "AP_frequent", "AP_rare", "AP_box", "AR_300", "AR_300_box")}
    assert found == pytest.approx(dict.fromkeys(found, 1))
    assert math.isnan(logged["AP_common"])
    assert "AR_100" not in logged
    assert coco.compute()["AP"] < 0.6
    assert family(Shapes.labels, Fixed).measured_by == "COCO evaluation"


def test_losses_have_names_and_fall_and_both_aps_are_logged():
    model = family(Shapes.labels)
    loops = trainer(max_steps=25)
    first: dict[str, float] = {}

    def remember(*_: Any) -> None:
        losses = {k: float(v) for k, v in loops.callback_metrics.items() if k.startswith("train/")}
        first.update({k: v for k, v in losses.items() if k not in first})

    model.on_train_batch_end = remember  # type: ignore[method-assign]
    loops.fit(model, shapes())
    last = {k: float(v) for k, v in loops.callback_metrics.items()}
    assert first.keys() == {"train/loss", *(f"train/loss_{name}" for name in LOSSES)}
    assert last["train/loss"] < 0.7 * first["train/loss"]
    assert {"val/AP", "val/AP50", "val/AP_small", "val/AP_box", "val/AR_100"} <= last.keys()


def test_more_objects_than_queries_are_told_before_training(recwarn):
    data = shapes()
    most = max(len(sample.target.segments) for sample in data.split("train"))

    class Counted(OneStage):
        num_queries = most

    trainer(max_steps=1).fit(family(data.labels, Counted), data)
    assert not [each for each in recwarn if "queries" in str(each.message)]
    Counted.num_queries = 1
    with pytest.warns(UserWarning, match=r"with more segments than the 1 queries of an image .*train "):
        trainer(max_steps=1).fit(family(data.labels, Counted), data)


def test_a_network_without_masks_is_measured_by_boxes():
    model = family(Shapes.labels, tiny(FasterRCNN), kinds=("bbox",))
    loops = trainer(max_steps=1)
    loops.fit(model, shapes())
    assert {k for k in loops.callback_metrics if k.startswith("train/loss_")} == {
        f"train/loss_{name}" for name in LOSSES - {"mask"}
    }
    assert model.main_metric == "AP_box"
    assert "val/AP_box" in loops.callback_metrics
    assert "val/AP" not in loops.callback_metrics


def test_it_learns_to_find_nuclei(tmp_path):
    """From scratch and in seconds, in images that it has not seen."""
    dsb2018.write(tmp_path)
    data = DataModule(DSB2018, str(tmp_path), batch_size=2, num_workers=0, cache=True)
    decay = partial(torch.optim.lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.05, total_iters=100)
    model = family(data.labels, optimizer=partial(torch.optim.AdamW, lr=0.005), scheduler=decay)
    loops = trainer(max_steps=100, max_epochs=-1, check_val_every_n_epoch=None, val_check_interval=100)
    loops.validate(model, data, verbose=False)
    assert loops.callback_metrics["val/AP50"] < 0.1
    loops.fit(model, data)
    assert loops.callback_metrics["val/AP50"] > 0.9
    assert loops.callback_metrics["val/AP50_box"] > 0.9


def test_a_one_stage_network_learns_with_masks_over_the_image(tmp_path):
    """From padded images of several sizes; its losses go by its own names."""
    dsb2018.write(tmp_path)
    scales = [ResizeShortest([64, 72, 80])]
    loaded = {"batch_size": 2, "num_workers": 0, "cache": True, "pad_batches": True}
    data = DataModule(DSB2018, str(tmp_path), train_transforms=scales, **loaded)
    model = family(data.labels, OneStage, optimizer=partial(torch.optim.AdamW, lr=0.005))
    loops = trainer(max_steps=120, max_epochs=-1, check_val_every_n_epoch=None, val_check_interval=120)
    loops.validate(model, data, verbose=False)
    assert loops.callback_metrics["val/AP50"] < 0.1
    loops.fit(model, data)
    assert {f"train/loss_{name}" for name in ("cls", "box", "mask")} <= loops.callback_metrics.keys()
    assert loops.callback_metrics["val/AP50"] > 0.9
    assert loops.callback_metrics["val/AP50_box"] > 0.9


@pytest.mark.parametrize("dataset", [CocoInstances, DSB2018])
def test_it_trains_on_every_form_of_instances(dataset, tmp_path):
    """Crowds and an image without objects (COCO), one class beside a background (nuclei), images of several sizes."""
    {CocoInstances: coco_instances, DSB2018: dsb2018}[dataset].write(tmp_path)
    scales = [ResizeShortest([40, 48, 56]), RandomWindow(hflip=0.5)]
    data = DataModule(
        dataset, str(tmp_path), batch_size=2, num_workers=0, train_transforms=scales, pad_batches=True, test_split="val"
    )
    model = family(data.labels)
    seen: list[Batch] = []
    losses = model.compute_losses
    model.compute_losses = lambda batch: seen.append(batch) or losses(batch)  # type: ignore[method-assign, func-returns-value]
    loops = trainer(max_steps=6, limit_val_batches=1)
    loops.fit(model, data)
    assert any(len(set(batch.sizes)) > 1 for batch in seen)
    losses_now = [value for name, value in loops.callback_metrics.items() if name.startswith("train/loss_")]
    assert torch.stack(losses_now).isfinite().all()
    assert min(losses_now) >= 0
    assert len(losses_now) == len(LOSSES)


FAULTS = {
    r"without a segmentation, .*annotation 300": {"segmentation": None},
    r"of an unknown category: .*annotation 300 \(9\)": {"category_id": 9},
    r"whose mask and box overlap by less than half: .*annotation 300": {"bbox": [50, 0, 10, 10]},
    r"with a box that is none .*annotation 300": {"bbox": [5, 5, -3, 10]},
    r"overlap by less than half: .*annotation 300 \(28 px\)": {"bbox": [4, 4, 0, 40]},
}


@pytest.mark.parametrize(
    "message", FAULTS, ids=["segmentation", "category", "far box", "negative box", "box without area"]
)
def test_what_cannot_be_trained_on_is_named_by_file_and_annotation_before_training(message, tmp_path):
    coco_instances.write(tmp_path)
    file = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0] |= FAULTS[message]
    file.write_text(json.dumps(content))
    data = DataModule(CocoInstances, str(tmp_path), num_workers=0)
    with pytest.raises(SegfolioError, match=message) as error:
        trainer(max_steps=1).fit(family(data.labels, Fixed), data)
    assert str(file) in str(error.value)


def test_what_has_no_objects_is_refused_in_one_sentence():
    with pytest.raises(SegfolioError, match="no class of the dataset is a thing, so there are no objects to find"):
        family(LabelSpace(("sky", "road")))
    data = shapes()
    sample = data.split("train").read(0)
    assert sample.target is not None
    with pytest.raises(SegfolioError, match="train_00000 has no objects but a semantic map alone"):
        detection_target("train_00000", replace(sample.target, segments=None), family(Shapes.labels).places)


def test_real_nuclei_are_boxed(real_data):
    data = CocoInstances(Path(real_data) / "dsb2018", "train", "instances_{split}.json", "images")
    whole: Any = data.read(0).target
    found = detection_target("a", whole, family(data.labels).places)
    xywh = whole.segments.boxes
    torch.testing.assert_close(found.boxes, torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).float())


@pytest.mark.parametrize("form", ["masks", "rles", "id map", "id maps"])
@pytest.mark.parametrize("count", [0, 1, 9, 300])
def test_what_is_trained_on_is_the_same_prepared_or_not(form: str, count: int) -> None:
    """Of objects that overlap, crowds, stuff, empty masks, and boxes alone."""
    rng, places = torch.Generator().manual_seed(count), family(LABELS, Fixed).places
    for density in (0.0, 0.01, 0.3):
        masks = torch.rand(count, 20, 30, generator=rng) < density
        labels, crowd = torch.randint(4, (count,), generator=rng), torch.rand(count, generator=rng) < 0.2
        for box_only in (None, torch.rand(count, generator=rng) < 0.05):
            whole: Any = Segments(Mask(masks), labels, crowd, box_only=box_only)
            if form == "id maps":
                whole = whole.compact()
            elif form != "masks":
                whole = replace(whole, form=whole.rles if form == "rles" else whole.id_map)
            sample = Sample(Image(torch.zeros(3, 20, 30)), "a", (20, 30), Target(segments=whole))
            prepared: Any = pickle.loads(pickle.dumps(DetectionTruth(LABELS)))(sample, np.random.default_rng(0)).target
            assert is_id_map(prepared.segments.form)
            old, new = (detection_target("a", one, places) for one in (sample.target, prepared))
            assert torch.equal(old.boxes, new.boxes)
            assert torch.equal(old.labels, new.labels)
            assert (old.masks is None) == (new.masks is None)
            assert old.masks is None or torch.equal(old.masks, new.masks)


def test_objects_travel_as_one_map_and_the_losses_are_those_of_their_masks() -> None:
    logged, bytes_each = [], []
    for prepared in (True, False):
        model, seen = family(Shapes.labels), []
        if not prepared:
            model.preparation = None
        compute = model.compute_losses
        model.compute_losses = lambda batch, s=seen, c=compute: s.append(batch) or c(batch)  # type: ignore[misc, method-assign]
        data, loops = shapes(seed=1, train_transforms=[RandomWindow(hflip=0.5)]), trainer(max_steps=2)
        torch.manual_seed(0)
        loops.fit(model, data)
        logged.append({k: v for k, v in loops.callback_metrics.items() if k.startswith("train/")})
        forms = [target.segments.form for batch in seen for target in batch.targets]
        bytes_each.append(max(form.nbytes for form in forms))
    assert logged[0] == logged[1]
    assert bytes_each == [64 * 80, 64 * 80]


def test_a_network_of_boxes_says_that_it_learns_no_masks() -> None:
    for network, learns in ((FasterRCNN, False), (CascadeRCNN, False), (MaskRCNN, True), (CascadeMaskRCNN, True)):
        assert family(Shapes.labels, tiny(network), kinds=("bbox",)).needs_masks is learns
    assert family(Shapes.labels, tiny(FasterRCNN)).needs_masks  # to be measured
    assert family(Shapes.labels, OneStage, kinds=("bbox",)).needs_masks
