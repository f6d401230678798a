"""Every evaluator on 1, 2 and 3 processes: prints one JSON list of figures by number of processes.

    python -m tests.gathering

Each process sees its share of 7 images as Lightning's own sampler would deal them: the last ones get an image
twice, so that all have as many.
"""

import functools
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from segfolio.data.datasets import Shapes
from segfolio.data.formats import rle
from segfolio.data.labels import FREQUENCIES, LabelSpace
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.data.prompts import Prompts
from segfolio.data.sample import Federated, Instances, Prediction, Prompted, Segments, Target
from segfolio.metrics import (
    BoundaryF1,
    BoundaryIoU,
    BoxMetric,
    CityscapesMetric,
    FederatedMetric,
    Hausdorff95,
    InstanceMetric,
    InteractiveMetric,
    PanopticMetric,
    ProposalMetric,
    RandInformation,
    SemanticMetric,
)

IMAGES = 7
LABELS = Shapes.labels


def federated(labels: LabelSpace) -> FederatedMetric:
    """As if images were searched for some of the shapes alone."""
    frequencies = tuple(FREQUENCIES[place % 3] for place in range(labels.num_classes))
    return FederatedMetric(replace(labels, frequencies=frequencies), ("segm", "bbox"))


EVALUATORS = {
    "semantic": SemanticMetric,
    "boundary F1": BoundaryF1,
    "boundary IoU": BoundaryIoU,
    "Hausdorff": Hausdorff95,
    "instance": functools.partial(InstanceMetric, kinds=("segm", "bbox")),
    "federated": federated,
    "clicks": InteractiveMetric,
    "box": BoxMetric,
    "proposals": ProposalMetric,
    "panoptic": PanopticMetric,
    "Rand": functools.partial(RandInformation, cell="sky"),
    "Cityscapes": functools.partial(
        CityscapesMetric,
        categories={"land": ("sky", "water", "grass", "sand"), "things": LABELS.things},
        instance_sizes=dict.fromkeys(LABELS.things, 200.0),
    ),
}


def guess(index: int, target: Target) -> Prediction:
    """The truth, shifted, with some classes and objects wrong."""
    rng = np.random.default_rng(index)
    shift = tuple(rng.integers(-3, 4, 2).tolist())
    truth = panoptic_truth(target, LABELS)
    semantic = torch.roll(target.semantic.as_subclass(torch.Tensor), shift, (0, 1))
    labels = torch.where(torch.rand(len(truth)) < 0.8, truth.labels, truth.labels.roll(1))
    id_map = torch.roll(truth.id_map, shift, (0, 1))
    things = [i for i, label in enumerate(labels.tolist()) if LABELS.is_thing[label]]
    segments = Segments(id_map, labels, truth.crowd)
    scores = torch.from_numpy(rng.integers(1, 9, len(things)) / 8).float()  # with ties
    instances = Instances([segments.rles[i] for i in things], labels[things], scores)
    prompted = clicked(target, rng)
    return Prediction(f"image_{index}", tuple(semantic.shape), semantic, instances, segments, prompted)


def clicked(target: Target, rng: np.random.Generator) -> Prompted:
    """Each object, shifted by less after each of the first clicks."""
    masks = target.segments.masks.as_subclass(torch.Tensor)
    of, shift = torch.arange(len(masks)), int(rng.integers(3, 6))
    rounds = [torch.roll(masks, max(0, shift - 2 * k), 2) for k in range(20)]
    rles = [rle.encode(each.numpy()) for each in torch.stack(rounds, 1)]
    points, kinds = torch.zeros(len(of), 20, 2), torch.ones(len(of), 20).long()
    candidates = [[first, third] for first, _, third, *_ in rles]
    return Prompted(rles, torch.zeros(len(of), 20), of, Prompts(of, points, kinds), candidates, float(rng.random()))


def evaluate(rank: int, processes: int, folder: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/of{processes}", rank=rank, world_size=processes)
    data = Shapes(split="test", test=IMAGES, size=(64, 80))
    padded = -(-IMAGES // processes) * processes
    found = {}
    for name, evaluator in EVALUATORS.items():
        metric = evaluator(LABELS)
        for i in range(rank, padded, processes):
            index = i % IMAGES
            torch.manual_seed(index)
            target = data.read(index).target
            target.federated = Federated(tuple(range(index)), (index % LABELS.num_classes,))
            metric.update(guess(index, target), target)
        found[name] = {key: float(value).hex() for key, value in metric.compute().items()}
    Path(folder, f"figures_{processes}_{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2, 3):
            mp.start_processes(evaluate, (processes, folder), processes, start_method="fork")
        names = [f"figures_{n}_{rank}.json" for n in (1, 2, 3) for rank in range(n)]
        json.dump([json.loads(Path(folder, name).read_text()) for name in names], sys.stdout)


if __name__ == "__main__":
    main()
