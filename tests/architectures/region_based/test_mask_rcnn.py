"""Faster and Mask R-CNN equal torchvision's under the same weights, in what they find and in their losses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection, get_model_weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from segfolio.architectures.region_based.cascade_rcnn import CascadeRCNN
from segfolio.architectures.region_based.faster_rcnn import V2, FasterRCNN
from segfolio.architectures.region_based.mask_rcnn import MaskRCNN
from segfolio.layers.proposals import ProposalRecipe
from segfolio.layers.regions import RegionRecipe
from tests.architectures.test_detection_contract import target

SIZES = [(96, 128), (80, 120)]
PAIRS = {
    "fasterrcnn_resnet50_fpn": (FasterRCNN, {"norm": "batch"}),
    "fasterrcnn_resnet50_fpn_v2": (FasterRCNN, V2),
    "maskrcnn_resnet50_fpn": (MaskRCNN, {"norm": "batch"}),
    "maskrcnn_resnet50_fpn, frozen": (MaskRCNN, {}),
    "maskrcnn_resnet50_fpn_v2": (MaskRCNN, V2),
}
every_pair = pytest.mark.parametrize("name", PAIRS)


def pair(name: str) -> tuple[nn.Module, Any]:
    """Ours and torchvision's, of 4 classes, with the same random weights."""
    torch.manual_seed(0)
    few = {"box_batch_size_per_image": 32, "rpn_post_nms_top_n_train": 40, "rpn_post_nms_top_n_test": 30}
    theirs: Any
    if name.endswith("frozen"):  # which torchvision takes with weights alone
        theirs = detection.MaskRCNN(resnet_fpn_backbone(backbone_name="resnet50", weights=None), 5, **few)
        for layer in theirs.modules():
            if isinstance(layer, FrozenBatchNorm2d):
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.fill_(0.8)
    else:
        theirs = detection.__dict__[name](weights=None, weights_backbone=None, num_classes=5, **few)
    nn.init.normal_(theirs.roi_heads.box_predictor.cls_score.weight, std=0.3)  # else all scores are alike
    cls, arguments = PAIRS[name]
    rpn = replace(arguments.get("rpn", ProposalRecipe()), after_nms=(40, 30))
    ours = cls(4, **{**arguments, "rpn": rpn}, frozen_stride=0, roi=RegionRecipe(samples=32))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def images() -> Tensor:
    batch = torch.zeros(2, 3, 96, 128)
    for image, (height, width) in zip(batch, SIZES, strict=True):
        image[:, :height, :width] = torch.randn(3, height, width, generator=torch.Generator().manual_seed(1))
    return batch


