"""The smallest network that is prompted, and a family that asks it: for tests of protocols."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Size
from segfolio.inference.prompting import EmbeddedImages, fitted
from segfolio.layers.prompting import Embedding, PromptableNetwork, PromptInput, Reading

LABELS = LabelSpace(("cell", "speck"), things=("cell", "speck"))


class Discs(PromptableNetwork):
    """Discs around clicks, added to what was there and cut out of it; boxes are filled. Keeps what it was asked."""

    image_size, mask_size, masks = 64, 32, 3

    def __init__(self, num_classes: int = 0, weights: str | None = None) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.embedded: list[int] = []
        self.asked: list[tuple[PromptInput, bool]] = []

    def embed(self, images: Tensor) -> Embedding:
        self.embedded.append(len(images))
        height, width = images.shape[-2:]
        square = pad(images, (0, self.image_size - width, 0, self.image_size - height))
        return (self.scale * avg_pool2d(square.mean(1, keepdim=True), 2),)

    def read(self, embedding: Embedding, prompts: PromptInput, multimask: bool = True) -> Reading:
        self.asked.append((prompts, multimask))
        line = 2 * (torch.arange(self.mask_size) + 0.5)
        y, x = torch.meshgrid(line, line, indexing="ij")
        count = self.masks if multimask else 1
        radii = torch.arange(1.0, 1 + count)[:, None, None] * (4 if multimask else 6)
        logits = 0.2 * embedding[0][prompts.image] - 0.5
        logits = logits.expand(-1, count, -1, -1) + (0 if prompts.masks is None else 0.5 * prompts.masks[:, None])
        for k in range(prompts.kinds.shape[1]):
            px, py = prompts.points[:, k, :, None, None, None].unbind(1)
            sign = torch.where(prompts.kinds[:, k] == 1, 1.0, -1.0)[:, None, None, None]
            logits = logits + sign * (1 - ((x - px) ** 2 + (y - py) ** 2).sqrt() / radii).clamp(-0.2)
        if prompts.boxes is not None:
            left, top, right, bottom = prompts.boxes[:, :, None, None, None].unbind(1)
            logits = logits + ((x > left) & (x < right) & (y > top) & (y < bottom)).float() * (2 + radii / 100)
        iou = (37 * logits.mean((2, 3))).sin() / 2 + 0.5  # any order
        return Reading(iou, None, (logits,))

    def draw(self, reading: Reading, keep: Tensor | None = None) -> Tensor:
        (logits,) = reading.state
        return logits if keep is None else logits[keep]


class Asking:
    """What protocols need of a family."""

    labels = LABELS

    def __init__(self, network: PromptableNetwork | None = None) -> None:
        self.network: Any = Discs() if network is None else network

    @torch.no_grad()
    def embedded(self, images: Tensor, sizes: Sequence[Size], own: Sequence[Size] | None = None) -> EmbeddedImages:
        small, seen = fitted(self.network, images, sizes), [self.network.fit(*size) for size in sizes]
        return EmbeddedImages(self.network, self.network.embed(small / 255), sizes if own is None else own, seen)
