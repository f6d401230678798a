"""Time of SAM's decoder, ours with 64 prompts in one call against transformers' with 64 calls of one.

    python -m benchmarks.prompt_decoder

One point each on a kept embedding of a 1024 px image, three masks a prompt, the same random weights, two CPU threads.
`kept` draws the masks of every tenth prompt, as everything mode does of those whose predicted IoU is high enough; there
is no such call in transformers.
"""

from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from transformers import SamConfig, SamModel

from benchmarks.confusion_matrix import median_times
from segfolio.architectures.promptable.sam import SAM
from segfolio.layers.prompting import PromptInput
from segfolio.weights.sam import from_transformers

PROMPTS, ROUNDS = 64, 5
ALL, KEPT = "64 prompts, all masks drawn", "64 prompts, a tenth drawn"
AIMS = {ALL: "<= 0.7"}


def networks() -> tuple[SAM, SamModel]:
    """With decoders of full size, and an image encoder that is not used."""
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = SamConfig(vision_config=vision, mask_decoder_config={"layer_norm_eps": 1e-5})  # type: ignore[call-arg]
    theirs = SamModel(config).eval()
    for p in theirs.mask_decoder.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
    ours = SAM(1, width=16, depth=1, heads=1, global_blocks=()).eval()
    ours.load_state_dict(from_transformers(theirs.state_dict()))
    return ours, theirs


@torch.inference_mode()
def main() -> dict[str, float]:
    """Which part of transformers' time ours takes, the median of rounds in which both take turns.

    Raises:
        AssertionError: the masks differ.
    """
    torch.set_num_threads(2)
    ours, theirs = networks()
    embedding = torch.randn(1, 256, 64, 64)
    points, kinds = 1024 * torch.rand(PROMPTS, 1, 2), torch.ones(PROMPTS, 1, dtype=torch.int64)
    prompts = PromptInput(torch.zeros(PROMPTS, dtype=torch.int64), points, kinds)
    tenth = (torch.arange(PROMPTS) % 10 == 0)[:, None].expand(PROMPTS, 3)

    def single_calls() -> Tensor:
        found = [
            theirs(image_embeddings=embedding, input_points=point[None, None] - 0.5, input_labels=kind[None, None])
            for point, kind in zip(points, kinds, strict=True)
        ]
        return torch.cat([each.pred_masks[0] for each in found])

    def one_call() -> Tensor:
        return ours.decode((embedding,), prompts).masks

    def kept() -> Tensor:
        return ours.draw(ours.read((embedding,), prompts), tenth)

    masks, expected = one_call(), single_calls()
    difference = (masks - expected).abs().max().item()
    print(f"masks differ by at most {difference:.1e}, their standard deviation is {expected.std().item():.2f}")
    assert difference < 1e-4 * expected.std()
    sides: dict[str, Callable[[], Tensor]] = {"transformers": single_calls, ALL: one_call, KEPT: kept}
    rounds = [median_times(sides, rounds=1) for _ in range(ROUNDS)]
    for name in sides:
        print(f"{name:30}{median(seconds[name] for seconds in rounds) / PROMPTS * 1e3:8.1f} ms a prompt")
    return {name: median(seconds[name] / seconds["transformers"] for seconds in rounds) for name in (ALL, KEPT)}


if __name__ == "__main__":
    main()
