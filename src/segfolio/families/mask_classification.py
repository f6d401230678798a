"""Mask classification: one network for semantic, instance and panoptic segmentation (MaskFormer and its line)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction, Queries, Size, Target
from segfolio.data.task_truth import TASKS, JointTruth, Task, TaskTruth, check_task
from segfolio.errors import SegfolioError
from segfolio.families.base import Family
from segfolio.families.batch_norm import freeze
from segfolio.inference.dense_test import DenseTest, Protocols
from segfolio.inference.mask_classification import instances, panoptic, semantic, semantic_scores
from segfolio.inference.tiles import Network, Scores
from segfolio.losses import MaskClassificationLoss, MaXDeepLabLoss, OneFormerLoss
from segfolio.losses.mask_classification import MaskCriterion
from segfolio.losses.mask_matching import MaskTarget, boxes_around, check_one_per_class
from segfolio.metrics import Evaluation, Evaluator, PanopticMetric, SemanticMetric, instance_metric
from segfolio.metrics.instance import Kind

_MAIN = {"semantic": "mIoU", "instance": "AP", "panoptic": "PQ"}


class MaskClassification(Family):
    """Networks with `forward(images [B, C_in, H, W]) -> MaskOutput`: Q queries, each with class logits and a mask.

    The task decides which segments are to be found, how the queries become a prediction, and which figures are
    logged; the network is the same. A panoptic model predicts, and is measured on, all three tasks.

    A network says its `num_queries`, by which fewer than an image has segments are told before training, and where an
    argument of another name is their number, `queries_argument`.

    A network that says `takes_tasks` is told the task (OneFormer): `forward(images, tasks [B], labels)`, where tasks
    are places in `TASKS` and labels, in training, the classes of each image's segments; `read(names)` tells it what
    these are called. It is trained on several tasks, and a panoptic model answers each of the three: of what
    `embed(images)` makes once, `answer(embedded, images, tasks)`.

    Args:
        task: `semantic`, `instance` or `panoptic`.
        train_tasks: of a network that is told its task, those of which one is drawn for each image; all three if not
            given.
        object_threshold, overlap_threshold: of `inference.mask_classification.panoptic`.
        top_k: of `inference.mask_classification.instances`.
        more_segments: than queries in an image: `count` them, from the start of training and of all processes, as
            `train/segments_left_out` and go on, or stop with an `error`.
        bn_mode: `running`: batch normalisations are trained, as usual; `frozen`: neither their statistics nor their
            affine parameters (the ResNets of MaskFormer and Mask2Former).
        test: of the task semantic, the protocol of test and prediction, and further ones of the same test, see
            `inference.dense_test`. Validation is of the whole image.

    The others, by name, are those of `Family`.

    Raises:
        SegfolioError: a task for which the label space has no things, or with several segments of a class where the
            criterion has one query per class, or with scores per pixel where `test` asks for them; before training,
            a task that the annotation does not serve.
    """

    left_out: Tensor
    networks_of = "MaskClassification"

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        task: Task,
        criterion: MaskCriterion,
        object_threshold: float = 0.8,
        overlap_threshold: float = 0.8,
        top_k: int = 100,
        more_segments: Literal["count", "error"] = "count",
        bn_mode: Literal["running", "frozen"] = "running",
        test: Protocols = Protocols(),  # noqa: B008  it is immutable
        train_tasks: Sequence[Task] | None = None,
        **recipe: Any,
    ) -> None:
        if task != "semantic" and not labels.things:
            raise SegfolioError(
                f"model.task is {task}, but no class of the dataset is a thing; name its countable classes as things, "
                "or choose the task semantic"
            )
        if task != "semantic" and criterion.one_per_class:
            raise SegfolioError(
                f"model.task is {task}, whose images have several segments of a class, and fixed matching has one "
                "query per class; use matching: bipartite, or the task semantic"
            )
        self.task, self.main_metric = task, _MAIN[task]
        self.kinds: tuple[Kind, ...] = ("segm", "bbox") if criterion.needs_boxes else ("segm",)
        super().__init__(labels, architecture, **recipe)
        self.num_queries: int | None = getattr(self.network, "num_queries", None)
        self.queries_argument: str = getattr(self.network, "queries_argument", "num_queries")
        if criterion.one_per_class and self.num_queries is not None:
            check_one_per_class(self.num_queries, labels.num_classes)
        self._check_criterion(criterion)
        self.told = bool(getattr(self.network, "takes_tasks", False))
        given = (TASKS if self.told else (task,)) if train_tasks is None else train_tasks
        self.train_tasks: tuple[Task, ...] = tuple(given)
        self._check_told(train_tasks, criterion)
        self.preparation = JointTruth(labels, self.train_tasks) if self.told else TaskTruth(labels, task)
        self.measured_by = f"{task} inference of the queries"
        if self.told:
            self.measured_by += f", trained on {' and '.join(self.train_tasks)}"
            network: Any = self.network
            network.read(labels.names)
        self.tester = DenseTest(test, self.evaluation, lambda: Evaluation(self.make_metrics()))
        if task != "semantic" and not self.tester.is_plain:
            raise SegfolioError(
                f"model.test needs scores per pixel, which MaskClassification does not have for the task {task}; "
                "leave it out"
            )
        self.criterion, self.more_segments = criterion, more_segments
        self.register_buffer("left_out", torch.tensor(0.0))  # goes on where a run is resumed
        self.object_threshold, self.overlap_threshold, self.top_k = object_threshold, overlap_threshold, top_k
        self.bn_mode = bn_mode
        self.train()  # what is frozen is not for the optimiser

    def _check_criterion(self, criterion: MaskCriterion) -> None:
        """Refuses one that compares what the network does not give, or leaves out what it does."""
        beside = getattr(self.network, "beside", ())
        if beside == criterion.compares:
            return
        fitting = [c.__name__ for c in (MaskClassificationLoss, OneFormerLoss, MaXDeepLabLoss) if c.compares == beside]
        needed, given = (", ".join(each) or "nothing" for each in (criterion.compares, beside))
        raise SegfolioError(
            f"{type(criterion).__name__} learns from {needed} beside the queries, and {type(self.network).__name__} "
            f"gives {given}; take {''.join(fitting) or 'the criterion that goes with it'}"
        )

    def _check_told(self, train_tasks: Sequence[Task] | None, criterion: MaskCriterion) -> None:
        """Refuses what a network that is told its task, or one that is not, cannot be trained on."""
        if train_tasks is not None and not self.told:
            raise SegfolioError(
                f"model.train_tasks needs a network that is told its task, as OneFormer is, which "
                f"{type(self.network).__name__} is not; leave it out"
            )
        if unknown := sorted(set(self.train_tasks) - set(TASKS)):
            raise SegfolioError(f"model.train_tasks names {', '.join(unknown)}; give some of {', '.join(TASKS)}")
        if self.task not in self.train_tasks:
            raise SegfolioError(
                f"model.task is {self.task}, which is not among model.train_tasks "
                f"({', '.join(self.train_tasks) or 'none'}); the network would never have been told it"
            )
        if self.train_tasks == ("semantic",):
            return
        if self.told and (not self.labels.things or criterion.one_per_class):
            raise SegfolioError(
                f"model.train_tasks is {', '.join(self.train_tasks)}, which needs things among the dataset's classes, "
                "and bipartite matching; name its countable classes as things, or give train_tasks: [semantic]"
            )

    @staticmethod
    def class_rows(labels: LabelSpace) -> tuple[str | None, ...]:
        return (*labels.names, None)  # the last is no object

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.bn_mode == "frozen":
            freeze(self.network)
        return self

    def setup(self, stage: str) -> None:
        """Before the first step: refuses an annotation that does not serve the task, and tells or refuses images of
        more segments than queries."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        queries, classes = self.num_queries, self.labels.num_classes
        if stage == "fit" and self.task == "semantic" and queries is not None and queries < classes:
            rank_zero_warn(
                f"{type(self.network).__name__} has {queries} queries for {classes} classes: of an image with more "
                f"classes than queries some are never found; raise {self.queries_argument}"
            )
        if data is None:  # loaders of a user's own
            return
        for name in data.splits_of(stage) if stage != "predict" else ():
            trained = stage == "fit" and name == data.train_split
            for task in self.train_tasks if trained else (self.task,):
                queries = self.num_queries if trained else None
                check_task(data.split(name), name, task, queries, refuse=self.more_segments == "error")

    def forward(self, images: Tensor, *told: Any) -> Any:
        """The network's output for images `[B, C, H, W]` as the dataset has them, and what it is told beside them."""
        return self.network(self.normalize(images), *told)

    @property
    def train_keys(self) -> Sequence[str]:
        return "train/loss", *(f"train/loss_{name}" for name in self.criterion.names), "train/segments_left_out"

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        targets = [mask_target(name, target) for name, target in zip(batch.image_ids, batch.targets, strict=True)]
        told = (batch.extras["task"], [target.labels for target in targets]) if self.told else ()
        output = self(batch.images, *told)
        if self.criterion.needs_boxes:
            targets = [replace(target, boxes=boxes_around(target.masks)) for target in targets]
        queries = output.class_logits.shape[1]
        full = [name for name, t in zip(batch.image_ids, targets, strict=True) if len(t.labels) > queries]
        if full and self.more_segments == "error":
            raise SegfolioError(
                f"{', '.join(full)}: more segments than the {queries} queries of an image; raise "
                f"{self.queries_argument}, or set model.more_segments to count"
            )
        losses = self.criterion(output.layers, targets, **(output.dense or {}))
        self.left_out += self.criterion.left_out
        self.log("train/segments_left_out", self.left_out, batch_size=len(batch))
        return losses

    def predict(self, batch: Batch) -> list[Prediction]:
        tasks = [task for task in TASKS if self.task in (task, "panoptic")]
        images = zip(batch.image_ids, batch.original_sizes, *self._answers(batch.images, tasks), strict=True)
        return [self._prediction(name, size, dict(zip(tasks, found, strict=True))) for name, size, *found in images]

    def queries(self, images: Tensor) -> list[Queries]:
        """What the network says of each image, before it is read as the model's task."""
        return self._answers(images, (self.task,))[0]

    def _answers(self, images: Tensor, tasks: Sequence[Task]) -> list[list[Queries]]:
        """`queries` of each task, which are the same for all where the network is not told the task."""
        if not self.told:
            return [_of_images(self(images))] * len(tasks)
        network: Any = self.network
        given = self.normalize(images)
        embedded = network.embed(given)
        places = (torch.full((len(images),), TASKS.index(task), device=images.device) for task in tasks)
        return [_of_images(network.answer(embedded, given, place)) for place in places]

    def _prediction(self, image_id: str, size: Size, found: Mapping[Task, Queries]) -> Prediction:
        prediction, things = Prediction(image_id, size), self.labels.is_thing
        if "semantic" in found:
            classes, masks, _ = found["semantic"]
            prediction.semantic = semantic(classes, masks, size)
        if "instance" in found:
            classes, masks, boxes = found["instance"]
            prediction.instances = instances(classes, masks, size, things, self.top_k, boxes)
        if "panoptic" in found:
            classes, masks, _ = found["panoptic"]
            prediction.panoptic = panoptic(classes, masks, size, things, self.object_threshold, self.overlap_threshold)
        return prediction

    def reader(self) -> Network:
        return Network(self.scores, logits=False, padding=self.mean, picture=self.image_space.picture)

    def scores(self, images: Tensor) -> Sequence[Scores]:
        return [partial(semantic_scores, classes, masks) for classes, masks, _ in self.queries(images)]

    def make_metrics(self) -> list[Evaluator]:
        found: list[Evaluator] = []
        if self.task in ("semantic", "panoptic"):
            found.append(SemanticMetric(self.labels))
        if self.task in ("instance", "panoptic"):
            found.append(instance_metric(self.labels, self.kinds))
        if self.task == "panoptic":
            found.append(PanopticMetric(self.labels))
        return found


def _of_images(output: Any) -> list[Queries]:
    boxes = [None] * len(output.class_logits) if output.boxes is None else output.boxes
    return [Queries(*one) for one in zip(output.class_logits, output.mask_logits, boxes, strict=True)]


def mask_target(image_id: str, target: Target) -> MaskTarget:
    """The truth of an image as its masks, where the target is; of a target that `TaskTruth` has made.

    Raises:
        SegfolioError: another target.
    """
    if target.semantic is not None or target.segments is None or target.weight is None:
        raise SegfolioError(
            f"{image_id} is not prepared for mask classification; a training loader of your own calls the family's "
            "`preparation(sample, rng)` on each sample"
        )
    segments = target.segments
    return MaskTarget(segments.labels, segments.masks.as_subclass(Tensor), target.weight.as_subclass(Tensor) > 0)
