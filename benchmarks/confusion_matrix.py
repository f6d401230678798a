"""Time and memory of one update of the confusion matrix, ours against torchmetrics.

    python benchmarks/confusion_matrix.py

Four images of 512 x 512, 21 classes, 5 % void, one CPU thread, uint8 as predictions and truths are here.
`segmentation.MeanIoU` wants int64, and has no `ignore_index`: its target is without void.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from segfolio.metrics import ConfusionMatrix
from segfolio.speed.measure import peak_bytes

AIMS = {
    "Jaccard time": ">= 8",
    "Jaccard time, int64": ">= 8",
    "MeanIoU time": ">= 100",
    "one-hot memory": "> 1",
}
SHAPE, CLASSES, VOID = (4, 512, 512), 21, 255


def maps() -> tuple[Tensor, Tensor]:
    """Prediction and target, uint8."""
    g = torch.Generator().manual_seed(0)
    prediction, target = (torch.randint(CLASSES, SHAPE, generator=g, dtype=torch.uint8) for _ in range(2))
    target[torch.rand(SHAPE, generator=g) < 0.05] = VOID
    return prediction, target


def median_times(updates: dict[str, Callable[[], None]], rounds: int = 9) -> dict[str, float]:
    """Seconds of each update, measured in turns so that a busy machine is busy for all."""
    times: dict[str, list[float]] = {name: [] for name in updates}
    for _ in range(rounds):
        for name, update in updates.items():
            update()  # untimed: the neighbour has emptied the caches
            start = time.perf_counter()
            update()
            times[name].append(time.perf_counter() - start)
    return {name: median(seconds) for name, seconds in times.items()}


def main() -> dict[str, float]:
    """How many times longer and larger other updates are.

    Raises:
        AssertionError: our update needs as much memory as a one-hot map of bytes.
    """
    torch.set_num_threads(1)
    prediction, target = maps()
    wide = prediction.long(), target.long()
    no_void = target.where(target != VOID, 0).long()
    ours, jaccard = ConfusionMatrix(CLASSES, VOID), MulticlassJaccardIndex(CLASSES, ignore_index=VOID)
    mean_iou = MeanIoU(CLASSES, input_format="index")
    updates: dict[str, Callable[[], None]] = {
        "ours": lambda: ours.update(prediction, target),
        "ours, int64": lambda: ours.update(*wide),
        "Jaccard": lambda: jaccard.update(prediction, target),
        "Jaccard, int64": lambda: jaccard.update(*wide),
        "MeanIoU": lambda: mean_iou.update(wide[0], no_void),
    }
    seconds = median_times(updates)
    memory = {name: peak_bytes(update) for name, update in updates.items()}

    for name in updates:
        print(f"{name:16}{1e3 * seconds[name]:9.2f} ms{memory[name] / 1e6:9.1f} MB at peak")

    one_hot = target.numel() * CLASSES  # in bytes
    assert 0 < memory["ours"] < one_hot, memory
    return {
        "Jaccard time": seconds["Jaccard"] / seconds["ours"],
        "Jaccard time, int64": seconds["Jaccard, int64"] / seconds["ours, int64"],
        "MeanIoU time": seconds["MeanIoU"] / seconds["ours"],
        "MeanIoU memory": memory["MeanIoU"] / memory["ours"],
        "one-hot memory": one_hot / memory["ours"],
    }


if __name__ == "__main__":
    main()
