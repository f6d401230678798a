"""`MaskClassification` with a network that is told its task."""

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from segfolio.data.datasets import Shapes
from segfolio.data.module import DataModule
from segfolio.data.task_truth import TASKS, JointTruth, task_truth
from segfolio.errors import SegfolioError
from segfolio.families import MaskClassification
from segfolio.layers.outputs import MaskOutput, QueryLayer
from segfolio.losses import MaskClassificationLoss
from tests.families.test_mask_classification import Tiny

LABELS = Shapes.labels


class Told(Tiny):
    """Says, over the whole image, the class whose number is the task's; keeps what it was told."""

    takes_tasks = True

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.names: tuple[str, ...] = ()
        self.seen: list[tuple[list[int], list[list[int]]]] = []
        self.embedded = 0

    def read(self, names: Any) -> None:
        self.names = tuple(names)

    def forward(self, images: Tensor, tasks: Any = None, labels: Any = None) -> MaskOutput:
        return self.answer(self.embed(images), images, tasks, labels)

    def embed(self, images: Tensor) -> MaskOutput:
        self.embedded += 1
        return super().forward(images)

    def answer(self, output: MaskOutput, images: Tensor, tasks: Tensor, labels: Any = None) -> MaskOutput:
        if self.training:
            self.seen.append((tasks.tolist(), [each.tolist() for each in labels]))
            return output
        classes = torch.full_like(output.class_logits, -30)
        classes[:, 1:, -1] = 30  # no object, but of the first query
        classes[torch.arange(len(images)), 0, tasks + 1] = 30
        return MaskOutput.of([QueryLayer(classes, torch.full_like(output.mask_logits, 30))])


def family(architecture: Any = Told, labels: Any = LABELS, **arguments: Any) -> MaskClassification:
    torch.manual_seed(0)
    criterion = MaskClassificationLoss(points=64)
    optimizer = partial(torch.optim.AdamW, lr=0.01)
    return MaskClassification(
        labels, architecture, **{"task": "panoptic", "criterion": criterion, "optimizer": optimizer, **arguments}
    )


def data() -> DataModule:
    dataset = partial(Shapes, size=(48, 64), train=8, val=1, test=1)
    return DataModule(lambda root, split: dataset(root, split), batch_size=2, num_workers=0)


def fitted(model: MaskClassification, steps: int) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(**quiet, use_distributed_sampler=False, enable_model_summary=False, max_steps=steps)
    trainer.fit(model, data())
    return trainer


def test_tasks_are_drawn_alike_and_each_has_its_own_truth() -> None:
    sample, rng = Shapes("", "train", size=(48, 64))[0], np.random.default_rng(0)
    drawn = Counter()
    for _ in range(300):
        prepared = JointTruth(LABELS, TASKS)(sample, rng)
        task = TASKS[int(prepared.extras["task"])]
        drawn[task] += 1
        wanted = task_truth(sample.target, LABELS, task).segments
        assert torch.equal(prepared.target.segments.labels, wanted.labels)
    assert set(drawn) == set(TASKS)
    assert min(drawn.values()) > 80


def test_the_network_is_told_task_and_classes_in_training() -> None:
    model = family()
    network: Any = model.network
    assert network.names == LABELS.names
    fitted(model, 8)
    tasks = [task for of_batch, _ in network.seen for task in of_batch]
    assert set(tasks) == {0, 1, 2}
    for of_batch, labels in network.seen:
        for task, classes in zip(of_batch, labels, strict=True):
            if task == 0:
                assert classes == sorted(set(classes))
            if task == 1:
                assert all(LABELS.is_thing[c] for c in classes)


def test_train_tasks_are_those_that_are_drawn() -> None:
    model = family(train_tasks=["instance", "panoptic"])
    fitted(model, 8)
    network: Any = model.network
    assert {task for of_batch, _ in network.seen for task in of_batch} == {1, 2}
    assert "trained on instance and panoptic" in model.measured_by


def test_a_panoptic_model_predicts_each_task_from_queries_of_its_own() -> None:
    things = replace(LABELS, things=LABELS.names[1:4])
    model = family(labels=things).eval()
    module = data()
    module.setup("test")
    batch = next(iter(module.test_dataloader()))
    (prediction,) = model.predict(batch)
    assert model.network.embedded == 1
    assert set(prediction.semantic.unique().tolist()) == {1}
    assert prediction.instances.labels[prediction.instances.scores > 0.5].tolist() == [2]
    assert prediction.panoptic.labels.tolist() == [3]
    (alone,) = family(labels=things, task="semantic").eval().predict(batch)
    assert torch.equal(alone.semantic, prediction.semantic)
    assert alone.panoptic is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"architecture": Tiny, "train_tasks": ["semantic"]}, "train_tasks needs a network that is told its task"),
        ({"train_tasks": ["semantic"]}, r"model.task is panoptic, which is not among model.train_tasks \(semantic\)"),
        ({"train_tasks": []}, r"not among model.train_tasks \(none\)"),
        (
            {"train_tasks": ["panoptic", "foo"]},
            "model.train_tasks names foo; give some of semantic, instance",
        ),
        (
            {"labels": replace(LABELS, things=()), "task": "semantic"},
            r"needs things among the dataset's classes.*or give train_tasks: \[semantic\]",
        ),
    ],
)
def test_what_cannot_be_trained_jointly_is_said(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SegfolioError, match=sentence):
        family(**arguments)


def test_one_task_alone_needs_no_things() -> None:
    stuff = replace(LABELS, things=())
    assert family(labels=stuff, task="semantic", train_tasks=["semantic"]).train_tasks == ("semantic",)
    assert isinstance(family().network, nn.Module)
