"""Time and memory of the criterion of mask classification, ours against the `Mask2FormerLoss` of transformers.

    python -m benchmarks.mask_loss

Batch 4, 100 queries, 150 classes, 12 segments per image, 10 decoder layers, logits of 160 x 160 for masks of
640 x 640, 12544 points, one CPU thread. Time is of forward and backward. Memory is the most that the forward pass
holds beyond its inputs, which comes on top of the activations of the whole network; the backward pass ends, on
either side, with the gradients of all logits, which are most of its memory.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from benchmarks.confusion_matrix import median_times
from segfolio.losses.mask_classification import MaskClassificationLoss
from segfolio.losses.mask_matching import MaskTarget
from segfolio.speed.measure import peak_bytes

AIMS = {"time": ">= 2.5", "memory": "<= 0.5"}
BATCH, QUERIES, CLASSES, SEGMENTS, LAYERS, SIZE = 4, 100, 150, 12, 10, 160


def case() -> tuple[list[tuple[Tensor, Tensor]], list[MaskTarget]]:
    """Logits of each layer, and rectangles as truth."""
    g = torch.Generator().manual_seed(0)
    layers = [
        tuple(
            torch.randn(BATCH, QUERIES, *shape, generator=g).requires_grad_()
            for shape in [(CLASSES + 1,), (SIZE, SIZE)]
        )
        for _ in range(LAYERS)
    ]
    targets = []
    for _ in range(BATCH):
        masks = torch.zeros(SEGMENTS, 4 * SIZE, 4 * SIZE, dtype=torch.bool)
        for mask, (y, x, height, width) in zip(masks, torch.randint(40, 256, (SEGMENTS, 4), generator=g), strict=True):
            mask[y : y + height, x : x + width] = True
        targets.append(MaskTarget(torch.randint(CLASSES, (SEGMENTS,), generator=g), masks))
    return layers, targets


def main() -> dict[str, float]:
    """How many times longer transformers takes, and which part of its memory we need."""
    torch.set_num_threads(1)
    layers, targets = case()
    logits = [x for layer in layers for x in layer]
    peer = Mask2FormerLoss(Mask2FormerConfig(num_labels=CLASSES), {})
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    criterion = MaskClassificationLoss()
    labels, masks = [t.labels for t in targets], [t.masks.float() for t in targets]

    def ours() -> Tensor:
        return sum(criterion(layers, targets).values())

    def theirs() -> Tensor:
        keys = ("class_queries_logits", "masks_queries_logits")
        *auxiliary, last = (dict(zip(keys, layer, strict=True)) for layer in layers)
        losses = peer(**last, mask_labels=masks, class_labels=labels, auxiliary_predictions=auxiliary)
        return sum(weights[key.rstrip("_0123456789")] * loss for key, loss in losses.items())

    def step(forward: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: torch.autograd.grad(forward(), logits) and None

    sides = {"ours": ours, "transformers": theirs}
    seconds = median_times({name: step(forward) for name, forward in sides.items()}, rounds=3)
    memory = {name: peak_bytes(forward) for name, forward in sides.items()}
    whole = {name: peak_bytes(step(forward)) for name, forward in sides.items()}
    for name in sides:
        print(
            f"{name:14}{seconds[name]:7.2f} s{memory[name] / 1e6:9.1f} MB at peak of the forward pass"
            f"{whole[name] / 1e6:9.1f} MB of the step"
        )
    return {
        "time": seconds["transformers"] / seconds["ours"],
        "memory": memory["ours"] / memory["transformers"],
        "memory of the step": whole["ours"] / whole["transformers"],
    }


if __name__ == "__main__":
    main()
