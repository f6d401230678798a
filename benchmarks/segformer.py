"""Our SegFormer-B0 against transformers' `SegformerForSemanticSegmentation` in a bare loop, with the same weights.

    python -m benchmarks.segformer

One image of 512 x 512, 150 classes, one CPU thread, attention of both through `scaled_dot_product_attention`. A
training step is of each side's own cross-entropy at the image's size, with stochastic depth and dropout, and of AdamW;
its memory is the most that tensors hold at once beyond weights and the state of the optimiser.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from benchmarks._beside import Entropy, forward, our_entropy, plain_entropy, shares
from benchmarks.confusion_matrix import median_times
from segfolio.architectures.transformer.segformer import SegFormer, of_ours
from segfolio.speed.measure import peak_bytes

AIMS = {"forward": "<= 0.55", "training step": "<= 0.7", "memory of the step": "<= 0.9"}
SIZE, CLASSES = 512, 150


class Theirs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = SegformerConfig(num_labels=CLASSES, attn_implementation="sdpa")  # type: ignore[call-arg]
        self.model = SegformerForSemanticSegmentation(config)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def step(network: nn.Module, entropy: Entropy, images: Tensor, target: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-5)

    def run() -> None:
        network.train()
        entropy(network(images), target).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main() -> dict[str, float]:
    """Which part of transformers' time and memory we need.

    Raises:
        AssertionError: logits that are not theirs.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    theirs, ours = Theirs(), SegFormer(CLASSES)
    ours.load_state_dict(of_ours(theirs.model.state_dict()))
    images, target = torch.randn(1, 3, SIZE, SIZE), torch.randint(CLASSES, (1, SIZE, SIZE))
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-3, atol=1e-4)
    sides = {"ours": (ours, our_entropy), "transformers": (theirs, plain_entropy)}
    seconds = median_times({name: forward(network, images) for name, (network, _) in sides.items()}, rounds=5)
    steps = {name: step(*side, images, target) for name, side in sides.items()}
    trained = median_times(steps, rounds=3)
    memory = {name: peak_bytes(run) for name, run in steps.items()}
    return shares(seconds, trained, memory)


if __name__ == "__main__":
    main()
