"""`task_truth`: what a network that classifies masks is to find in an image, by task."""

from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.checks.problems import Problem, raise_problems
from segfolio.data.formats.panoptic import runs
from segfolio.data.instance_maps import id_map_segments
from segfolio.data.labels import LabelSpace
from segfolio.data.panoptic_truth import panoptic_losses, panoptic_truth
from segfolio.data.sample import Sample, Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

Task = Literal["semantic", "instance", "panoptic"]

TASKS: tuple[Task, ...] = get_args(Task)

_LOOKED_AT = 16  # images of a split, before training


class Split(Protocol):
    """As `SegmentationDataset`."""

    labels: LabelSpace

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class TaskTruth:
    """A family's `preparation`: the target of a sample is what is to be found in it, see `task_truth`."""

    labels: LabelSpace
    task: Task

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return replace(sample, target=task_truth(sample.target or Target(), self.labels, self.task))


@dataclass(frozen=True)
class JointTruth:
    """A family's `preparation`: as `TaskTruth`, of a task that is drawn for each sample.

    Attributes:
        tasks: all with equal probability. Which it is goes to `extras["task"]`, as its place in `TASKS`.
    """

    labels: LabelSpace
    tasks: tuple[Task, ...]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        task = self.tasks[rng.integers(len(self.tasks))]
        prepared = TaskTruth(self.labels, task)(sample, rng)
        return replace(prepared, extras={**prepared.extras, "task": torch.tensor(TASKS.index(task))})


def task_truth(target: Target, labels: LabelSpace, task: Task) -> Target:
    """The target with the segments to be found, as id maps, and a `weight` of 0 at pixels that do not count.

    `semantic`: one segment per class that the image has (MaskFormer, arXiv 2107.06278, section 3.1); void does
    not count. `instance`: the things; crowds do not count. `panoptic`: things and stuff; void and crowds do not
    count. Masks, which take as many bytes for each segment as the maps for all, are derived from it on the device.

    Returns:
        One whose weight is bool where the recipe has none.

    Raises:
        ValueError: the annotation has not what the task needs, see `check_task`.
    """
    if task == "semantic":
        if target.semantic is None:
            raise ValueError("the semantic task needs a semantic map; this dataset has none")
        found = _classes(target.semantic.numpy(), target.ignore_index)
    else:
        if target.segments is None:
            raise ValueError(f"the {task} task needs segments; this dataset has none")
        whole = panoptic_truth(target, labels) if task == "panoptic" else target.segments
        wanted = ~whole.crowd
        if task == "instance":
            wanted &= torch.tensor(labels.is_thing)[whole.labels]
        found = whole[wanted]
    found = found.compact()
    counts = whole[whole.crowd].id_map == 0 if task == "instance" else found.id_map > 0
    weight = counts if target.weight is None else counts * target.weight
    return replace(target, semantic=None, segments=found, weight=Mask(weight))


def _classes(semantic: npt.NDArray[np.integer], ignore_index: int) -> Segments:
    """One segment per class of a map `[H, W]`, in their order."""
    classes = np.flatnonzero(np.bincount(semantic.reshape(-1)[runs(semantic)[0]]))
    classes = classes[classes != ignore_index]
    return id_map_segments(semantic, classes, torch.from_numpy(classes))


def check_task(dataset: Split, name: str, task: Task, queries: int | None = None, refuse: bool = False) -> None:
    """Before training: whether the annotation serves the task, as far as a few images of the split show.

    Warns of objects that are no things, which the instance task leaves out, of what the panoptic truth loses, see
    `panoptic_losses`, and of images with more segments than queries; `segfolio inspect` looks at all images.

    Args:
        name: of the split.
        queries: of the network, which can answer for as many segments of an image; None where that is not known.
        refuse: images that have more.

    Raises:
        SegfolioError: an image without what the task needs, a segment of a class that there is not; for the panoptic
            task, no stuff in any image.
    """
    chosen = _looked_at(dataset)
    is_thing, has_stuff = torch.tensor(dataset.labels.is_thing), False
    lost: list[Problem] = []
    for index in chosen:
        sample = dataset[index]
        target, where = _served(sample, dataset.labels, name, task), f"{name} {sample.image_id}"
        if queries is not None:
            lost += _more_than(queries, task_truth(target, dataset.labels, task), where, refuse)
        if task == "semantic" or target.segments is None:
            continue
        no_things = target.segments.labels[~is_thing[target.segments.labels]].unique().tolist()
        has_stuff |= target.semantic is not None or bool(no_things)
        if task == "panoptic":
            lost += panoptic_losses(target, dataset.labels, where)
        elif no_things and target.semantic is None:  # else they are the stuff of a panoptic annotation
            what = "with objects of classes that are not among the things, which the instance task leaves out"
            names = ", ".join(dataset.labels.names[c] for c in no_things)
            lost.append(Problem("image", what, f"{where} ({names})", fatal=False))

    raise_problems(lost, of=f"{len(chosen)} of {len(dataset)} images looked at")
    if task == "panoptic" and not has_stuff:
        raise SegfolioError(
            f"model.task is panoptic, but the images of {name} have neither stuff among their segments nor a semantic "
            "map, so that no pixel outside the objects would count; choose the task instance"
        )


def check_queries(dataset: Split, name: str, queries: int) -> None:
    """Before training: warns of images with more objects than queries, as far as a few images of the split show.

    Args:
        name: of the split.
        queries: of the network, each of which finds one object at most.
    """
    chosen, lost = _looked_at(dataset), list[Problem]()
    for index in chosen:
        sample = dataset[index]
        if sample.target is not None and sample.target.segments is not None:
            objects = task_truth(sample.target, dataset.labels, "instance")
            lost += _more_than(queries, objects, f"{name} {sample.image_id}", refuse=False)
    raise_problems(lost, of=f"{len(chosen)} of {len(dataset)} images looked at")


def _looked_at(dataset: Split) -> range:
    return range(0, len(dataset), max(1, len(dataset) // _LOOKED_AT))[:_LOOKED_AT]


def _more_than(queries: int, found: Target, where: str, refuse: bool) -> list[Problem]:
    number = 0 if found.segments is None else len(found.segments)
    what = f"with more segments than the {queries} queries of an image (raise the number of queries)"
    return [Problem("image", what, f"{where} ({number})", fatal=refuse)] if number > queries else []


def _served(sample: Sample, labels: LabelSpace, split: str, task: Task) -> Target:
    """The sample's target, or a `SegfolioError` where it does not serve the task."""
    target = sample.target or Target()
    served = ["semantic"] * (target.semantic is not None) + ["instance", "panoptic"] * (target.segments is not None)
    if task not in served:
        needed = "semantic map" if task == "semantic" else "segments"
        raise SegfolioError(
            f"model.task is {task}, but {split} {sample.image_id} has no {needed}; its annotation serves "
            f"{' and '.join(served) or 'no task'}: choose that, or a dataset that has {needed}"
        )
    classes = set() if target.segments is None else set(target.segments.labels.tolist())
    if unknown := classes - set(range(labels.num_classes)):
        raise SegfolioError(
            f"{split} {sample.image_id} has a segment of class {min(unknown)}, expected 0 to "
            f"{labels.num_classes - 1}; `read` returns class indices, see LabelSpace.encode"
        )
    return target
