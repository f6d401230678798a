"""Our Swin-T-UPerNet against transformers' `UperNetForSemanticSegmentation` in a bare loop, with the same weights.

    python -m benchmarks.swin_upernet

One image of 512 x 512, 150 classes, one CPU thread, attention of both through `scaled_dot_product_attention`. A
training step is of two images of 256 x 256, as theirs normalises no lone image's mean: of each side's own cross-entropy
at the image's size, of the auxiliary head, too, with stochastic depth, and of AdamW. Its memory is the most that
tensors hold at once beyond weights and the state of the optimiser, of two images of 512 x 512: of smaller ones it is
that of AdamW's own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SwinConfig, UperNetConfig, UperNetForSemanticSegmentation

from benchmarks._beside import Entropy, forward, our_entropy, plain_entropy, shares
from benchmarks.confusion_matrix import median_times
from segfolio.architectures.transformer.swin_upernet import SwinUPerNet, of_ours
from segfolio.layers.outputs import PixelOutput
from segfolio.speed.measure import peak_bytes

AIMS = {"forward": "<= 1.0", "training step": "<= 1.0", "memory of the step": "<= 0.9"}
SIZE, CLASSES = 512, 150


class Theirs(nn.Module):
    """Their logits as the heads give them: enlarging both is the loss's, as with ours."""

    def __init__(self) -> None:
        super().__init__()
        swin = SwinConfig(  # type: ignore[call-arg]
            embed_dim=96,
            depths=(2, 2, 6, 2),
            num_heads=(3, 6, 12, 24),
            drop_path_rate=0.3,
            out_features=["stage1", "stage2", "stage3", "stage4"],
            attn_implementation="sdpa",
        )
        config = UperNetConfig(  # type: ignore[call-arg]
            backbone_config=swin, num_labels=CLASSES, hidden_size=512, auxiliary_in_channels=384
        )
        self.model = UperNetForSemanticSegmentation(config)

    def forward(self, images: Tensor) -> PixelOutput:
        model: Any = self.model
        levels = model.backbone(images).feature_maps
        found = {"aux": model.auxiliary_head(levels)} if self.training else {}
        return PixelOutput(model.decode_head(levels), found)


def step(network: nn.Module, entropy: Entropy, images: Tensor, target: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-5)

    def run() -> None:
        network.train()
        output = network(images)
        (entropy(output.logits, target) + 0.4 * entropy(output.auxiliary["aux"], target)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def drawn(side: int) -> tuple[Tensor, Tensor]:
    """Two images and their truth."""
    return torch.randn(2, 3, side, side), torch.randint(CLASSES, (2, side, side))


def main() -> dict[str, float]:
    """Which part of transformers' time and memory we need.

    Raises:
        AssertionError: logits that are not theirs.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    theirs, ours = Theirs(), SwinUPerNet(CLASSES, dropout=0.0)
    ours.load_state_dict(of_ours(theirs.model.state_dict()))
    images, small, large = torch.randn(1, 3, SIZE, SIZE), drawn(SIZE // 2), drawn(SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images).logits, theirs.eval()(images).logits, rtol=1e-3, atol=1e-4)
    sides = {"ours": (ours, our_entropy), "transformers": (theirs, plain_entropy)}
    seconds = median_times({name: forward(network, images) for name, (network, _) in sides.items()}, rounds=3)
    trained = median_times({name: step(*side, *small) for name, side in sides.items()}, rounds=2)
    memory = {name: peak_bytes(step(*side, *large)) for name, side in sides.items()}
    return shares(seconds, trained, memory)


if __name__ == "__main__":
    main()
