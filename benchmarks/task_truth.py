"""What a mask classification network is to find in an image: id maps from the loader, against masks before the step.

Both sides start from the same samples behind the transforms and end with targets in host memory, as they go to the
device. Before (`dense`, segfolio 0.1): the main process unpacks the masks of an id map, after the batch was pinned.
Now: `TaskTruth` in a worker; the main process gets id maps, of which masks are derived on the device (one comparison,
not in these times). Images are 1024 x 1024 with 24 segments of a panoptic annotation, two of them crowds, and void.

    python -m benchmarks.task_truth
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import Image, Mask

from segfolio.data.batches import collate
from segfolio.data.labels import LabelSpace
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.data.sample import Batch, Sample, Target
from segfolio.data.segments import Segments
from segfolio.data.task_truth import Task, TaskTruth

AIMS = {
    "time: masks / id maps": ">= 8",
    "bytes of a batch of 16 in the main process: masks / id maps": ">= 8",
    "bytes of masks in the main process": "<= 0",
}
SIZE, SEGMENTS, BATCH, ROUNDS = 1024, 24, 16, 5
CLASSES = tuple(f"class {i}" for i in range(20))
LABELS = LabelSpace(CLASSES, things=CLASSES[:12])


def draw(number: int) -> Sample:
    """Each pixel belongs to the nearest of 24 points, or to none within a disc."""
    rng = np.random.default_rng(number)
    places = np.mgrid[:SIZE, :SIZE]
    points = rng.uniform(0, SIZE, (SEGMENTS, 2))
    distances = [((places - point[:, None, None]) ** 2).sum(0) for point in points]
    ids = np.argmin(distances, 0).astype(np.int32) + 1
    ids[((places - SIZE / 2) ** 2).sum(0) < (SIZE / 8) ** 2] = 0
    crowd = torch.zeros(SEGMENTS, dtype=torch.bool)
    crowd[:2] = True
    segments = Segments(Mask(torch.from_numpy(ids)), torch.from_numpy(rng.integers(0, 12, SEGMENTS)), crowd)
    image = Image(torch.zeros(3, SIZE, SIZE, dtype=torch.uint8))
    return Sample(image, str(number), (SIZE, SIZE), Target(segments=segments))


def dense(target: Target, labels: LabelSpace, task: Task) -> Target:
    """`task_truth` of segfolio 0.1, whose segments are masks; the peer, kept as it was."""
    if task == "semantic":
        if target.semantic is None:
            raise ValueError("the semantic task needs a semantic map; this dataset has none")
        semantic = target.semantic.as_subclass(Tensor)
        classes = [c for c in semantic.unique().tolist() if c != target.ignore_index]
        masks = torch.stack([semantic == c for c in classes]) if classes else torch.zeros(0, *semantic.shape).bool()
        found = Segments(Mask(masks), torch.tensor(classes, dtype=torch.int64), torch.zeros(len(classes)).bool())
        counts = semantic != target.ignore_index
    else:
        if target.segments is None:
            raise ValueError(f"the {task} task needs segments; this dataset has none")
        whole = panoptic_truth(target, labels) if task == "panoptic" else target.segments
        masks = dense_masks(whole)
        counts = ~masks[whole.crowd].any(0)
        if task == "panoptic":
            counts &= masks.any(0)
        wanted = ~whole.crowd
        if task == "instance":
            wanted &= torch.tensor(labels.is_thing)[whole.labels]
        found = Segments(Mask(masks[wanted]), whole.labels[wanted], whole.crowd[wanted])
    weight = counts.float() if target.weight is None else counts * target.weight
    return replace(target, semantic=None, segments=found, weight=Mask(weight))


def dense_masks(segments: Segments) -> Tensor:
    """`Segments.masks` of segfolio 0.1."""
    if isinstance(segments.form, list) or segments.form.ndim == 3:
        return segments.masks.as_subclass(Tensor)
    places = torch.arange(1, len(segments) + 1)
    return segments.form.as_subclass(Tensor) == places[:, None, None]


def megabytes(batch: Batch, masks: bool = False) -> float:
    """What the truth of a batch takes, or its bool masks `[N, H, W]` alone."""
    tensors = [t for target in batch.targets for t in (target.segments.form, target.weight)]  # type: ignore[union-attr]
    kept = [t for t in tensors if isinstance(t, Tensor) and (not masks or (t.ndim == 3 and t.dtype == torch.bool))]
    return sum(t.numel() * t.element_size() for t in kept) / 1e6


def main() -> dict[str, float]:
    torch.set_num_threads(1)
    samples, rng = [draw(number) for number in range(4)], np.random.default_rng(0)
    prepare = TaskTruth(LABELS, "panoptic")

    def before(sample: Sample) -> Sample:
        return replace(sample, target=dense(sample.target or Target(), LABELS, "panoptic"))

    sides: dict[str, Callable[[Sample], Sample]] = {"masks": before, "id maps": lambda sample: prepare(sample, rng)}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS + 1):  # in turn, so that a slow minute of the machine is slow for both
        for side, make in sides.items():
            start = time.process_time()
            for sample in samples:
                make(sample)
            times[side].append((time.process_time() - start) / len(samples))
    spent = {side: statistics.median(found[1:]) for side, found in times.items()}
    batches = {side: collate([[make(samples[i % 4])] for i in range(BATCH)]) for side, make in sides.items()}
    for side, batch in batches.items():
        print(f"{side:8} {1e3 * spent[side]:6.1f} ms an image, {megabytes(batch):6.1f} MB for a batch of {BATCH}")
    time_ratio, bytes_ratio, bytes_of_masks = AIMS
    return {
        time_ratio: spent["masks"] / spent["id maps"],
        bytes_ratio: megabytes(batches["masks"]) / megabytes(batches["id maps"]),
        bytes_of_masks: megabytes(batches["id maps"], masks=True),
    }


if __name__ == "__main__":
    for ratio, value in main().items():
        print(f"{ratio}: {value:.3g} (aim {AIMS[ratio]})")
