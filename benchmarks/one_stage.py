"""One-stage networks: from what a network says of 300 objects to run lengths, and mosaics.

    python -m benchmarks.one_stage

`decoding` begins with the boxes, scores, factors and prototypes that YOLO11-seg says of an image of 1280 x 1280, 8,000
cells above the threshold of which 300 are kept, and ends with run lengths; the peer is the plain way: suppression, the
product of factors and prototypes, all masks enlarged to the image, cut off at their boxes and given to pycocotools. The
masks are identical. Memory is the most that is held beside what the network says.

`assignment` is of 300 objects in each of 16 images of 640 x 640 to 8,400 cells; the peer goes from image to image and
compares each object with each cell. The cells and their objects are the same.

`mosaic` is the time of a mosaic of four JPEGs of 640 x 480, with the window that follows it, against that of four
windows of single images; reading them is in both. All on one CPU thread, mosaics by that thread's time.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from pycocotools import mask as pycocotools
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from benchmarks.confusion_matrix import median_times
from benchmarks.paste_masks import held
from segfolio.architectures.one_stage.yolo_seg import CellRecipe, YOLOSeg
from segfolio.data.formats.rle import RLE
from segfolio.data.sample import Sample, Size, Target, to_image
from segfolio.data.segments import Segments
from segfolio.data.transforms import Mosaic, RandomWindow
from segfolio.inference.paste_masks import instances
from segfolio.layers.cells import Grid, task_aligned

DECODING, MEMORY, ASSIGNMENT, MOSAIC = "decoding", "memory of decoding", "assignment", "mosaic, per image"
AIMS = {DECODING: ">= 5", MEMORY: ">= 10", ASSIGNMENT: ">= 1", MOSAIC: ">= 1"}
SIDE, CELLS, CLASSES = 1280, 33600, 80
SIZE: Size = (SIDE, SIDE)


class Said(NamedTuple):
    """Of one image: `[A, 4]`, `[A, C]`, `[A, 32]` and `[32, h, w]`."""

    boxes: Tensor
    scores: Tensor
    factors: Tensor
    maps: Tensor


def said() -> Said:
    """Of objects of 20 to 400 pixels; a tenth of the cells sees one."""
    centres, halves = torch.rand(CELLS, 2) * SIDE, 10 + 190 * torch.rand(CELLS, 2)
    scores = torch.zeros(CELLS, CLASSES)
    seen = torch.randperm(CELLS)[:8000]
    scores[seen, torch.randint(CLASSES, (8000,))] = torch.rand(8000)
    maps = interpolate(torch.randn(1, 32, 20, 20), (SIDE // 4, SIDE // 4), mode="bicubic")[0]
    return Said(torch.cat([centres - halves, centres + halves], 1), scores, torch.randn(CELLS, 32), maps)


def ours(network: YOLOSeg, image: Said) -> list[RLE]:
    return instances(network.found(*image, SIZE), torch.arange(CLASSES), SIZE, SIZE).rles


def plain(recipe: CellRecipe, image: Said) -> list[RLE]:
    cell, label = (image.scores > recipe.score_threshold).nonzero().unbind(1)
    score, order = image.scores[cell, label].topk(recipe.before_nms)
    cell, label = cell[order], label[order]
    boxes = clip_boxes_to_image(image.boxes[cell], SIZE)
    kept = batched_nms(boxes, score, label, recipe.nms_iou)[: recipe.max_detections]
    masks = torch.einsum("nk,khw->nhw", image.factors[cell[kept]], image.maps)
    whole = interpolate(masks[None], SIZE, mode="bilinear")[0] > 0
    left, top, right, bottom = boxes[kept].T[..., None]
    place = torch.arange(SIDE) + 0.5
    inside = ((place > top) & (place < bottom))[:, :, None] & ((place > left) & (place < right))[:, None]
    cropped = (whole & inside).numpy().view(np.uint8)
    return [pycocotools.encode(np.asfortranarray(mask)) for mask in cropped]


def decoding() -> dict[str, float]:
    network, image = YOLOSeg(CLASSES).eval(), said()
    found, expected = ours(network, image), plain(network.recipe, image)
    assert len(found) == 300
    assert found == expected
    sides: dict[str, Callable[[], list[RLE]]] = {
        "ours": partial(ours, network, image),
        "plain": partial(plain, network.recipe, image),
    }
    seconds = median_times({name: lambda run=run: run() and None for name, run in sides.items()}, rounds=3)
    memory = {name: held(run) for name, run in sides.items()}
    for name in sides:
        print(f"{name:8}{1e3 * seconds[name]:8.0f} ms{memory[name]:8.3f} GiB")
    return {DECODING: seconds["plain"] / seconds["ours"], MEMORY: memory["plain"] / memory["ours"]}


class Batch(NamedTuple):
    """What `task_aligned` is given."""

    grid: Grid
    scores: Tensor
    found: Tensor
    image: Tensor
    boxes: Tensor
    labels: Tensor


def crowded(images: int = 16, objects: int = 300, side: int = 640) -> Batch:
    """Objects of 10 to 130 pixels."""
    grid = Grid.of([torch.zeros(1, 1, side // stride, side // stride) for stride in (8, 16, 32)], (8, 16, 32))
    count = images * objects
    centres, halves = torch.rand(count, 2) * side, 5 + 60 * torch.rand(count, 2)
    return Batch(
        grid,
        torch.rand(images, len(grid.centres), CLASSES),
        grid.boxes(4 * torch.rand(images, len(grid.centres), 4)),
        torch.arange(images).repeat_interleave(objects),
        torch.cat([centres - halves, centres + halves], 1).clamp(0, side),
        torch.randint(CLASSES, (count,)),
    )


def pairwise(batch: Batch, top: int = 10, alpha: float = 0.5, beta: float = 6.0) -> list[tuple[int, int, int]]:
    """Image, cell and object of each cell that answers for one."""
    answering, first = list[tuple[int, int, int]](), 0
    for number, (scores, found) in enumerate(zip(batch.scores, batch.found, strict=True)):
        own = batch.image == number
        boxes, labels = batch.boxes[own], batch.labels[own]
        low, high = boxes[:, None].split(2, 2)
        inside = ((batch.grid.centres > low) & (batch.grid.centres < high)).all(2)
        overlap = box_iou(boxes, found)
        measure = (scores[:, labels].T ** alpha * overlap**beta).masked_fill(~inside, -1)
        value, cell = measure.topk(top, 1)
        wanted = torch.zeros_like(inside).scatter_(1, cell, value >= 0)
        overlap, of = overlap.masked_fill(~wanted, -1).max(0)
        cells = (overlap >= 0).nonzero()[:, 0]
        answering += [(number, *each) for each in torch.stack([cells, first + of[cells]], 1).tolist()]
        first += len(boxes)
    return answering


def assignment() -> float:
    """How many times longer the comparison of all pairs takes."""
    batch = crowded()
    assigned = task_aligned(*batch)
    found = zip(assigned.image.tolist(), assigned.cell.tolist(), assigned.of.tolist(), strict=True)
    assert sorted(found) == pairwise(batch)
    sides: dict[str, Callable[[], None]] = {
        "ours": lambda: task_aligned(*batch) and None,
        "pairwise": lambda: pairwise(batch) and None,
    }
    seconds = median_times(sides, rounds=3)
    print(f"assignment {1e3 * seconds['ours']:.0f} ms, of all pairs {1e3 * seconds['pairwise']:.0f} ms")
    return seconds["pairwise"] / seconds["ours"]


def read(jpeg: bytes, masks: Tensor) -> Sample:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    labels, crowd = torch.zeros(len(masks), dtype=torch.int64), torch.zeros(len(masks), dtype=torch.bool)
    return Sample(
        to_image(pixels), "image", (480, 640), Target(segments=replace(Segments(masks, labels, crowd)).compact())
    )


def mosaic() -> float:
    """How many times longer four windows take."""
    rng = np.random.default_rng(0)
    blurred = cv2.resize(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), (640, 480))
    pixels = blurred + rng.normal(0, 16, (480, 640, 1))
    jpeg = cv2.imencode(".jpg", pixels.clip(0, 255).astype(np.uint8))[1].tobytes()
    print(f"JPEGs of {len(jpeg) / 1e3:.0f} kB")
    ids = np.zeros((480, 640), np.int64)
    for number in range(8):
        ids[60 * (number // 4) : 60 * (number // 4) + 50, 80 * (number % 4) : 80 * (number % 4) + 70] = number + 1
    masks = torch.from_numpy(ids == np.arange(1, 9)[:, None, None])
    four, window = Mosaic((640, 640)), RandomWindow((640, 640), scale=(0.5, 1.5), hflip=0.5)

    def mixed(rng: np.random.Generator) -> None:
        window(four([read(jpeg, masks) for _ in range(4)], rng), rng)

    def single(rng: np.random.Generator) -> None:
        for _ in range(4):
            window(read(jpeg, masks), rng)

    times = thread_times({"mosaic": mixed, "single": single})
    print(f"a mosaic of four {1e3 * times['mosaic']:.1f} ms, four images {1e3 * times['single']:.1f} ms")
    return times["single"] / times["mosaic"]


def thread_times(runs: dict[str, Callable[[np.random.Generator], None]], draws: int = 24) -> dict[str, float]:
    """Seconds of this thread, a mean over draws of the least of three turns: others on the machine do not count."""
    total = dict.fromkeys(runs, 0.0)
    for draw in range(draws):
        least = dict.fromkeys(runs, float("inf"))
        for name in [*runs] * 3:
            runs[name](np.random.default_rng(draw))  # untimed: the neighbour has emptied the caches
            start = time.thread_time()
            runs[name](np.random.default_rng(draw))
            least[name] = min(least[name], time.thread_time() - start)
        total = {name: total[name] + least[name] for name in runs}
    return {name: seconds / draws for name, seconds in total.items()}


@torch.inference_mode()
def main() -> dict[str, float]:
    """How many times more the peer needs.

    Raises:
        AssertionError: a mask differs.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    return {**decoding(), ASSIGNMENT: assignment(), MOSAIC: mosaic()}


if __name__ == "__main__":
    main()
