"""Our EoMT-S against transformers' `EomtForUniversalSegmentation` in a bare loop, with the same weights.

    python -m benchmarks.eomt

One image of 160 x 160, 133 classes, 200 queries, one CPU thread, attention of both through
`scaled_dot_product_attention`. The forward pass is that of a trained network, which masks no attention; the training
step masks all of it, has transformers' losses for its side and ours for ours, both of 12,544 points and the matching of
eight segments, and AdamW. Its memory is the most that tensors hold at once beyond weights and the optimiser's state.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EomtConfig, EomtForUniversalSegmentation

from benchmarks._beside import forward, shares
from benchmarks.confusion_matrix import median_times
from segfolio.architectures.mask_classification.eomt import EoMT
from segfolio.losses import MaskClassificationLoss
from segfolio.losses.mask_matching import MaskTarget
from segfolio.speed.measure import peak_bytes

AIMS = {"forward": "<= 1.0", "training step": "<= 1.0", "memory of the step": "<= 0.9"}
SIZE, CLASSES, SEGMENTS = 160, 133, 8


def both() -> tuple[EoMT, Any]:
    """Ours and transformers', with the same weights."""
    config = EomtConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=SIZE,
        num_labels=CLASSES,
        attn_implementation="sdpa",  # type: ignore[call-arg]
    )
    theirs = EomtForUniversalSegmentation(config)
    ours = EoMT(CLASSES, backbone="vit_small_patch14_reg4_dinov2", image_size=SIZE)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("criterion")}
    state["_extra_state"] = state.pop("attn_mask_probs")
    ours.load_state_dict(state)
    return ours, theirs


def truth() -> list[MaskTarget]:
    masks = torch.zeros(SEGMENTS, SIZE, SIZE, dtype=torch.bool)
    for place, mask in enumerate(masks):
        y, x = 40 * (place // 4), 40 * (place % 4)
        mask[y : y + 40, x : x + 40] = True
    return [MaskTarget(torch.arange(SEGMENTS), masks)]


def step(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)

    def run() -> None:
        network.train()
        loss().backward()
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
    (ours, theirs), images, targets = both(), torch.randn(1, 3, SIZE, SIZE), truth()
    labels = {"mask_labels": [t.masks.float() for t in targets], "class_labels": [t.labels for t in targets]}
    ours.annealed()
    theirs.attn_mask_probs.zero_()
    with torch.inference_mode():
        mine, other = ours.eval()(images), theirs.eval()(images)
    torch.testing.assert_close(mine.class_logits, other.class_queries_logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mine.mask_logits, other.masks_queries_logits, rtol=1e-3, atol=1e-3)
    sides = {"ours": ours, "transformers": theirs}
    seconds = median_times({name: forward(network, images) for name, network in sides.items()}, rounds=5)

    ours.mask_probabilities = [1.0] * len(ours.mask_probabilities)
    theirs.attn_mask_probs.fill_(1.0)
    criterion = MaskClassificationLoss()
    steps = {
        "ours": step(ours, lambda: torch.stack(list(criterion(ours(images).layers, targets).values())).sum()),
        "transformers": step(theirs, lambda: theirs(images, **labels).loss),
    }
    trained = median_times(steps, rounds=3)
    memory = {name: peak_bytes(run) for name, run in steps.items()}
    return shares(seconds, trained, memory)


if __name__ == "__main__":
    print(main())
