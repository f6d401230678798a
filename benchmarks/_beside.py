"""What benchmarks of one network beside transformers' share."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def forward(network: nn.Module, images: Tensor) -> Callable[[], None]:
    def run() -> None:
        network.eval()
        with torch.inference_mode():
            network(images)

    return run


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
