"""`MaskClassification`: one network, three tasks."""

import inspect
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torchvision.tv_tensors import Mask

from benchmarks.task_truth import dense
from segfolio.architectures.mask_classification.max_deeplab import MaXDeepLab
from segfolio.data.batches import collate
from segfolio.data.datasets import Shapes
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.data.segments import Segments
from segfolio.data.task_truth import task_truth
from segfolio.errors import SegfolioError
from segfolio.families import MaskClassification
from segfolio.layers.outputs import MaskOutput, QueryLayer
from segfolio.listing import architecture_classes
from segfolio.losses import MaskClassificationLoss, MaXDeepLabLoss, OneFormerLoss

LABELS = Shapes.labels
FIGURES = {
    "semantic": {"mIoU", "pixel_accuracy"},
    "instance": {"AP", "AP50", "AR_100"},
    "panoptic": {"mIoU", "AP", "PQ", "SQ_things", "RQ_stuff"},
}


class Tiny(nn.Module):
    """Q masks from a convolution, classes from their mean; two layers."""

    def __init__(self, num_classes: int, num_queries: int = 12) -> None:
        super().__init__()
        self.masks = nn.Conv2d(3, num_queries, 5, stride=4, padding=2)
        self.classes = nn.Linear(1, num_classes + 1)

    def forward(self, images: torch.Tensor) -> MaskOutput:
        masks = self.masks(images)
        classes = self.classes(masks.mean((2, 3))[..., None])
        return MaskOutput(classes, masks, [QueryLayer(2 * classes, masks / 2)])


class Boxed(Tiny):
    """Its queries say boxes, too: all the same one."""

    def forward(self, images: torch.Tensor) -> MaskOutput:
        boxes = torch.tensor([0.5, 0.25, 0.5, 0.5]).expand(len(images), self.masks.out_channels, 4)
        return MaskOutput.of([layer._replace(boxes=boxes) for layer in super().forward(images).layers])


def family(task: str, labels: LabelSpace = LABELS, architecture: Any = Tiny, **arguments: Any) -> MaskClassification:
    torch.manual_seed(0)
    optimizer = partial(torch.optim.AdamW, lr=0.01)
    criterion = MaskClassificationLoss(points=64)
    return MaskClassification(
        labels, architecture, **{"task": task, "criterion": criterion, "optimizer": optimizer, **arguments}
    )


def data(train: int = 4) -> DataModule:
    dataset = partial(Shapes, size=(48, 64), train=train, val=3, test=3)
    return DataModule(lambda root, split: dataset(root, split), batch_size=2, num_workers=0)


