"""EdgeTAM: On-Device Track Anything Model
(Chong Zhou, Chenchen Zhu, Yunyang Xiong, Saksham Suri, Fanyi Xiao, Lemeng Wu, Raghuraman Krishnamoorthi, Bo Dai, Chen
Change Loy, Vikas Chandra, Bilge Soran, CVPR 2025), arXiv 2501.07256.

Follows section 3 and the authors' release (facebookresearch/EdgeTAM): SAM 2 in its first version, with RepViT-M1
(arXiv 2307.09283, timm's) in place of Hiera and two layers of attention to memory, whose cost is that of the cells of
the memory; a 2D spatial perceiver keeps of each frame 256 vectors that have looked at all of it, and 256 of which each
has looked at a window and has its place. State dicts of the release and of transformers' `EdgeTamModel` and
`EdgeTamVideoModel` load as `weights`.

Deviates: see `architectures.promptable.sam2`; vectors without a place are attended to after all that have one, whose
order does not matter.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from segfolio.architectures.promptable.sam2 import SAM2
from segfolio.errors import SegfolioError
from segfolio.layers.memory import MEMORY_DIM, MemoryAttention, sine_positions
from segfolio.layers.prompt_decoder import DIM, STRIDE, check_image_size
from segfolio.layers.prompting import Embedding
from segfolio.layers.tracking import ABSENT, Memory, Recalled, Sighting
from segfolio.weights.edge_tam import load_edge_tam


class EdgeTAM(SAM2):
    """Frames are embedded by convolutions, and remembered by a few vectors.

    Args:
        num_classes: not used, masks are of no class.
        widths: channels of RepViT's four stages.
        depths: blocks of each.
        memory_layers: of the attention to memory.
        latents: vectors that are kept of a frame, of the whole.
        latents_2d: and of its windows; the square of a number that divides the cells of a side, which are 16 pixels.
        perceiver_layers: by which they are made.
        image_size: side of the square to which images are resized, in pixels, a multiple of 32.
        in_channels: of the images.
        fall_back: see `ObjectDecoder`.
        weights: None; or a file with a state dict of the authors' release, `edgetam.pt`, of transformers'
            `EdgeTamModel` or `EdgeTamVideoModel`, or of this network; or a folder or a repository of the hub with such
            a model, e.g. `yonigozlan/EdgeTAM-hf`. Those of an `EdgeTamModel` have no memory: a warning says that it
            begins with random weights.

    Raises:
        SegfolioError: an `image_size` that is no multiple of 32, `latents_2d` that do not divide it; weights that are
            not to be had, or of another network.
    """

    paper: ClassVar[str] = "EdgeTAM (Zhou et al., 2025), arXiv 2501.07256"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"EdgeTAM": {}}
    tiny: ClassVar[dict[str, Any]] = {
        **{"widths": (16, 32, 48, 64), "depths": (1, 1, 1, 1), "latents": 8, "latents_2d": 16, "image_size": 128},
    }

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int] = (48, 96, 192, 384),
        depths: Sequence[int] = (2, 2, 14, 2),
        memory_layers: int = 2,
        latents: int = 256,
        latents_2d: int = 256,
        perceiver_layers: int = 2,
        image_size: int = 1024,
        in_channels: int = 3,
        fall_back: bool = True,
        weights: str | None = None,
    ) -> None:
        check_image_size(image_size, "EdgeTAM", 2 * STRIDE)
        side, cells = isqrt(latents_2d), image_size // STRIDE
        if side < 1 or side**2 != latents_2d or cells % side:
            raise SegfolioError(
                f"latents_2d of EdgeTAM is {latents_2d}, expected the square of a number that divides the {cells} "
                f"cells of a side of {image_size} pixels"
            )
        nn.Module.__init__(self)
        trunk = RepViT(in_channels, widths, depths)
        self._build(trunk, widths, MemoryAttention(DIM, memory_layers), image_size, "2.0", fall_back)
        self.spatial_perceiver = SpatialPerceiver(latents, latents_2d, perceiver_layers)
        if weights is not None:
            load_edge_tam(self, weights)

    def attend(self, embedding: Embedding, recalled: Recalled | None) -> Embedding:
        if recalled is None:
            return super().attend(embedding, None)
        image, *finer = embedding
        kept = recalled.features.to(image.dtype).flatten(3).transpose(2, 3)  # [P, T, latents, 64], see `remember`
        side = self.spatial_perceiver.side
        placed, whole = kept.split([side**2, kept.shape[2] - side**2], 2)
        slot = (recalled.ages.clamp(min=0) - 1) % len(self.maskmem_tpos_enc)  # the last is of prompted frames
        when = self.maskmem_tpos_enc[slot].flatten(2)[:, :, None]
        with torch.no_grad():
            place = sine_positions(side, MEMORY_DIM, image.device).flatten(1).T.to(image.dtype)
        pointers = recalled.pointers.to(image.dtype).unflatten(-1, (-1, MEMORY_DIM))
        memory = torch.cat([each.flatten(1, 2) for each in (placed, whole, pointers)], 1)
        positions = [place + when, when.expand_as(whole), torch.zeros_like(pointers)]
        frames, heard = recalled.ages != ABSENT, ~recalled.distances.isnan()
        each_of = ((frames, placed), (frames, whole), (heard, pointers))
        there = torch.cat([each.repeat_interleave(vectors.shape[2], 1) for each, vectors in each_of], 1)
        known = self.memory_attention(
            image,
            memory,
            torch.cat([each.flatten(1, 2) for each in positions], 1),
            memory.shape[1] - placed.shape[1] * side**2,
            None if bool(there.all()) else there,
            memory_side=side,
        )
        return (known, *(each.expand(len(known), -1, -1, -1) for each in finer))

    def remember(self, embedding: Embedding, sighting: Sighting, image: Tensor, prompted: Tensor) -> Memory:
        """With features `[P, 64, latents_2d + latents, 1]`: those of windows, row by row, and those of the whole."""
        memory = super().remember(embedding, sighting, image, prompted)
        return memory._replace(features=self.spatial_perceiver(memory.features).transpose(1, 2)[..., None])


class RepViT(nn.Module):
    """timm's RepViT: images to the maps of its four stages, of strides 4 to 32."""

    def __init__(self, in_channels: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.body = timm.create_model(
            "repvit_m1",
            features_only=True,
            out_indices=(0, 1, 2, 3),
            in_chans=in_channels,
            embed_dim=tuple(widths),
            depth=tuple(depths),
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.body(images)


class SpatialPerceiver(nn.Module):
    """What is remembered of a frame, in a few vectors (section 3.2): maps `[P, 64, h, h]` to `[P, L, 64]`, of which the
    first are of windows.

    Args:
        latents: vectors that look at the whole map, and know the places of its cells.
        latents_2d: vectors that look at one window each.
        depth: layers, which both share.
    """

    def __init__(self, latents: int, latents_2d: int, depth: int) -> None:
        super().__init__()
        self.side = isqrt(latents_2d)
        self.latents = nn.Parameter(torch.randn(latents, MEMORY_DIM))
        self.latents_2d = nn.Parameter(torch.randn(latents_2d, MEMORY_DIM))
        self.layers = nn.ModuleList(PerceiverLayer(MEMORY_DIM) for _ in range(depth))
        self.norm = nn.LayerNorm(MEMORY_DIM)

    def forward(self, maps: Tensor) -> Tensor:
        count, channels, cells, _ = maps.shape
        with torch.no_grad():
            place = sine_positions(cells, channels, maps.device).flatten(1).T.to(maps.dtype)
        window = cells // self.side
        windows = maps.unflatten(3, (self.side, window)).unflatten(2, (self.side, window))
        windows = windows.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)  # [P * latents_2d, window ** 2, 64]
        whole, placed = self.latents.expand(count, -1, -1), self.latents_2d.repeat(count, 1)[:, None]
        for layer in self.layers:
            whole = layer(whole, maps.flatten(2).transpose(1, 2), place)
            placed = layer(placed, windows)
        return self.norm(torch.cat([placed.unflatten(0, (count, -1)).flatten(2), whole], 1))


class PerceiverLayer(nn.Module):
    """Vectors attend to a map, then to one another (arXiv 2103.03206)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn, self.self_attn = CrossAttention(dim), SelfAttention(dim)
        self.ff, self.self_ff = (
            nn.Sequential(
                nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False)
            )
            for _ in range(2)
        )

    def forward(self, latents: Tensor, cells: Tensor, positions: Tensor | None = None) -> Tensor:
        """`[P, L, C]`, looking at `[P, S, C]`, to `[P, L, C]`.

        Args:
            positions: `[S, C]`, added to keys and to values.
        """
        latents = latents + self.attn(latents, cells, positions)
        latents = latents + self.ff(latents)
        latents = latents + self.self_attn(latents)
        return latents + self.self_ff(latents)


class CrossAttention(nn.Module):
    """Of one head, as the release has it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm_x, self.norm_latents = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, latents: Tensor, cells: Tensor, positions: Tensor | None) -> Tensor:
        k, v = self.to_kv(self.norm_x(cells)).chunk(2, -1)
        if positions is not None:
            k, v = k + positions, v + positions
        return self.to_out(scaled_dot_product_attention(self.to_q(self.norm_latents(latents)), k, v))


class SelfAttention(nn.Module):
    """Of one head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, latents: Tensor) -> Tensor:
        normed = self.norm(latents)
        return self.to_out(scaled_dot_product_attention(self.to_q(normed), *self.to_kv(normed).chunk(2, -1)))
