"""DETR and its losses equal transformers' under the same weights; it is trained in two steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert
from transformers import DetrConfig, DetrForSegmentation

from segfolio.architectures.mask_classification.detr import DETR
from segfolio.errors import SegfolioError
from segfolio.layers.backbones import backbone_config
from segfolio.losses import MaskClassificationLoss
from segfolio.losses.mask_matching import MaskTarget, boxes_around

TINY = DETR.tiny


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def transformers_own(**arguments: Any) -> Any:
    """transformers' DETR of the size of `TINY`, with random weights throughout."""
    config = DetrConfig(
        backbone_config=backbone_config(TINY["backbone"]),
        num_labels=5,
        num_queries=8,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        dropout=0.0,
        attn_implementation="sdpa",
        **arguments,
    )
    model = DetrForSegmentation(config).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.2)
    return model


def ours_of(theirs: Any, folder: Path, **arguments: Any) -> DETR:
    torch.save(theirs.state_dict(), folder / "detr.pth")
    return DETR(5, **{**TINY, **arguments}, weights=str(folder / "detr.pth")).eval()


@pytest.mark.parametrize("size", [(64, 96), (65, 97)], ids=str)
def test_classes_boxes_and_masks_are_transformers(tmp_path: Path, size: tuple[int, int]) -> None:
    theirs = transformers_own()
    ours, images = ours_of(theirs, tmp_path), torch.randn(2, 3, *size)
    with torch.no_grad():
        mine, other = ours(images), theirs(images)
    torch.testing.assert_close(mine.class_logits, other.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.boxes, other.pred_boxes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.mask_logits, other.pred_masks, atol=1e-5, rtol=1e-4)