def trainer(**arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return Trainer(**quiet, use_distributed_sampler=False, enable_model_summary=False, **arguments)


def test_objects_of_a_federated_dataset_are_measured_as_lvis_measures_them():
    labels = replace(LABELS, frequencies=("rare",) * LABELS.num_classes)
    assert {"AP_rare", "AR_300"} < family("instance", labels).declared.keys()
    assert "AR_300" not in family("instance").declared


@pytest.mark.parametrize("task", FIGURES)
def test_one_switch_changes_the_task_its_figures_and_its_predictions(task):
    model, loops = family(task), trainer(max_steps=2)
    loops.fit(model, data())
    logged = {k for k in loops.callback_metrics if k.startswith("val/") and k.count("/") == 1}
    assert {f"val/{name}" for name in FIGURES[task]} <= logged
    assert f"val/{model.main_metric}" in logged
    assert ("val/mIoU" in logged) == (task != "instance")
    batch = next(iter(data().test_dataloader()))
    (prediction,) = model.eval().predict(batch)
    assert prediction.size == (48, 64)
    assert (prediction.semantic is not None) == (task != "instance")
    assert (prediction.instances is not None) == (task != "semantic")
    assert (prediction.panoptic is not None) == (task == "panoptic")


def test_boxes_of_queries_are_carried_to_the_criterion_and_to_what_is_found():
    plain, boxed = family("instance"), family("instance", architecture=Boxed)
    losses = []
    for model in (plain, boxed):
        torch.manual_seed(0)  # of the points
        loops = trainer(max_steps=2)
        loops.fit(model, data())
        losses.append({k: v for k, v in loops.callback_metrics.items() if k.startswith("train/")})
    assert losses[0] == losses[1]
    batch = next(iter(data().test_dataloader()))
    (found,), (without,) = (model.eval().predict(batch) for model in (boxed, plain))
    assert len(found.instances.rles) > 0
    assert found.instances.boxes.tolist() == [[16, 0, 32, 24]] * len(found.instances.rles)
    assert without.instances.boxes is None
    output = boxed(batch.images)
    assert [layer.boxes.shape for layer in output.layers] == [(len(batch), 12, 4)] * 2


def test_losses_have_names_and_fall_on_one_batch():
    model = family("panoptic", optimizer=partial(torch.optim.AdamW, lr=0.02))
    loops = trainer(max_steps=60, limit_val_batches=0)
    first = {}

    def remember(metrics: dict[str, torch.Tensor]) -> None:
        first.update({k: float(v) for k, v in metrics.items() if k.startswith("train/loss") and k not in first})

    model.on_train_batch_end = lambda *_: remember(loops.callback_metrics)
    loops.fit(model, data(train=2))
    last = {k: float(v) for k, v in loops.callback_metrics.items() if k in first}
    assert set(last) == {"train/loss", "train/loss_class", "train/loss_mask", "train/loss_dice"}
    assert last["train/loss"] < 0.75 * first["train/loss"]


@pytest.mark.parametrize("task", FIGURES)
@pytest.mark.parametrize("seed", range(3))
def test_losses_and_gradients_are_those_of_the_masks_that_were_made_before(task, seed):
    """To the bit those of `dense`, with which segfolio 0.1 trained; objects overlap, some are crowds."""
    generator = torch.Generator().manual_seed(seed)
    shapes, samples = Shapes(size=(48, 64)), []
    for i in range(3):
        sample = shapes.read(3 * seed + i)
        masks = sample.target.segments.masks.clone()
        masks[:, 10:30, 20:40] |= (torch.rand(len(masks), 20, 20, generator=generator) > 0.5) & (i > 0)
        crowd = torch.rand(len(masks), generator=generator) > 0.7
        segments = Segments(Mask(masks), sample.target.segments.labels, crowd)
        weight = Mask(torch.rand(48, 64, generator=generator).round()) if i == 2 else None
        sample.target.semantic[:4] = 255
        samples.append(replace(sample, target=replace(sample.target, segments=segments, weight=weight)))

    def outcome(make):
        model = family(task)
        model.log = lambda *_, **__: None
        batch = collate([[replace(sample, target=make(sample.target, LABELS, task))] for sample in samples])
        losses = model.compute_losses(batch)
        sum(losses.values()).backward()
        return [*losses.values(), *(p.grad for p in model.network.parameters())]

    ours, before = outcome(task_truth), outcome(dense)
    assert len(ours) > 5
    assert all(torch.equal(a, b) for a, b in zip(ours, before, strict=True))


def test_training_gets_its_truth_from_the_workers():
    """As id maps: there is no mask before the step."""
    seen = []
    model = family("panoptic")
    model.on_train_batch_start = lambda batch, batch_idx: seen.extend(t.segments.form for t in batch.targets)
    trainer(max_steps=1, limit_val_batches=0).fit(model, data())
    assert [(form.shape, form.dtype) for form in seen] == [((48, 64), torch.uint8)] * 2


def test_segments_without_a_query_are_counted_or_refused():
    few = partial(Tiny, num_queries=2)
    counts = []
    for steps in (1, 2):
        loops = trainer(max_steps=steps)
        loops.fit(family("panoptic", architecture=few), data())
        counts.append(loops.callback_metrics["train/segments_left_out"].item())
    assert 0 < counts[0] < counts[1]
    with pytest.raises(SegfolioError, match=r"^train_\d+.*: more segments than the 2 queries of an image; raise"):
        trainer(max_steps=1).fit(family("panoptic", architecture=few, more_segments="error"), data())


def test_fewer_queries_than_segments_or_classes_are_refused_before_training():
    class Counted(Tiny):
        def __init__(self, num_classes: int, num_queries: int) -> None:
            super().__init__(num_classes, num_queries)
            self.num_queries = num_queries

    few, loops = partial(Counted, num_queries=2), trainer(max_steps=1)
    with pytest.raises(SegfolioError, match=r"with more segments than the 2 queries of an image .*: train train_0"):
        loops.fit(family("panoptic", architecture=few, more_segments="error"), data())
    assert loops.global_step == 0
    with pytest.raises(SegfolioError, match=rf"the network has 2 queries for {LABELS.num_classes} classes"):
        family("semantic", architecture=few, criterion=MaskClassificationLoss(matching="fixed"))
    with pytest.warns(UserWarning, match=rf"Counted has 2 queries for {LABELS.num_classes} classes"):
        loops.fit(family("semantic", architecture=few), data())


def test_few_queries_are_told_by_the_name_of_their_argument():
    few = partial(MaXDeepLab, **{**MaXDeepLab.tiny, "slots": 2})
    with pytest.warns(UserWarning, match=rf"MaXDeepLab has 2 queries for {LABELS.num_classes} classes.*; raise slots"):
        trainer(max_steps=1).fit(family("semantic", architecture=few, criterion=MaXDeepLabLoss()), data())


class Dense(Tiny):
    beside = ("semantic", "features")


@pytest.mark.parametrize(
    ("architecture", "criterion", "said"),
    [
        (Tiny, MaXDeepLabLoss(), "MaXDeepLabLoss learns from semantic, features beside the queries, and Tiny gives"),
        (Dense, MaskClassificationLoss(), "and Dense gives semantic, features; take MaXDeepLabLoss"),
        (Dense, OneFormerLoss(), "OneFormerLoss learns from queries, texts, log_scale.*take MaXDeepLabLoss"),
        (Tiny, OneFormerLoss(), "and Tiny gives nothing; take MaskClassificationLoss"),
    ],
)
def test_a_criterion_of_another_network_is_refused(architecture: Any, criterion: Any, said: str):
    with pytest.raises(SegfolioError, match=said):
        family("panoptic", architecture=architecture, criterion=criterion)


def test_every_network_of_masks_says_its_queries():
    rooms = [cls for cls in architecture_classes() if ".mask_classification." in cls.__module__]
    for cls in rooms:
        network = cls(5, **cls.tiny).eval()
        if isinstance(output := network(torch.zeros(1, 3, 64, 64)), MaskOutput):
            assert network.num_queries == output.class_logits.shape[1], cls.__name__
            assert getattr(network, "queries_argument", "num_queries") in inspect.signature(cls).parameters


def test_one_query_per_class_is_for_the_semantic_task():
    with pytest.raises(
        SegfolioError, match=r"model\.task is panoptic, .* use matching: bipartite, or the task semantic"
    ):
        family("panoptic", criterion=MaskClassificationLoss(matching="fixed"))


def test_loaders_of_ones_own_prepare_their_samples():
    module, model = data(train=2), family("semantic")
    module.setup("fit")
    loader = module.train_dataloader()
    with pytest.raises(SegfolioError, match=r"^train_\d+ is not prepared .* calls the family's `preparation\(sample"):
        trainer(max_steps=1, limit_val_batches=0).fit(model, loader)
    loader.dataset.preparation = model.preparation
    loops = trainer(max_steps=1, limit_val_batches=0)
    loops.fit(model, loader)
    assert loops.global_step == 1


def test_a_task_of_things_needs_things():
    with pytest.raises(SegfolioError, match=r"model\.task is instance, but no class of the dataset is a thing"):
        family("instance", LabelSpace(("sky", "road")))


def test_frozen_batch_norms_are_neither_trained_nor_updated():
    def normed(num_classes: int) -> nn.Module:
        network = Tiny(num_classes)
        network.masks = nn.Sequential(network.masks, nn.BatchNorm2d(12))
        return network

    for bn_mode, frozen in (("frozen", True), ("running", False)):
        model = family("semantic", architecture=normed, bn_mode=bn_mode)
        norm = model.network.masks[1]
        trainer(max_steps=2, limit_val_batches=0).fit(model, data())
        state = (norm.running_mean.any().item(), bool((norm.weight != 1).any()))
        assert state == (not frozen, not frozen)
