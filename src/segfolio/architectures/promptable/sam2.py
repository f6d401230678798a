"""SAM 2: Segment Anything in Images and Videos
(Nikhila Ravi, Valentin Gabeur, Yuan-Ting Hu, Ronghang Hu, Chaitanya Ryali, Tengyu Ma, Haitham Khedr, Roman Rädle, Chloe
Rolland, Laura Gustafson, Eric Mintun, Junting Pan, Kalyan Vasudev Alwala, Nicolas Carion, Chao-Yuan Wu, Ross Girshick,
Piotr Dollár, Christoph Feichtenhofer, ICLR 2025), arXiv 2408.00714.

Follows section 4, appendix D and the authors' release (facebookresearch/sam2) in both its versions: Hiera and a feature
pyramid, SAM's prompts, a decoder that reads finer features and says whether the object is there, and a memory of
frames, masks and pointers. An image is a video of one frame, see `layers.tracking`. State dicts of the release and of
transformers' `Sam2Model` and `Sam2VideoModel` load as `weights`.

Deviates:
- The convolutions that project the finer features belong to the image encoder, so that an embedding holds what they
  make: the release has them in the decoder. `no_mem_pos_enc`, which the release keeps unused, is not here.
- Padding among prompts is left out of attention, where transformers attends to zeros, and the release does not pad.
- A mask alone has no token, as in the release's predictor of images; transformers adds two of "not a point".
- Images of any size that is a multiple of 32; the tables of positions do not depend on it.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segfolio.layers.hiera import Hiera, Neck
from segfolio.layers.memory import MEMORY_DIM, MemoryAttention, MemoryEncoder, sine_distances, sine_positions
from segfolio.layers.object_decoder import ObjectDecoder
from segfolio.layers.prompt_decoder import DIM, MLP, STRIDE, check_image_size, padded_square
from segfolio.layers.prompt_encoder import PromptEncoder
from segfolio.layers.prompting import NO_POINT, Embedding, PromptInput, Reading
from segfolio.layers.tracking import ABSENT, NOTHING, Memory, Recalled, Sighting, TrackingNetwork
from segfolio.weights.sam2 import load_sam2

SMALL: dict[str, Any] = {"stages": (1, 2, 11, 2), "global_blocks": (7, 10, 13)}
BASE: dict[str, Any] = {
    **{"width": 112, "heads": 2, "stages": (2, 3, 16, 3), "global_blocks": (12, 16, 20), "background": 14}
}
LARGE: dict[str, Any] = {
    **{"width": 144, "heads": 2, "stages": (2, 6, 36, 4), "global_blocks": (23, 33, 43), "windows": (8, 4, 16, 8)}
}
SURE = 10.0  # the logit of a mask that was given


class SAM2(TrackingNetwork):
    """Frames are embedded once, asked by points, boxes and masks, and remembered.

    Of T, S, B+ and L the authors publish 38.9, 46, 80.8 and 224.4 M parameters.

    Args:
        num_classes: not used, masks are of no class.
        width: channels of Hiera's first stage.
        heads: of its attention.
        stages: blocks of each of its four stages.
        global_blocks: that attend to the whole image; the others to windows.
        windows: side of these in each stage, in cells.
        background: side of its coarse table of positions.
        memory_layers: of the attention to memory.
        memory_mlp: width of their MLPs.
        memory_dropout: in them, in training.
        version: "2.1", or "2.0", which does not mark frames in which the object is not there, nor how long ago a
            pointer was.
        image_size: side of the square to which images are resized, in pixels, a multiple of 32.
        in_channels: of the images.
        drop_path: stochastic depth of Hiera's last block; it grows linearly from 0 at the first.
        fall_back: see `ObjectDecoder`.
        checkpointing: compute Hiera's blocks a second time in the backward pass, and keep less.
        weights: None; or a file with a state dict of the authors' release, e.g. `sam2.1_hiera_tiny.pt`, of
            transformers' `Sam2Model` or `Sam2VideoModel`, or of this network; or a folder or a repository of the hub
            with such a model, e.g. `facebook/sam2.1-hiera-tiny`. Those of a `Sam2Model` have no memory: a warning says
            that it begins with random weights.

    Raises:
        SegfolioError: an `image_size` that is no multiple of 32; weights that are not to be had, or of another SAM 2.
    """

    paper: ClassVar[str] = "SAM 2 (Ravi et al., 2024), arXiv 2408.00714"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "SAM 2.1, Hiera-T": {},
        "SAM 2.1, Hiera-S": SMALL,
        "SAM 2.1, Hiera-B+": BASE,
        "SAM 2.1, Hiera-L": LARGE,
        "SAM 2, Hiera-T": {"version": "2.0"},
        "SAM 2, Hiera-S": {**SMALL, "version": "2.0"},
        "SAM 2, Hiera-B+": {**BASE, "version": "2.0"},
        "SAM 2, Hiera-L": {**LARGE, "version": "2.0"},
    }
    tiny: ClassVar[dict[str, Any]] = {
        **{"width": 32, "stages": (1, 1, 2, 1), "global_blocks": (3,), "windows": (8, 4, 6, 3), "background": 5},
        **{"memory_layers": 2, "image_size": 128},
    }
    memory_frames, pointer_frames = 6, 15
    through_square = False
    image_encoder: "ImageEncoder"

    def __init__(
        self,
        num_classes: int,
        width: int = 96,
        heads: int = 1,
        stages: Sequence[int] = (1, 2, 7, 2),
        global_blocks: Sequence[int] = (5, 7, 9),
        windows: Sequence[int] = (8, 4, 14, 7),
        background: int = 7,
        memory_layers: int = 4,
        memory_mlp: int = 2048,
        memory_dropout: float = 0.1,
        version: Literal["2.1", "2.0"] = "2.1",
        image_size: int = 1024,
        in_channels: int = 3,
        drop_path: float = 0.0,
        fall_back: bool = True,
        checkpointing: bool = False,
        weights: str | None = None,
    ) -> None:
        check_image_size(image_size, "SAM 2", 2 * STRIDE)
        super().__init__()
        trunk = Hiera(in_channels, width, heads, stages, windows, global_blocks, background, drop_path, checkpointing)
        attention = MemoryAttention(DIM, memory_layers, memory_mlp, memory_dropout)
        self._build(trunk, trunk.channels, attention, image_size, version, fall_back)
        if weights is not None:
            load_sam2(self, weights, self.variants)

    def _build(
        self,
        trunk: nn.Module,
        channels: Sequence[int],
        memory_attention: MemoryAttention,
        image_size: int,
        version: str,
        fall_back: bool,
    ) -> None:
        """All parts, with a trunk that gives maps of these channels, of strides 4, 8, 16 and 32."""
        self.image_size, self.mask_size = image_size, image_size // 4
        self.image_encoder = ImageEncoder(trunk, channels)
        self.prompt_encoder = PromptEncoder(DIM, image_size, STRIDE, box_padding=True)
        self.mask_decoder = ObjectDecoder(DIM, fall_back)
        self.memory_attention = memory_attention
        self.memory_encoder = MemoryEncoder(DIM)
        self.maskmem_tpos_enc = nn.Parameter(_normal(self.memory_frames + 1, 1, 1, MEMORY_DIM))
        self.no_mem_embed = nn.Parameter(_normal(1, 1, DIM))
        self.no_obj_ptr = nn.Parameter(_normal(1, DIM))
        self.mask_downsample = nn.Conv2d(1, 1, 4, stride=4)
        self.obj_ptr_proj = MLP(DIM, DIM, DIM)
        if version == "2.1":
            self.no_obj_embed_spatial = nn.Parameter(_normal(1, MEMORY_DIM))
            self.obj_ptr_tpos_proj = nn.Linear(DIM, MEMORY_DIM)
        self.version = version

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """A square, whatever the image's proportions are."""
        return self.image_size, self.image_size

    def embed(self, images: Tensor) -> Embedding:
        """Of strides 16, 8 and 4: `[B, 256, h, h]`, `[B, 64, 2h, 2h]`, `[B, 32, 4h, 4h]`."""
        return self.image_encoder(padded_square(images, self.image_size))

    def attend(self, embedding: Embedding, recalled: Recalled | None) -> Embedding:
        image, *finer = embedding
        if recalled is None:
            return (image + self.no_mem_embed.transpose(1, 2)[..., None], *finer)
        memory, positions, pointers = self._memory(recalled)
        frames, heard = recalled.ages != ABSENT, ~recalled.distances.isnan()
        parts = [(frames, (memory.shape[1] - pointers) // frames.shape[1]), (heard, DIM // MEMORY_DIM)]
        there = torch.cat([each.repeat_interleave(tokens, 1) for each, tokens in parts], 1)
        attended = None if bool(there.all()) else there
        known = self.memory_attention(image, memory, positions, pointers, attended)
        return (known, *(each.expand(len(known), -1, -1, -1) for each in finer))

    def answer(self, embedding: Embedding, prompts: PromptInput, multimask: bool = True) -> Reading:
        image, eight, four = embedding
        tokens, positions = self.prompt_encoder(prompts), self.prompt_encoder.positions()
        if self.training:  # a network that sees images alone has no use for its memory, and DDP waits for all
            tokens = tokens._replace(dense=tokens.dense + 0 * self._unused())
        return self.mask_decoder.read_finely(image, (eight, four), positions, tokens, prompts.image, multimask)

    def draw(self, reading: Reading, keep: Tensor | None = None) -> Tensor:
        return self.mask_decoder.draw(reading, keep)

    def sight(self, reading: Reading, masks: Tensor | None = None) -> Sighting:
        iou, place = reading.iou.max(1)
        row = torch.arange(len(place), device=place.device)
        if masks is None:
            masks = self.draw(reading, nn.functional.one_hot(place, reading.iou.shape[1]).bool())
        else:
            masks = masks[row, place]
        assert reading.object_score is not None
        there = reading.object_score > 0
        pointer = self.obj_ptr_proj(reading.state[0][row, place])
        return Sighting(
            masks.where(there[:, None, None], NOTHING), iou, reading.object_score, self._pointer(pointer, there)
        )

    def take(self, embedding: Embedding, masks: Tensor, image: Tensor) -> Sighting:
        given = masks.to(self.no_obj_ptr.dtype)
        there = masks.flatten(1).any(1)
        kinds = torch.full_like(image[:, None], NO_POINT)
        nowhere = given.new_zeros(len(image), 1, 2)
        prompts = PromptInput(image, nowhere, kinds, masks=self.mask_downsample(given[:, None])[:, 0])
        pointer = self.sight(self.answer(embedding, prompts, multimask=False)).pointer
        logits = (2 * SURE * given - SURE)[:, None]
        size = (self.mask_size, self.mask_size)
        drawn = interpolate(logits.float(), size, mode="bilinear", antialias=True)[:, 0].to(logits.dtype)
        score = 2 * SURE * there.to(drawn.dtype) - SURE
        return Sighting(drawn, torch.ones_like(score), score, self._pointer(pointer, there))

    def remember(self, embedding: Embedding, sighting: Sighting, image: Tensor, prompted: Tensor) -> Memory:
        size = (self.image_size, self.image_size)
        masks = interpolate(sighting.masks[:, None], size, mode="bilinear")[:, 0]
        drawn = masks.sigmoid()
        if not self.training:
            drawn = torch.where(prompted[:, None, None], (masks > 0).to(drawn.dtype), drawn)
        features = self.memory_encoder(embedding[0], image, 2 * SURE * drawn - SURE)
        if self.version == "2.1":
            absent = (sighting.object_score <= 0)[:, None, None, None]
            features = features + absent * self.no_obj_embed_spatial[..., None, None]
        return Memory(features, sighting.pointer)

    def _memory(self, recalled: Recalled) -> tuple[Tensor, Tensor, int]:
        """What is attended to and its positions, `[P, S, 64]`, and how many at the end are of pointers, four of
        each."""
        side = recalled.features.shape[-1]
        cells = recalled.features.to(self.no_obj_ptr.dtype).flatten(3).transpose(2, 3)  # [P, T, h * w, 64]
        with torch.no_grad():
            place = sine_positions(side, MEMORY_DIM, cells.device).flatten(1).T.to(cells.dtype)
        slot = (recalled.ages.clamp(min=0) - 1) % len(self.maskmem_tpos_enc)  # the last is of prompted frames
        positions = place + self.maskmem_tpos_enc[slot].flatten(2)[:, :, None]
        pointers = recalled.pointers.to(cells.dtype).unflatten(-1, (DIM // MEMORY_DIM, MEMORY_DIM))
        count = pointers.shape[1] * pointers.shape[2]
        if self.version == "2.1":
            parts = recalled.distances.nan_to_num() / recalled.furthest
            when = self.obj_ptr_tpos_proj(sine_distances(parts, DIM).to(cells.dtype))
        else:
            when = cells.new_zeros(*recalled.distances.shape, MEMORY_DIM)
        when = when[:, :, None].expand(-1, -1, pointers.shape[2], -1)
        memory = torch.cat([cells.flatten(1, 2), pointers.flatten(1, 2)], 1)
        return memory, torch.cat([positions.flatten(1, 2), when.flatten(1, 2)], 1), count

    def _pointer(self, pointer: Tensor, there: Tensor) -> Tensor:
        return torch.where(there[:, None], pointer, self.no_obj_ptr)

    def _unused(self) -> Tensor:
        """The sum of what an image's masks do not depend on."""
        beside = ("image_encoder.", "prompt_encoder.", "mask_decoder.", "no_mem_embed")
        return torch.stack([p.sum() for name, p in self.named_parameters() if not name.startswith(beside)]).sum()


class ImageEncoder(nn.Module):
    """A trunk, as Hiera, its pyramid, and the projections of its finer features: `[B, C_in, H, W]` to
    `[B, 256, H / 16, W / 16]`, `[B, 64, H / 8, W / 8]` and `[B, 32, H / 4, W / 4]`."""

    def __init__(self, trunk: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        self.trunk, self.neck = trunk, Neck(channels, DIM)
        self.conv_s0, self.conv_s1 = nn.Conv2d(DIM, DIM // 8, 1), nn.Conv2d(DIM, DIM // 4, 1)

    def forward(self, images: Tensor) -> Embedding:
        four, eight, sixteen = self.neck(self.trunk(images))
        return sixteen, self.conv_s1(eight), self.conv_s0(four)


def _normal(*shape: int) -> Tensor:
    return nn.init.trunc_normal_(torch.empty(shape), std=0.02)