def test_a_released_model_is_read_from_its_folder(tmp_path: Path) -> None:
    theirs = transformers_own()
    theirs.save_pretrained(tmp_path)
    ours = DETR(5, **TINY, weights=str(tmp_path)).eval()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def some_targets(size: tuple[int, int]) -> list[MaskTarget]:
    targets = []
    for count in (3, 0, 2):
        masks = torch.zeros(count, *size, dtype=torch.bool)
        for mask in masks:
            y, x = (int(torch.randint(0, side // 2, ())) for side in size)
            mask[y : y + 20, x : x + 15] = True
        targets.append(MaskTarget(torch.randint(5, (count,)), masks, boxes=boxes_around(masks)))
    return targets


def test_losses_are_transformers(tmp_path: Path) -> None:
    """Of one layer: transformers' auxiliary layers are of others than the authors'."""
    theirs, images = transformers_own(), torch.randn(3, 3, 64, 96)
    ours, targets = ours_of(theirs, tmp_path), some_targets((64, 96))
    labels = [{"class_labels": t.labels, "boxes": t.boxes, "masks": t.masks.float()} for t in targets]
    expected = theirs(images, labels=labels).loss_dict
    criterion = MaskClassificationLoss(
        1.0, 1.0, 1.0, mask_loss="focal", points=None, box_weight=5.0, giou_weight=2.0, match_masks=False
    )
    found = criterion(ours(images).layers, targets)
    assert tuple(found) == criterion.names == ("class", "mask", "dice", "box", "giou")
    for name, theirs_name, weight in (
        ("class", "loss_ce", 1),
        ("mask", "loss_mask", 1),
        ("dice", "loss_dice", 1),
        ("box", "loss_bbox", 5),
        ("giou", "loss_giou", 2),
    ):
        torch.testing.assert_close(found[name], weight * expected[theirs_name], atol=1e-5, rtol=1e-4)


def test_boxes_are_around_masks() -> None:
    masks = torch.zeros(3, 10, 20, dtype=torch.bool)
    masks[0, 2:6, 5:6] = True
    masks[1] = True
    assert boxes_around(masks).tolist() == [
        pytest.approx(b) for b in ([0.275, 0.4, 0.05, 0.4], [0.5, 0.5, 1, 1], [0] * 4)
    ]


def test_without_a_head_the_mask_of_a_query_is_the_inside_of_its_box() -> None:
    network = DETR(5, **TINY, masks=False).eval()
    with torch.no_grad():
        output = network(torch.randn(1, 3, 320, 320))
    inside = output.mask_logits[0] > 0
    corners = box_convert(output.boxes[0], "cxcywh", "xyxy").clamp(0, 1) * 80
    area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    assert (inside.flatten(1).sum(1) - area).abs().max() < 160  # a pixel at each border
    around = box_convert(boxes_around(inside), "cxcywh", "xyxy") * 80
    assert (around - corners).abs().max() <= 1


def test_the_box_model_is_trained_first_and_the_head_on_it_then(tmp_path: Path) -> None:
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, :, :32] = True
    images = masks[:1].float().expand(3, -1, -1)[None] + 0.1 * torch.randn(2, 3, 64, 64)
    truth = [MaskTarget(torch.ones(1, dtype=torch.int64), masks, boxes=boxes_around(masks))] * 2
    boxes = MaskClassificationLoss(1.0, 0.0, 0.0, box_weight=5.0, giou_weight=2.0, match_masks=False)
    first = DETR(4, **TINY, masks=False)
    before, after = trained(first, first.parameters(), boxes, images, truth, steps=80)
    assert set(before) == {"class", "box", "giou"}
    assert sum(after.values()) < 0.5 * sum(before.values())

    torch.save(first.state_dict(), tmp_path / "boxes.pth")
    second = DETR(4, **TINY, weights=str(tmp_path / "boxes.pth"))
    second.detr.requires_grad_(False)
    head = [p for p in second.parameters() if p.requires_grad]
    both = MaskClassificationLoss(
        1.0, 1.0, 1.0, mask_loss="focal", points=None, box_weight=5.0, giou_weight=2.0, match_masks=False
    )
    before, after = trained(second, head, both, images, truth, steps=80)
    assert {name: after[name] for name in ("class", "box", "giou")} == {
        name: before[name] for name in ("class", "box", "giou")
    }
    assert after["dice"] < 0.2 * before["dice"]
    assert all(torch.equal(p, second.detr.state_dict()[name]) for name, p in first.detr.state_dict().items())


def trained(network: DETR, parameters: Any, criterion: Any, images: Tensor, truth: Any, steps: int) -> list[dict]:
    """The losses before and after."""
    optimizer, said = torch.optim.Adam(parameters, lr=0.003), []
    for _ in range(steps):
        losses = criterion(network(images).layers, truth)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        said.append({name: loss.item() for name, loss in losses.items()})
    return [said[0], said[-1]]


def test_neither_stem_nor_first_stage_nor_norms_of_a_resnet_are_trained() -> None:
    with torch.device("meta"):
        network = DETR(5)
    body = network.detr.model.backbone.model
    trained = {name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    assert not [name for name, _ in body.named_parameters() if "bn" in name]


def test_the_last_stage_of_dc5_has_stride_16() -> None:
    network = DETR(5, backbone="resnet50", dilated=True, encoder_layers=1, decoder_layers=1).eval()
    body = network.detr.model.backbone
    sizes = [tuple(maps.shape[-2:]) for maps, _ in body(torch.zeros(1, 3, 64, 64), torch.ones(1, 64, 64))]
    assert sizes == [(16, 16), (8, 8), (4, 4), (4, 4)]


def test_boxes_are_asked_of_a_network_that_has_them() -> None:
    layers, masks = [(torch.zeros(1, 3, 5), torch.zeros(1, 3, 8, 8))], torch.ones(1, 8, 8, dtype=torch.bool)
    target = MaskTarget(torch.zeros(1, dtype=torch.int64), masks, boxes=boxes_around(masks))
    with pytest.raises(SegfolioError, match="giou_weight of MaskClassificationLoss is not 0, but the network says no"):
        MaskClassificationLoss(giou_weight=2.0)(layers, [target])
    without = [(torch.zeros(1, 3, 5), None, torch.zeros(1, 3, 4))] * 2
    with pytest.raises(SegfolioError, match="match_masks of MaskClassificationLoss is true, but only the network's"):
        MaskClassificationLoss()(without, [target])


@pytest.mark.parametrize(("variant", "millions"), [("DETR, R50", 42.90), ("DETR, R101", 61.84)])
def test_parameters_with_the_released_classes(variant: str, millions: float) -> None:
    with torch.device("meta"):
        network = DETR(250, **DETR.variants[variant])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions
