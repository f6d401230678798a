"""RF-DETR-Seg: RF-DETR: Neural Architecture Search for Real-Time Detection Transformers
(Isaac Robinson, Peter Robicheaux, Matvei Popov, Deva Ramanan, Neehar Peri, 2025), arXiv 2511.09554.

Follows the authors' release (roboflow/rf-detr), after LW-DETR (arXiv 2406.03459): a DINOv2 whose blocks look into
windows, but for three that look at all of the image; a projection of four of its maps to one; the best places of it as
boxes from which the queries of a decoder start; and a mask for each query, the product of what it says with a map of
stride 4 that goes through a block for each layer of the decoder. In training there are 13 groups of queries that do not
see each other, of which the first is left. State dicts of transformers' `RfDetrForInstanceSegmentation` load and give
equal outputs, for square images of whole windows.

Deviates:
- The blocks of the ViT are timm's, in which query, key and value are one weight.
- Windows of images that are not square are parts of them; in transformers rows and columns change places there.
- Images of other sizes are padded on the right and below to whole windows; what is padding, no box starts from and no
  query looks at, and boxes are told in parts of the image without it. Where it ends within a patch, this is counted
  in pixels, in transformers in whole patches. The ViT sees it, as in transformers: windows are parts of the padded
  image, so that what is found in a small one depends on the batch.
- Deformable attention is sampled by `grid_sample`, whose gradient is not deterministic on CUDA.
- Matching compares masks at a sixteenth of the map's cells; transformers takes the number of boxes for that of cells.
- Initial values are the authors', not transformers', in decoder, queries and classes. The paper's networks were trained
  on Objects365 first, from which only the release's weights are.
- The released weights have a row for each id of COCO up to 90; a network of 80 classes takes those that exist. Of
  weights of more queries a network takes the first of each group.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from timm.layers import LayerNorm2d
from timm.layers.patch_embed import resample_patch_embed
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, silu
from torchvision.ops import clip_boxes_to_image

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import pad_to
from segfolio.layers.deformable import BoxDecoder
from segfolio.layers.detection import RARE, Detections, DetectionTarget, Objects, Size
from segfolio.layers.mask_maps import MAP_STRIDE, drawn
from segfolio.layers.prompt_decoder import MLP
from segfolio.layers.vit import load_vit
from segfolio.layers.windowed_vit import windowed_maps, windowed_vit
from segfolio.losses.mask_matching import MaskTarget, corners
from segfolio.losses.over_processes import share_of_each
from segfolio.losses.set_detection import SetLayer, SetWeights, set_losses
from segfolio.precision import full_float32
from segfolio.weights.backbones import released_state
from segfolio.weights.files import load_weights, read_file
from segfolio.weights.hub import SAFE, fetch
from segfolio.weights.rf_detr import OF_CLASSES, of_classes, of_queries, own_names

SIDE, EDGE = 0.05, 0.01  # of the boxes that are proposed, and how far from the border their centres lie, in parts


@dataclass(frozen=True)
class SetRecipe(SetWeights):
    """How queries are matched and weighted in training, see `SetWeights`, and which detections are kept in testing.

    Attributes:
        score_threshold: of detections.
        max_detections: per image, the best pairs of a query and a class.
    """

    score_threshold: float = 0.0
    max_detections: int = 100


class RFDETRSeg(nn.Module):
    """Q queries, each with scores of the classes, a box and a mask.

    Args:
        num_classes: C.
        backbone: timm's name of a plain ViT.
        image_size: side of the images of which the table of positions is.
        patch_size: of the ViT, in pixels.
        windows: in each direction.
        taps: of how many blocks the maps are that are read. The block behind each looks at all of the image.
        num_queries: Q, of each group.
        groups: in training.
        width: of projection, decoder and mask head.
        decoder_layers, heads, box_heads, points, feedforward, dropout: of the decoder.
        mask_feedforward: of what reads masks.
        recipe: of training and testing.
        weights: None; or a tag of timm's weights of `backbone`, e.g. `lvd142m`, whose patches and positions are made
            to fit; or a released model, e.g. `Roboflow/rf-detr-seg-nano`, or a folder like one; or a file with a state
            dict of one of these.

    Raises:
        SegfolioError: an unknown backbone, an image that is not of whole windows, weights that are not to be had or do
            not fit; in training, objects without masks.
    """

    paper: ClassVar[str] = "RF-DETR-Seg (Robinson et al., 2025), arXiv 2511.09554"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "RF-DETR-Seg-N": {},
        "RF-DETR-Seg-S": {"image_size": 384, "windows": 2},
        "RF-DETR-Seg-M": {"image_size": 432, "windows": 2, "decoder_layers": 5, "num_queries": 200},
        "RF-DETR-Seg-L": {"image_size": 504, "windows": 2, "decoder_layers": 5, "num_queries": 200},
        "RF-DETR-Seg-XL": {"image_size": 624, "windows": 2, "decoder_layers": 6, "num_queries": 300},
        "RF-DETR-Seg-2XL": {"image_size": 768, "windows": 2, "decoder_layers": 6, "num_queries": 300},
    }
    tiny: ClassVar[dict[str, Any]] = {
        "backbone": "test_vit",
        "image_size": 64,
        "patch_size": 16,
        "windows": 2,
        "taps": (1, 3, 6),
        "num_queries": 6,
        "groups": 3,
        "width": 32,
        "decoder_layers": 2,
        "heads": 4,
        "box_heads": 4,
        "feedforward": 64,
        "mask_feedforward": 64,
    }

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vit_small_patch14_dinov2",
        image_size: int = 312,
        patch_size: int = 12,
        windows: int = 1,
        taps: Sequence[int] = (3, 6, 9, 12),
        num_queries: int = 100,
        groups: int = 13,
        width: int = 256,
        decoder_layers: int = 4,
        heads: int = 8,
        box_heads: int = 16,
        points: int = 2,
        feedforward: int = 2048,
        dropout: float = 0.0,
        mask_feedforward: int = 1024,
        recipe: SetRecipe = SetRecipe(),
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_queries, self.groups, self.recipe = num_classes, num_queries, groups, recipe
        self.patch, self.windows, self.taps = patch_size, windows, tuple(taps)
        self.weights_of: tuple[str, ...] = ()
        self.vit = windowed_vit(backbone, image_size, patch_size, windows, self.taps)
        self.projector = Projector(len(self.taps) * self.vit.embed_dim, width)
        self.query_feat = nn.Embedding(groups * num_queries, width)
        self.reference_point_embed = nn.Embedding(groups * num_queries, 4)
        self.enc_output = nn.ModuleList(nn.Linear(width, width) for _ in range(groups))
        self.enc_output_norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(groups))
        self.enc_out_class_embed = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(groups))
        self.enc_out_bbox_embed = nn.ModuleList(MLP(width, width, 4) for _ in range(groups))
        self.decoder = BoxDecoder(width, decoder_layers, heads, box_heads, points, feedforward, dropout)
        self.class_embed, self.bbox_embed = nn.Linear(width, num_classes), MLP(width, width, 4)
        self.blocks = nn.ModuleList(MaskBlock(width) for _ in range(decoder_layers))
        self.spatial_features_proj = nn.Conv2d(width, width, 1)
        self.query_features_block = Reader(width, mask_feedforward)
        self.query_features_proj = nn.Linear(width, width)
        self.segmentation_bias = nn.Parameter(torch.zeros(1))
        self._initialise()
        if weights is not None:
            self.load(weights, backbone)

    def forward(
        self, images: Tensor, sizes: list[Size], targets: Sequence[DetectionTarget] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """In training the losses `cls`, `box`, `giou`, `mask` and `dice`, in evaluation what is found in each image.

        Args:
            images: `[B, 3, H, W]`, normalised, zero on the right and below where an image is smaller.
            sizes: height and width of each image without that.
            targets: of each image, in training.
        """
        groups = self.groups if self.training else 1
        layers = self.layers(images, sizes, groups)
        with full_float32(images.device):
            if self.training:
                assert targets is not None
                objects = Objects.of(targets, self.num_classes)
                truth = in_parts(objects, sizes)
                layers = [SetLayer(*(part.float() for part in layer)) for layer in layers]
                (number,) = share_of_each([len(objects.labels) * groups], images.device)
                return set_losses(layers, truth, groups, MAP_STRIDE, self.recipe, number)
            last = (part.float() for part in layers[-1])
            return [self.found(*each) for each in zip(*last, sizes, strict=True)]

    def layers(self, images: Tensor, sizes: Sequence[Size], groups: int) -> list[SetLayer]:
        """What is proposed, in training alone, and what each layer of the decoder says; in evaluation the last."""
        images = pad_to(images, self.patch * self.windows)
        pixels = self.projector(windowed_maps(self.vit, images, self.windows, self.taps))
        extents = torch.tensor(sizes, device=images.device, dtype=torch.float32).flip(1)  # [B, 2], x and y
        parts = extents / torch.tensor(images.shape[:1:-1], device=images.device)
        seen, starts = self.places(extents, (pixels.shape[-2], pixels.shape[-1]))
        proposed, boxes, scores = self.propose(pixels.flatten(2).mT, seen, starts, groups)
        number = boxes.shape[1] // groups
        queries = of_groups(self.query_feat, self.groups, groups, number)
        deltas = of_groups(self.reference_point_embed, self.groups, groups, number)
        references = moved(boxes.detach(), deltas.float())
        in_map = references * parts.repeat(1, 2)[:, None]
        decoded = self.decoder(queries.expand(len(images), -1, -1), in_map, pixels, seen, groups)
        fine = interpolate(pixels, [side // MAP_STRIDE for side in images.shape[-2:]], mode="bilinear")
        layers = [SetLayer(scores, boxes, *self.readers(proposed, fine))] if self.training else []
        for state, block in zip(decoded, self.blocks, strict=True):
            fine = block(fine)
            if self.training or state is decoded[-1]:
                said = moved(references, self.bbox_embed(state).float())
                masks = self.readers(state, self.spatial_features_proj(fine))
                layers.append(SetLayer(self.class_embed(state), said, *masks))
        return layers

    def places(self, extents: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Which patches are of the image, `[B, h, w]` bool, and a box around the centre of each, `[B, h w, 4]`."""
        rows, columns = (self.patch * torch.arange(side, device=extents.device).float() for side in grid)
        corner = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # [h, w, 2]
        seen = (corner < extents[:, None, None]).all(-1)
        centres = (corner + self.patch / 2) / extents[:, None, None]
        return seen, torch.cat([centres, torch.full_like(centres, SIDE)], -1).flatten(1, 2)

    def propose(self, tokens: Tensor, seen: Tensor, starts: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        """For each group the best places of the map: what they say, their boxes, and their scores of the classes.

        Fewer than Q of each group where the image has fewer patches.
        """
        inside = ((starts[..., :2] > EDGE) & (starts[..., :2] < 1 - EDGE)).all(-1) & seen.flatten(1)
        tokens, starts = tokens * inside[..., None], starts * inside[..., None]
        number = min(self.num_queries, tokens.shape[1])
        found = []
        for group in range(groups):
            places = self.enc_output_norm[group](self.enc_output[group](tokens))
            scores = self.enc_out_class_embed[group](places)
            best = scores.amax(-1).masked_fill(~inside, -torch.inf).topk(number).indices[..., None]
            places, scores, start = (
                each.gather(1, best.expand(-1, -1, each.shape[2])) for each in (places, scores, starts)
            )
            found.append((places, moved(start, self.enc_out_bbox_embed[group](places).float()), scores))
        places, boxes, scores = (torch.cat(each, 1) for each in zip(*found, strict=True))
        return places, boxes, scores

    def readers(self, queries: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Whose products are masks; the last channel is the bias."""
        readers = self.query_features_proj(self.query_features_block(queries))
        bias = self.segmentation_bias.to(readers.dtype).expand(*readers.shape[:2], 1)
        return torch.cat([readers, bias], 2), torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)

    def found(self, logits: Tensor, boxes: Tensor, readers: Tensor, pixels: Tensor, size: Size) -> Detections:
        """In one image, best first; a query may be of several classes, and of none if its box lies beyond the image."""
        clipped = clip_boxes_to_image(corners(boxes) * torch.tensor(size[::-1] * 2, device=boxes.device), size)
        (seen,) = (clipped[:, 2:] > clipped[:, :2]).all(1).nonzero(as_tuple=True)
        scores = logits[seen].sigmoid().flatten()
        scores, chosen = scores.topk(min(self.recipe.max_detections, len(scores)))
        chosen = chosen[scores > self.recipe.score_threshold]
        query, label = seen[chosen // self.num_classes], chosen % self.num_classes
        masks = drawn(readers[query], pixels)
        return Detections(clipped[query], label, scores[: len(chosen)], masks, MAP_STRIDE, threshold=0.0)

    def load(self, weights: str, backbone: str) -> None:
        """Load weights of all, or of the ViT alone.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        from transformers import RfDetrForInstanceSegmentation

        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone}.*")]
        if Path(weights).is_file():
            state = read_file(Path(weights))
        elif weights in tags:
            state = read_file(fetch(get_pretrained_cfg(f"{backbone}.{weights}").hf_hub_id, SAFE) / SAFE)
        elif Path(weights).is_dir() or "/" in weights:
            state = released_state(RfDetrForInstanceSegmentation, weights)
        else:
            raise SegfolioError(
                f"{weights} is neither a file, nor a repository of the hub, nor a tag of timm's weights for {backbone} "
                f"({', '.join(tags) or 'none'})"
            )
        if "patch_embed.proj.weight" in state:  # timm's
            kernel = resample_patch_embed(state["patch_embed.proj.weight"], [self.patch, self.patch])
            load_vit(self.vit, {**state, "patch_embed.proj.weight": kernel}, weights)
            return
        state = of_queries(own_names(state, weights), self.num_queries, self.groups)
        state, self.weights_of = of_classes(state, self.num_classes)
        new = () if "class_embed.bias" in state else tuple(key for key in self.state_dict() if OF_CLASSES.match(key))
        if new:
            warnings.warn(
                f"{weights} is not of the {self.num_classes} classes here; the layers of classes start anew",
                stacklevel=3,
            )
        load_weights(self, state, weights, new=new)

    def _initialise(self) -> None:
        """The authors' initial values: all groups propose alike at first, and boxes stay where they are."""
        self.decoder.initialise()
        nn.init.zeros_(self.reference_point_embed.weight)
        for linear in self.enc_output:
            nn.init.xavier_uniform_(linear.get_parameter("weight"))
        nn.init.constant_(self.class_embed.bias, RARE)
        for zero in self.bbox_embed.layers[-1].parameters():
            nn.init.zeros_(zero)
        for classes, boxes in zip(self.enc_out_class_embed, self.enc_out_bbox_embed, strict=True):
            classes.load_state_dict(self.class_embed.state_dict())
            boxes.load_state_dict(self.bbox_embed.state_dict())


class Projector(nn.Module):
    """Maps of the ViT, side by side, to one of `width` channels: a cross-stage partial stage of three blocks."""

    def __init__(self, channels: int, width: int, depth: int = 3) -> None:
        super().__init__()
        hidden = width // 2
        self.conv1, self.conv2 = ConvNorm(channels, 2 * hidden, 1), ConvNorm((2 + depth) * hidden, width, 1)
        self.bottlenecks = nn.ModuleList(Bottleneck(hidden) for _ in range(depth))
        self.layer_norm = LayerNorm2d(width, eps=1e-6)

    def forward(self, maps: list[Tensor]) -> Tensor:
        found = list(self.conv1(torch.cat(maps, 1)).chunk(2, 1))
        for block in self.bottlenecks:
            found.append(block(found[-1]))
        return self.layer_norm(self.conv2(torch.cat(found, 1)))


class ConvNorm(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
        self.norm = LayerNorm2d(out, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return silu(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvNorm(channels, channels, 3), ConvNorm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class MaskBlock(nn.Module):
    """A depthwise convolution and a linear layer, added to the map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.layernorm, self.pointwise_conv = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.depthwise_conv(x).permute(0, 2, 3, 1)
        return x + gelu(self.pointwise_conv(self.layernorm(cells))).permute(0, 3, 1, 2)


class Reader(nn.Module):
    """A perceptron, added to the queries."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, queries: Tensor) -> Tensor:
        return queries + self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm(queries))))


def of_groups(table: nn.Embedding, of: int, groups: int, number: int) -> Tensor:
    """The first `number` rows of each of the first of `of` groups of `table`, `[groups * number, D]`."""
    return table.weight.unflatten(0, (of, -1))[:groups, :number].flatten(0, 1)


def moved(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Boxes `[..., 4]`, their centres moved in parts of their sides, and these by factors e^delta."""
    centre, sides = boxes.split(2, -1)
    return torch.cat([centre + deltas[..., :2] * sides, sides * deltas[..., 2:].exp()], -1)


def in_parts(objects: Objects, sizes: Sequence[Size]) -> list[MaskTarget]:
    """The objects of each image, with boxes as centre and sides in parts of the image."""
    found = []
    for place, ((height, width), masks) in enumerate(zip(sizes, objects.masks, strict=True)):
        own = objects.image == place
        low, high = objects.boxes[own].float().split(2, 1)
        extent = torch.tensor([width, height] * 2, device=low.device)
        boxes = torch.cat([(low + high) / 2, high - low], 1) / extent
        found.append(MaskTarget(objects.labels[own], masks, boxes=boxes))
    return found
