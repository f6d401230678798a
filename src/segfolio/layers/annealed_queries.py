"""Queries among the tokens of plain transformer blocks, kept to their masks by probabilities that training anneals.

EoMT (Kerssies et al., 2025, arXiv 2503.19108, section 3), and what is built like it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segfolio.errors import SegfolioError
from segfolio.layers.again import through
from segfolio.layers.backbones import crop_quarter
from segfolio.layers.outputs import MaskOutput, QueryLayer

Blocks = Iterable[Callable[[Tensor, Tensor | None], Tensor]]
"""Each called with tokens `[B, N, D]` and which may attend to which, `[B, 1, N, N]`; None where all may."""


class AnnealedQueries(nn.Module):
    """What a network of such queries has beside its tokens: it sets the modules named here.

    Attributes:
        query: `[Q, D]`, the queries before the first block.
        layernorm, upscale_block, mask_head, class_predictor: of predictions; masks are of the patches, enlarged.
        mask_probabilities: of each of the blocks, first to last: how probable it is that a query is kept to
            its mask. Training anneals them from 1 to 0; they are part of the state dict.
        checkpointing: in training, keep each block's input alone and compute the block again in the backward pass, and
            so of each prediction.
    """

    query: nn.Embedding
    layernorm: nn.Module
    upscale_block: nn.Module
    mask_head: nn.Module
    class_predictor: nn.Module
    mask_probabilities: list[float]
    checkpointing: bool = False

    def ask(self, tokens: Tensor, grid: tuple[int, int], blocks: Blocks, images: Tensor) -> MaskOutput:
        """Take the queries with tokens `[B, N, D]`, the last of them patches of `grid`, through `blocks`."""
        tokens = torch.cat([self.query.weight.expand(len(tokens), -1, -1), tokens], dim=1)
        auxiliary = []
        for block, probability in zip(blocks, self.mask_probabilities, strict=True):
            mask = None
            if self.training or probability > 0:
                auxiliary.append(through(self, self._predict, tokens, grid))
            if probability > 0:
                mask = self._attention_mask(auxiliary[-1][1], tokens.shape[1], grid, probability)
            tokens = through(self, block, tokens, mask)
        layers = [*(auxiliary if self.training else ()), through(self, self._predict, tokens, grid)]
        return MaskOutput.of([QueryLayer(classes, crop_quarter(masks, images)) for classes, masks in layers])

    def annealed(self) -> Self:
        """As it is at the end of training, when no attention is masked any more."""
        self.mask_probabilities = [0.0] * len(self.mask_probabilities)
        return self

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.mask_probabilities)

    def set_extra_state(self, state: Tensor) -> None:
        self.mask_probabilities = state.tolist()

    def _predict(self, tokens: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Class logits `[B, Q, C + 1]` and mask logits `[B, Q, h, w]` of tokens `[B, Q + N, D]`."""
        tokens = self.layernorm(tokens)
        queries, patches = tokens[:, : self.query.num_embeddings], tokens[:, -grid[0] * grid[1] :]
        pixels = self.upscale_block(patches.transpose(1, 2).unflatten(2, grid))
        masks = torch.einsum("bqd,bdhw->bqhw", self.mask_head(queries), pixels)
        return self.class_predictor(queries), masks

    def _attention_mask(self, masks: Tensor, length: int, grid: tuple[int, int], probability: float) -> Tensor:
        """`[B, 1, L, L]`, true where a token may attend: queries to the patches of their masks, all else to all."""
        batch, queries = masks.shape[:2]
        inside = interpolate(masks.detach(), grid, mode="bilinear").flatten(2) > 0
        if probability < 1:
            inside |= torch.rand(batch, queries, 1, device=masks.device) > probability
        mask = torch.ones(batch, 1, length, length, dtype=torch.bool, device=masks.device)
        mask[:, 0, :queries, -inside.shape[2] :] = inside
        return mask


def upscaling(name: str, patch_size: int) -> int:
    """How often patches are enlarged by two to stride 4.

    Raises:
        SegfolioError: patches that do not come to a quarter of the image so.
    """
    if patch_size < 8 or patch_size & (patch_size - 1):
        raise SegfolioError(
            f"patch_size of {name} is {patch_size}, expected 8, 16, 32, ...: masks are enlarged by twos to a "
            "quarter of the image, and a backbone's patch embedding is resampled to it"
        )
    return patch_size.bit_length() - 3


def check_taken(name: str, taken: int, blocks: int) -> None:
    """Refuse more blocks with queries than there are.

    Raises:
        SegfolioError: so.
    """
    if not 1 <= taken <= blocks:
        raise SegfolioError(f"num_blocks of {name} is {taken}, but its backbone has {blocks}; give 1 to {blocks}")


def of_parts(network: Any, parts: Any) -> None:
    """Take over what `AnnealedQueries` needs, but its norm, from a network of transformers."""
    for name in ("query", "upscale_block", "mask_head", "class_predictor"):
        setattr(network, name, getattr(parts, name))
