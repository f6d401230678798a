"""Time and memory of the readings of a mask classification network, ours against transformers' post-processing.

    python -m benchmarks.mask_inference

100 queries, 150 classes, 20 queries sure of a class; logits of a quarter of the image's size; results at the
image's size, of 640 x 640 and 2048 x 2048; one CPU thread. transformers' semantic reading resizes the scores of 150
classes, ours the masks of 100 queries; its instances are repeated pixels, ours are resized logits, and both end as
run lengths. Peak memory is of tensors, beyond the logits.
"""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import MaskFormerImageProcessor

from benchmarks.confusion_matrix import median_times
from segfolio.data.formats import rle
from segfolio.inference.mask_classification import instances, panoptic, semantic
from segfolio.speed.measure import peak_bytes

SIDES = {640: 3, 2048: 1}  # rounds of each
TASKS = ("semantic", "panoptic", "instances")
AIMS = {f"{task} time, {side}": ">= 1" for task in TASKS for side in SIDES} | {
    f"{task} memory, {side}": limit for task in TASKS for side, limit in zip(SIDES, ("<= 1", "<= 0.25"), strict=True)
}
QUERIES, CLASSES, SURE = 100, 150, 20
IS_THING = [c < 100 for c in range(CLASSES)]


def case(side: int) -> tuple[Tensor, Tensor]:
    """Class logits, and blobs as masks."""
    g = torch.Generator().manual_seed(0)
    classes = torch.randn(QUERIES, CLASSES + 1, generator=g)
    classes[:, -1] += 8
    classes[torch.arange(SURE), torch.randint(CLASSES, (SURE,), generator=g)] += 16
    blobs = torch.randn(1, QUERIES, 8, 8, generator=g).mul(6).sub(4)
    return classes, interpolate(blobs, (side // 4, side // 4), mode="bicubic")[0]


def pairs(side: int) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Ours and transformers' of each task."""
    logits, size = case(side), (side, side)
    batch = SimpleNamespace(class_queries_logits=logits[0][None], masks_queries_logits=logits[1][None])
    peer, stuff = MaskFormerImageProcessor(), {c for c in range(CLASSES) if not IS_THING[c]}

    def theirs(task: str, **arguments: object) -> list[dict[str, Tensor]]:
        return getattr(peer, f"post_process_{task}_segmentation")(batch, target_sizes=[size], **arguments)

    def their_instances() -> object:
        (found,) = theirs("instance", threshold=0.0, return_binary_maps=True)
        return rle.encode(found["segmentation"].bool().numpy())

    return {
        "semantic": (lambda: semantic(*logits, size), lambda: theirs("semantic")),
        "panoptic": (
            lambda: panoptic(*logits, size, IS_THING),
            lambda: theirs("panoptic", threshold=0.8, label_ids_to_fuse=stuff),
        ),
        "instances": (lambda: instances(*logits, size, [True] * CLASSES), their_instances),
    }


def main() -> dict[str, float]:
    """How many times longer transformers takes, and which part of its memory we need."""
    torch.set_num_threads(1)
    found = {}
    for side, rounds in SIDES.items():
        for task, (ours, theirs) in pairs(side).items():
            sides = {"ours": ours, "transformers": theirs}
            seconds = median_times(sides, rounds)
            memory = {name: peak_bytes(read) for name, read in sides.items()}
            for name in sides:
                print(f"{side:5} {task:10}{name:14}{seconds[name]:8.3f} s{memory[name] / 2**20:9.1f} MiB at peak")
            found[f"{task} time, {side}"] = seconds["transformers"] / seconds["ours"]
            found[f"{task} memory, {side}"] = memory["ours"] / memory["transformers"]
    return found


if __name__ == "__main__":
    main()
