"""What benchmarks of one network beside transformers' share."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from segfolio.losses import CrossEntropy

Entropy = Callable[[Tensor, Tensor], Tensor]


def forward(network: nn.Module, images: Tensor) -> Callable[[], None]:
    def run() -> None:
        network.eval()
        with torch.inference_mode():
            network(images)

    return run


def plain_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy at the truth's size, as transformers computes it."""
    large = interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
    return cross_entropy(large, target, ignore_index=255)


def our_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return CrossEntropy()(logits, target, 255)


def shares(seconds: Mapping[str, float], trained: Mapping[str, float], memory: Mapping[str, float]) -> dict[str, float]:
    """Which part of transformers' time and memory we need, of a forward pass and a training step; both are printed."""
    for name in seconds:
        print(
            f"{name:14}{1e3 * seconds[name]:8.0f} ms forward{1e3 * trained[name]:8.0f} ms a step"
            f"{memory[name] / 1e6:9.1f} MB at peak of the step"
        )
    return {
        "forward": seconds["ours"] / seconds["transformers"],
        "training step": trained["ours"] / trained["transformers"],
        "memory of the step": memory["ours"] / memory["transformers"],
    }
