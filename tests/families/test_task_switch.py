"""One switch, `task`, on the same dataset: what is trained on, what is measured, and what is refused."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segfolio.data.datasets import DSB2018, CamVid, CocoInstances, CocoPanoptic, Shapes
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.data.sample import Sample
from segfolio.data.task_truth import Task, task_truth
from segfolio.data.transforms import RandomWindow
from segfolio.errors import SegfolioError
from segfolio.layers.outputs import MaskOutput
from tests.families.test_mask_classification import FIGURES, family, trainer

SAMPLE = {
    "annotations": "panoptic_examples.json",
    "panoptic": "panoptic_examples",
    "images": "input_images",
    "categories": "../panoptic_coco_categories.json",
}
MAIN = {"semantic": "mIoU", "instance": "AP", "panoptic": "PQ"}


def shapes(folder: Path) -> DataModule:
    return module(partial(Shapes, size=(48, 64), train=4, val=2, test=2))


def camvid(folder: Path) -> DataModule:
    return module(CamVid, folder / "CamVid")


def dsb2018(folder: Path) -> DataModule:
    """The six images as they are distributed."""
    return module(partial(DSB2018, val_every=2), folder / "dsb2018", test_split="val")


def nuclei(folder: Path) -> DataModule:
    """The same nuclei in COCO's format, without a background."""
    return module(partial(CocoInstances, annotations="instances_{split}.json"), folder / "dsb2018", test_split="val")


def coco(folder: Path) -> DataModule:
    """Two images, to train on and to evaluate."""
    splits = {"train_split": "val", "test_split": "val"}
    return module(partial(CocoPanoptic, **SAMPLE), folder / "coco_panoptic/sample_data", **splits)


def module(dataset: Callable, root: Path | None = None, **splits: str) -> DataModule:
    window = RandomWindow((64, 64), hflip=0.5)
    return DataModule(
        lambda root, split: dataset(root, split), root, batch_size=2, train_transforms=[window], num_workers=0, **splits
    )


PAIRS = [
    *((shapes, task) for task in MAIN),
    (camvid, "semantic"),
    *((dsb2018, task) for task in ("semantic", "instance")),
    *((coco, task) for task in MAIN),
]
every_pair = pytest.mark.parametrize(("data", "task"), PAIRS, ids=lambda x: x if isinstance(x, str) else x.__name__)


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    """Of the real data, where the case at hand reads it."""
    return Path() if request.node.callspec.params.get("data") is shapes else request.getfixturevalue("real_data")


@every_pair
def test_a_step_is_trained_and_the_figures_of_the_task_are_logged(data, task: Task, folder: Path) -> None:
    files = data(folder)
    model, loops = family(task, files.labels), trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    before = [p.clone() for p in model.parameters()]
    loops.fit(model, files)
    assert all(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    logged = {k.removeprefix("val/"): v for k, v in loops.callback_metrics.items() if k.startswith("val/")}
    assert logged.keys() >= FIGURES[task]
    absent = set().union(*FIGURES.values()) - (FIGURES[task] if task != "panoptic" else set().union(*FIGURES.values()))
    assert not absent & logged.keys()
    assert 0 <= logged[model.main_metric] < 0.5


class Oracle(nn.Module):
    """Answers with an image's truth: one query for each segment, which is sure of its class and of every pixel."""

    def __init__(self, num_classes: int, sample: Sample, labels: LabelSpace, task: Task) -> None:
        super().__init__()
        self.found, self.num_classes = task_truth(sample.target, labels, task).segments, num_classes

    def forward(self, images: Tensor) -> MaskOutput:
        classes = torch.nn.functional.one_hot(self.found.labels, self.num_classes + 1)
        return MaskOutput(40.0 * classes[None], 40.0 * self.found.masks.as_subclass(Tensor)[None] - 20, [])


@every_pair
def test_the_truth_itself_scores_one_in_the_task_s_own_figure(data, task: Task, folder: Path) -> None:
    files = data(folder)
    split = files.split(files.test_split)
    oracle = partial(Oracle, sample=split[0], labels=files.labels, task=task)
    model = family(task, files.labels, oracle)
    loops = trainer(limit_test_batches=1)
    loops.test(model, files, verbose=False)
    assert loops.callback_metrics[f"test/{MAIN[task]}"].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("data", "task", "says"),
    [
        (camvid, "instance", "instance, but train 0001TP_006690 has no segments; its annotation serves semantic:"),
        (camvid, "panoptic", "panoptic, but train 0001TP_006690 has no segments; its annotation serves semantic:"),
        (nuclei, "semantic", "semantic, but train .* has no semantic map; its annotation serves instance and"),
    ],
    ids=["camvid-instance", "camvid-panoptic", "nuclei-semantic"],
)
def test_a_task_that_the_annotation_does_not_serve_is_refused_before_training(
    data, task: Task, says: str, folder: Path
) -> None:
    files = data(folder)
    with pytest.raises(SegfolioError, match=says):
        trainer(max_steps=1).fit(family(task, files.labels), files)
