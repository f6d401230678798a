"""Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks
(Shaoqing Ren, Kaiming He, Ross Girshick, Jian Sun, NeurIPS 2015), arXiv 1506.01497; with the feature pyramid of
Lin et al. (CVPR 2017), arXiv 1612.03144, by default.

Follows the paper's sections 3.1 to 3.3, trained in one, with the RoIAlign and the sampling of Mask R-CNN's release
(Detectron). Built on torchvision's parts, under their names: state dicts of `fasterrcnn_resnet50_fpn` and, with
`variants["Faster R-CNN, R50-FPN v2"]`, of `fasterrcnn_resnet50_fpn_v2` load as they are and give equal outputs.

Deviates:
- ResNets stride in the 3x3 convolution of a block, as torchvision's and timm's weights do; the authors' in the 1x1.
- The loss of a region's box turns from quadratic to linear at 1/9 instead of 1, as in torchvision; `roi.beta` sets it.
- The last layers of scores and boxes start as torch's linear layers do, as in torchvision; the authors' from normal
  distributions of deviations 0.01 and 0.001.
- Crowds are no objects and no excuse: anchors and proposals in them are negative, as in torchvision and Detectron2;
  Detectron leaves out those that lie in one.
- Proposals are kept per image, Detectron's per batch in training.
- DC5 dilates all but the first block of res5, as torchvision does; Detectron2 that one too.
- torchvision's COCO weights have 91 classes, ten of which do not exist; a network of 80 classes takes the others, one
  of another number all weights but those of classes.
- torchvision trained its first COCO weights without the epsilon of frozen BatchNorm. It is 0 with these, by name or as
  the released file; a state dict that torchvision saved anew does not tell, and gets the usual 1e-5.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import pad_to
from segfolio.layers.detection import Detections, DetectionTarget, Size
from segfolio.layers.proposals import ProposalNetwork, ProposalRecipe
from segfolio.layers.pyramid import Features, HeadNorm, Norm, Pyramid, norm_layer, res5
from segfolio.layers.region_pool import RegionPool
from segfolio.layers.regions import Predictor, RegionHeads, RegionRecipe
from segfolio.weights.backbones import load_body, load_classifier
from segfolio.weights.files import load_weights, read_weights

C4: dict[str, Any] = {
    "neck": "c4",
    "rpn": ProposalRecipe(anchor_sizes=((32, 64, 128, 256, 512),), before_nms=(12000, 6000), after_nms=(2000, 300)),
    "roi": RegionRecipe(samples=64),
}
V2: dict[str, Any] = {"norm": "batch", "head_norm": "batch", "rpn": ProposalRecipe(convs=2), "box_convs": 4}
OLD_NAMES: tuple[tuple[re.Pattern[str], Any], ...] = (  # in torchvision's released files
    (re.compile(r"^(rpn\.head\.conv)\.(\w+)$"), r"\1.0.0.\2"),
    (re.compile(r"^(backbone\.fpn\.\w+_blocks\.\d)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"mask_fcn(\d)\.(\w+)$"), lambda match: f"{int(match[1]) - 1}.0.{match[2]}"),
)
OF_CLASSES = re.compile(r"box_predictor\.|mask_fcn_logits")
COCO: tuple[str, ...] = tuple(get_model_weights("fasterrcnn_resnet50_fpn")["COCO_V1"].meta["categories"])


class FasterRCNN(nn.Module):
    """Regions are proposed, then classified and their boxes refined.

    Args:
        num_classes: C, without background.
        backbone: timm's name. With `fpn` any network with features of strides 4 to 32; else a ResNet.
        neck: what regions are pooled from. `fpn`: the pyramid, followed by two linear layers; `c4`: features of stride
            16, followed by res5; `dc5`: dilated res5 of stride 16, followed by two linear layers. The latter two take
            one row of `rpn.anchor_sizes`.
        norm: of the backbone. `frozen` needs weights; from scratch take `group`, or `batch` for large batches.
        head_norm: of the pyramid and of the heads' convolutions.
        frozen_stride: layers of the backbone up to this stride are not trained; 0 from scratch.
        rpn, roi: the sampling and the thresholds of the two stages.
        box_convs: 3x3 convolutions before the linear layers, which are then one instead of two.
        channels: of the pyramid and of the heads' convolutions; c4 and dc5 have no pyramid.
        head_channels: of the linear layers.
        weights: None; or a name of torchvision's weights of this detector (`COCO_V1`) or of `backbone`
            (`IMAGENET1K_V1`); or a tag of timm's weights for `backbone`; or a file with the state dict of one of these.

    Attributes:
        weights_of: the names of the classes whose weights were loaded, in their order; none where they are not known.

    Raises:
        SegfolioError: an unknown backbone or one that has not what the neck needs, anchors of another number of
            feature maps, weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "Faster R-CNN (Ren et al., 2015), arXiv 1506.01497"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "Faster R-CNN, R50-FPN": {},
        "Faster R-CNN, R101-FPN": {"backbone": "resnet101"},
        "Faster R-CNN, X101-32x8d-FPN": {"backbone": "resnext101_32x8d"},
        "Faster R-CNN, R50-FPN v2": V2,
        "Faster R-CNN, R50-C4": C4,
        "Faster R-CNN, R101-C4": {"backbone": "resnet101", **C4},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "channels": 16, "head_channels": 32}
    released: ClassVar[str] = "fasterrcnn_resnet50_fpn"
    learns_masks: ClassVar[bool] = False

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        neck: Literal["fpn", "c4", "dc5"] = "fpn",
        norm: Norm = "frozen",
        head_norm: HeadNorm = "none",
        frozen_stride: int = 4,
        rpn: ProposalRecipe = ProposalRecipe(),  # noqa: B008  it is immutable
        roi: RegionRecipe = RegionRecipe(),  # noqa: B008
        box_convs: int = 0,
        channels: int = 256,
        head_channels: int = 1024,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.neck, self.head_norm, self.recipe = neck, head_norm, roi
        self.channels, self.head_channels = channels, head_channels
        self.weights_of: tuple[str, ...] = ()
        self.backbone: Any = (
            Pyramid(backbone, norm, frozen_stride, channels, head_norm)
            if neck == "fpn"
            else Features(backbone, 16, norm, frozen_stride, dilated=neck == "dc5")
        )
        maps = len(self.backbone.strides) + (neck == "fpn")
        if len(rpn.anchor_sizes) != maps:
            raise SegfolioError(f"rpn.anchor_sizes has {len(rpn.anchor_sizes)} rows; {neck} has {maps} feature maps")
        self.rpn = ProposalNetwork(self.backbone.out_channels, rpn)
        if neck == "c4":
            box_head, width = res5(backbone, norm)
        else:
            box_head, width = self.linear_head(box_convs), head_channels
        self.roi_heads = self.make_heads(num_classes, roi, box_head, width, box_convs)
        if weights is not None:
            self._load(weights, backbone, num_classes, self.released + ("_v2" if box_convs else ""))

    def linear_head(self, convs: int) -> nn.Module:
        """Pooled features `[N, D, 7, 7]` to `[N, head_channels]`."""
        channels = self.backbone.out_channels
        if not convs:
            return TwoMLPHead(channels * 49, self.head_channels)
        layers = [self.channels] * convs, [self.head_channels]
        return FastRCNNConvFCHead((channels, 7, 7), *layers, norm_layer=norm_layer(self.head_norm))

    def make_heads(
        self, num_classes: int, recipe: RegionRecipe, box_head: nn.Module, width: int, box_convs: int
    ) -> RegionHeads:
        """The second stage; `box_head` gives `width` channels."""
        return RegionHeads(
            recipe, self.box_pool(), box_head, Predictor(width, num_classes), *self.masks(num_classes, width)
        )

    def box_pool(self) -> nn.Module:
        return self.pool(14 if self.neck == "c4" else 7)

    def pool(self, size: int) -> nn.Module:
        return RegionPool(self.backbone.strides, size, self.recipe.sampling_ratio, self.recipe.aligned)

    def masks(self, num_classes: int, width: int) -> tuple[nn.Module | None, nn.Module | None, nn.Module | None]:
        """The pool, head and predictor of masks; the first two are None where masks share `box_head` of `width`."""
        return None, None, None

    def forward(
        self, images: Tensor, sizes: list[Size], targets: Sequence[DetectionTarget] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """In training the losses by name, in evaluation what is found in each image.

        Args:
            images: `[B, 3, H, W]`, normalised, zero on the right and below where an image is smaller.
            sizes: height and width of each image without that.
            targets: of each image, in training.
        """
        images = pad_to(images, 32)
        features = self.backbone(images)
        proposals, losses = self.rpn.propose(images, features, sizes, targets)
        if self.training:
            assert targets is not None  # the proposal network has asked for them
            return losses | self.roi_heads.losses(features, proposals, sizes, targets)
        return self.roi_heads.detect(features, proposals, sizes)

    def _load(self, weights: str, backbone: str, num_classes: int, released: str) -> None:
        names = get_model_weights(released).__members__
        if weights in names or Path(weights).is_file():
            stored = read_weights(weights, released)
            state = current_names(stored)
            if any(key.startswith("roi_heads.") for key in state):
                self._load_detector(weights, state, num_classes)
                if state.keys() != stored.keys() or (weights in names and not released.endswith("_v2")):
                    overwrite_eps(self, 0.0)  # as they were trained
                return
        load_classifier(self, weights, backbone, partial(self._load_backbone, weights))

    def _load_detector(self, weights: str, state: dict[str, Tensor], num_classes: int) -> None:
        rows = len(state.get("roi_heads.box_predictor.cls_score.bias", ()))
        new: tuple[str, ...] = ()
        if rows == len(COCO):
            state, self.weights_of = existing_classes(state, num_classes)
        if rows not in (0, num_classes + 1) and not self.weights_of:
            warnings.warn(
                f"{weights}: its {rows - 1} classes are not the {num_classes} here; the layers of classes start anew",
                stacklevel=2,
            )
            state = {key: value for key, value in state.items() if not OF_CLASSES.search(key)}
            new = tuple(key for key in self.state_dict() if OF_CLASSES.search(key))
        load_weights(self, state, weights, new=new)

    def _load_backbone(self, weights: str, state: Mapping[str, Tensor]) -> None:
        load_body(self.backbone.body, state, weights)
        if self.neck == "c4":
            last = {key.removeprefix("layer4."): value for key, value in state.items() if key.startswith("layer4.")}
            load_body(self.roi_heads.box_head, last, weights)


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of torchvision's under the names of its present networks."""
    renamed = {}
    for key, value in state.items():
        for pattern, name in OLD_NAMES:
            key = pattern.sub(name, key)
        renamed[key] = value
    return renamed


def existing_classes(state: dict[str, Tensor], num_classes: int) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """torchvision's 91 classes as `num_classes`: all but the background, or the 80 that exist; and their names.

    Of another number the state is as it was, and there are no names.
    """
    if num_classes == len(COCO) - 1:
        return state, COCO[1:]
    used = [place for place, name in enumerate(COCO) if name != "N/A"]
    if num_classes != len(used) - 1:
        return state, ()
    kept = {
        key: value.unflatten(0, (len(COCO), -1))[used].flatten(0, 1) if OF_CLASSES.search(key) else value
        for key, value in state.items()
    }
    return kept, tuple(COCO[place] for place in used[1:])