@every_pair
def test_detections_and_losses_are_torchvisions(name: str) -> None:
    ours, theirs = pair(name)
    with torch.no_grad():
        found = ours.eval()(images(), SIZES)
        theirs.eval()
        features = theirs.backbone(images())
        proposals, _ = theirs.rpn(ImageList(images(), SIZES), features)
        expected, _ = theirs.roi_heads(features, proposals, SIZES)
    for mine, other in zip(found, expected, strict=True):
        assert len(mine.boxes) > 10
        assert torch.equal(mine.labels + 1, other["labels"])
        torch.testing.assert_close(mine.boxes, other["boxes"], rtol=1e-5, atol=1e-4)  # of pixels
        torch.testing.assert_close(mine.scores, other["scores"], rtol=0, atol=1e-5)
        if "masks" in other:
            torch.testing.assert_close(mine.masks, other["masks"][:, 0], rtol=0, atol=1e-5)

    wanted = [target(SIZES[0], (10, 12, 50, 60, 0), (70, 30, 110, 90, 3)), target(SIZES[0])]
    truth = [{"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks.byte()} for t in wanted]
    with torch.no_grad():
        torch.manual_seed(2)
        losses = ours.train()(images(), SIZES, wanted)
        theirs.train()
        torch.manual_seed(2)
        features = theirs.backbone(images())
        proposals, first = theirs.rpn(ImageList(images(), SIZES), features, truth)
        _, second = theirs.roi_heads(features, proposals, SIZES, truth)
    expected = [*first.values(), *second.values()]
    assert list(losses) == ["rpn_cls", "rpn_box", "cls", "box", "mask"][: len(expected)]
    assert min(expected) > 0
    torch.testing.assert_close(list(losses.values()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("cls", "variant", "millions"),
    [
        (FasterRCNN, "Faster R-CNN, R50-FPN", 41.76),  # torchvision's published counts, here and below
        (FasterRCNN, "Faster R-CNN, R50-FPN v2", 43.71),
        (MaskRCNN, "Mask R-CNN, R50-FPN", 44.40),
        (MaskRCNN, "Mask R-CNN, R50-FPN v2", 46.36),
        (MaskRCNN, "Mask R-CNN, X101-32x8d-FPN", 107.49),
        (MaskRCNN, "Mask R-CNN, X101-64x4d-FPN", 102.15),
        (MaskRCNN, "Mask R-CNN, R50-C4", 36.08),
        (MaskRCNN, "Mask R-CNN, R101-C4", 55.07),
    ],
)
def test_parameters(cls: Any, variant: str, millions: float) -> None:
    arguments = {**cls.variants[variant], "norm": "batch"}
    if variant.endswith("FPN"):
        arguments["norm"] = "frozen"  # as torchvision counts
    with torch.device("meta"):
        network = cls(90, **arguments)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


def test_c4_shares_res5_between_classes_boxes_and_masks() -> None:
    with torch.device("meta"):
        network = MaskRCNN(80, **MaskRCNN.variants["Mask R-CNN, R50-C4"])
    heads = network.roi_heads
    assert heads.mask_head is None
    assert heads.mask_predictor.conv5_mask.in_channels == heads.box_head[-1].conv3.out_channels == 2048
    assert not any(name.startswith("layer4") for name, _ in network.backbone.body.named_children())
    assert heads.fg_bg_sampler.batch_size_per_image == 64


def test_a_released_file_is_read_under_its_old_names_and_without_unused_classes(tmp_path: Path) -> None:
    tiny = MaskRCNN.tiny
    there = MaskRCNN(90, **tiny)
    old = {}
    for key, value in there.state_dict().items():
        key = key.replace("rpn.head.conv.0.0", "rpn.head.conv").replace("_blocks.1.0.", "_blocks.1.")
        old[key.replace("mask_head.2.0.", "mask_head.mask_fcn3.")] = value
    assert old.keys() != there.state_dict().keys()
    torch.save(old, tmp_path / "maskrcnn.pth")
    same = MaskRCNN(90, **tiny, weights=str(tmp_path / "maskrcnn.pth"))
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), there.state_dict().values(), strict=True))

    fewer = MaskRCNN(80, **tiny, weights=str(tmp_path / "maskrcnn.pth"))
    categories = get_model_weights("maskrcnn_resnet50_fpn")["COCO_V1"].meta["categories"]
    street_sign, stop_sign = 12, 13  # 12 does not exist
    assert categories[street_sign] == "N/A"
    all_of_them, kept = there.roi_heads.box_predictor, fewer.roi_heads.box_predictor
    assert torch.equal(kept.cls_score.weight[12], all_of_them.cls_score.weight[stop_sign])
    assert torch.equal(
        kept.bbox_pred.weight.view(81, 4, -1)[12], all_of_them.bbox_pred.weight.view(91, 4, -1)[stop_sign]
    )
    assert torch.equal(
        fewer.roi_heads.mask_predictor.mask_fcn_logits.weight[80],
        there.roi_heads.mask_predictor.mask_fcn_logits.weight[90],
    )
    assert fewer.weights_of == tuple(name for name in categories[1:] if name != "N/A")
    assert same.weights_of == tuple(categories[1:])
    assert {layer.eps for layer in fewer.modules() if isinstance(layer, FrozenBatchNorm2d)} == {0}  # as was trained

    torch.save(there.state_dict(), tmp_path / "own.pth")
    own = MaskRCNN(90, **tiny, weights=str(tmp_path / "own.pth"))
    assert {layer.eps for layer in own.modules() if isinstance(layer, FrozenBatchNorm2d)} == {1e-5}


def test_a_detector_of_other_classes_gives_all_but_their_layers(tmp_path: Path) -> None:
    there = MaskRCNN(90, **MaskRCNN.tiny)
    torch.save(there.state_dict(), tmp_path / "maskrcnn.pth")
    with pytest.warns(
        UserWarning, match=r"maskrcnn\.pth: its 90 classes are not the 3 here; the layers of classes sta"
    ):
        here = MaskRCNN(3, **MaskRCNN.tiny, weights=str(tmp_path / "maskrcnn.pth"))
    assert here.weights_of == ()
    before = there.state_dict()
    new = {key for key, value in here.state_dict().items() if not torch.equal(value, before[key])}
    layers = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    assert new == {f"roi_heads.{layer}.{part}" for layer in layers for part in ("weight", "bias")}


@pytest.mark.parametrize("cls", [FasterRCNN, CascadeRCNN], ids=lambda cls: cls.__name__)
def test_an_own_detector_is_loaded_whole(cls: Any, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    there = cls(3, **cls.tiny)
    torch.save(there.state_dict(), tmp_path / "own.pth")
    here = cls(3, **cls.tiny, weights=str(tmp_path / "own.pth"))
    assert all(torch.equal(a, b) for a, b in zip(here.state_dict().values(), there.state_dict().values(), strict=True))
    assert not recwarn.list


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_a_classifier_starts_the_backbone(neck: Any, tmp_path: Path) -> None:
    import timm

    from segfolio.architectures.region_based.faster_rcnn import C4

    classifier = timm.create_model("test_resnet")
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    arguments = {**MaskRCNN.tiny, **(C4 if neck == "c4" else {})}
    network: Any = MaskRCNN(3, **arguments, weights=str(tmp_path / "classifier.pth"))
    assert torch.equal(network.backbone.body.layer3[0].conv1.weight, classifier.layer3[0].conv1.weight)
    last = network.roi_heads.box_head if neck == "c4" else network.backbone.body.layer4
    assert torch.equal(last[0].conv1.weight, classifier.layer4[0].conv1.weight)
    frozen = {name.split(".")[0] for name, p in network.backbone.body.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}
