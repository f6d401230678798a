"""RF-DETR-Seg beside transformers': equal outputs and losses under the same weights; and that it learns."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.ops import box_iou
from transformers import RfDetrConfig, RfDetrForInstanceSegmentation
from transformers.loss.loss_rf_detr import RfDetrForSegmentationLoss
from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

from segfolio.architectures.one_stage.rf_detr_seg import RFDETRSeg
from segfolio.errors import SegfolioError
from segfolio.layers.hollow import hollow
from segfolio.layers.windowed_vit import from_windows, to_windows
from segfolio.losses.mask_matching import MaskTarget
from segfolio.losses.set_detection import SetLayer, SetWeights, set_losses
from tests.architectures.test_detection_contract import scene, step

PARAMETERS = {  # with the release's 91 classes and 13 groups, as its table counts them
    "RF-DETR-Seg-N": 33_577_091,
    "RF-DETR-Seg-S": 33_710_723,
    "RF-DETR-Seg-M": 35_693_875,
    "RF-DETR-Seg-L": 35_873_587,
    "RF-DETR-Seg-XL": 38_113_251,
    "RF-DETR-Seg-2XL": 38_647_779,
}
SIZE = (96, 96)


def theirs(classes: int = 3) -> Any:
    """transformers' network of the shape of `RFDETRSeg.tiny`, of random weights."""
    vit = RfDetrDinov2Config(
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=2,
        mlp_ratio=3,
        image_size=64,
        patch_size=16,
        num_windows=2,
        out_features=["stage1", "stage3", "stage6"],
    )
    config = RfDetrConfig(
        backbone_config=vit,
        d_model=32,
        decoder_layers=2,
        decoder_ffn_dim=64,
        decoder_n_points=2,
        decoder_self_attention_heads=4,
        decoder_cross_attention_heads=4,
        intermediate_size=64,
        num_queries=6,
        group_detr=3,
        num_labels=classes,
        dropout=0.0,
    )
    network = RfDetrForInstanceSegmentation(config)
    for name, p in network.named_parameters():
        torch.nn.init.normal_(p, std=0.3 if p.ndim > 1 else 0.1)
        if "norm" in name and name.endswith("weight"):
            p.data += 1
    return network


@pytest.fixture
def both(tmp_path: Path) -> tuple[Any, RFDETRSeg]:
    torch.manual_seed(0)
    reference = theirs()
    save_file(reference.state_dict(), tmp_path / "model.safetensors")
    return reference, RFDETRSeg(3, **RFDETRSeg.tiny, weights=str(tmp_path / "model.safetensors"))


def masks(layer: SetLayer) -> Tensor:
    return torch.einsum("bqd,bdhw->bqhw", layer.readers, layer.pixels)


@pytest.mark.parametrize("sizes", [[SIZE, SIZE], [SIZE, (64, 80)]], ids=["whole", "padded"])
def test_outputs_are_those_of_transformers(both: Any, sizes: list[tuple[int, int]]) -> None:
    reference, network = (each.eval() for each in both)
    images, seen = torch.randn(2, 3, *SIZE), torch.zeros(2, *SIZE, dtype=torch.long)
    for mask, (height, width) in zip(seen, sizes, strict=True):
        mask[:height, :width] = 1
    with torch.no_grad():
        wanted = reference(images, pixel_mask=seen)
        (last,) = network.layers(images, sizes, 1)
    assert wanted.pred_masks.std() > 0.1
    torch.testing.assert_close(last.logits, wanted.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(last.boxes, wanted.pred_boxes, rtol=0, atol=1e-5)
    torch.testing.assert_close(masks(last), wanted.pred_masks, rtol=0, atol=1e-5)


def test_all_layers_and_groups_are_those_of_transformers_in_training(both: Any) -> None:
    reference, network = (each.train() for each in both)
    images, given = torch.randn(2, 3, *SIZE), {}

    def keep(*arguments: Any) -> Any:
        given["logits"], given["boxes"], given["masks"] = arguments[6:9]
        given["proposed"] = arguments[9:12]
        return None, None, None

    reference.loss_function = keep
    with torch.no_grad():
        reference(images, labels=[])
        first, *decoded = network.layers(images, [SIZE, SIZE], 3)
    for ours, wanted in zip((first.logits, first.boxes, masks(first)), given["proposed"], strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    for place, layer in enumerate(decoded):
        for ours, name in ((layer.logits, "logits"), (layer.boxes, "boxes"), (masks(layer), "masks")):
            torch.testing.assert_close(ours, given[name][place], rtol=0, atol=1e-5)


def test_losses_are_those_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of masks that are the same everywhere but at the border, as each draws points of its own."""
    torch.manual_seed(1)
    drawn_anywhere = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size, **options: 0.1 + 0.8 * drawn_anywhere(*size, **options))
    groups, queries, stride = 2, 8, 4  # as many numbers of boxes as cells, by which transformers counts points
    layers, counts = [], (3, 1)
    for _ in range(3):
        readers = torch.randn(2, groups * queries, 4)
        pixels = torch.randn(2, 4, 1, 1).expand(2, 4, 8, 16)
        boxes = torch.rand(2, groups * queries, 4) * 0.5 + 0.1
        layers.append(SetLayer(torch.randn(2, groups * queries, 3), boxes, readers, pixels))
    targets = [
        MaskTarget(
            torch.randint(3, (n,)), torch.rand(n, 1, 1).gt(0.3).expand(n, 32, 64), boxes=torch.rand(n, 4) / 2 + 0.1
        )
        for n in counts
    ]
    config = RfDetrConfig(num_labels=3, group_detr=groups, num_queries=queries, decoder_layers=2)
    logits, boxes = (torch.stack([getattr(layer, name) for layer in layers[1:]]) for name in ("logits", "boxes"))
    drawn = [masks(layer) for layer in layers]
    labels = [{"class_labels": t.labels, "boxes": t.boxes, "masks": t.masks} for t in targets]
    first = (layers[0].logits, layers[0].boxes, drawn[0])
    _, parts, _ = RfDetrForSegmentationLoss(
        logits[-1], labels, "cpu", boxes[-1], drawn[-1], config, logits, boxes, drawn[1:], *first
    )
    found = set_losses(layers, targets, groups, stride, SetWeights(), torch.tensor(float(groups * sum(counts))))
    names = {"cls": ("loss_ce", 1), "box": ("loss_bbox", 5), "giou": ("loss_giou", 2)}
    names |= {"mask": ("loss_mask_ce", 5), "dice": ("loss_mask_dice", 5)}
    for name, (their_name, weight) in names.items():
        wanted = weight * sum(parts[their_name + layer] for layer in ("", "_0", "_enc"))
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-5)
        assert found[name] > 0


def test_it_has_the_parameters_of_the_published_networks() -> None:
    found = {}
    for name, arguments in RFDETRSeg.variants.items():
        with hollow():
            found[name] = sum(p.numel() for p in RFDETRSeg(91, **arguments).parameters())
    assert found == PARAMETERS


def test_windows_are_parts_of_an_image_that_is_not_square() -> None:
    image = torch.arange(4 * 6).view(1, 1, 4, 6)
    windows = to_windows(image, 2)
    assert windows[..., 0].tolist() == [
        [0, 1, 2, 6, 7, 8],
        [3, 4, 5, 9, 10, 11],
        [12, 13, 14, 18, 19, 20],
        [15, 16, 17, 21, 22, 23],
    ]
    assert torch.equal(from_windows(windows, 2, (4, 6)), image)


def test_it_overfits_one_image() -> None:
    torch.manual_seed(0)
    images, wanted = scene()
    network = RFDETRSeg(2, **RFDETRSeg.tiny)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, 200)
    for _ in range(200):
        optimizer.zero_grad()
        step(network, images, [wanted])
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        (found,) = network.eval()(images, [(96, 128)])
    assert wanted.masks is not None
    for label in (0, 1):
        place = (found.labels == label).nonzero()[0, 0]  # the best of its class
        assert found.scores[place] > 0.5
        assert box_iou(found.boxes[place, None], wanted.boxes[label, None]) > 0.8
        drawn = torch.nn.functional.interpolate(found.masks[None, place, None], (96, 128), mode="bilinear")[0, 0] > 0
        truth = wanted.masks[label]
        assert (drawn & truth).sum() / (drawn | truth).sum() > 0.8


def test_a_query_may_be_of_several_classes_and_the_best_are_kept() -> None:
    torch.manual_seed(0)
    network = RFDETRSeg(3, **RFDETRSeg.tiny).eval()
    logits = torch.tensor([[9.0, 9, 9], [-9, 2, 1], [0, -9, -9]])
    boxes = torch.tensor([[1.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.4, 0.2]])  # the first lies beyond
    network.recipe = replace(network.recipe, max_detections=3)
    found = network.found(logits, boxes, torch.randn(3, 4), torch.randn(4, 5, 5), (40, 20))
    assert found.labels.tolist() == [1, 2, 0]
    assert found.boxes is not None
    assert found.masks is not None
    torch.testing.assert_close(found.boxes[0], torch.tensor([5.0, 10, 15, 30]))
    torch.testing.assert_close(found.boxes[2], torch.tensor([0.0, 0, 6, 8]))  # cut off at the border
    assert torch.equal(found.masks[0], found.masks[1])


def test_boxes_and_losses_are_float32_under_mixed_precision() -> None:
    torch.manual_seed(0)
    network = RFDETRSeg(2, **RFDETRSeg.tiny)
    images, wanted = scene()
    with torch.autocast("cpu", torch.bfloat16):
        losses = step(network, images, [wanted])
        with torch.no_grad():
            (found,) = network.eval()(images, [(96, 128)])
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {part.dtype for part in (found.boxes, found.scores, found.masks)} == {torch.float32}
    corners = found.boxes[(found.boxes > 32) & (found.boxes < 64)]
    assert not torch.equal(corners, corners.bfloat16().float())


def test_fewer_patches_than_queries_are_as_many_queries() -> None:
    network = RFDETRSeg(1, **{**RFDETRSeg.tiny, "num_queries": 30})
    images, wanted = torch.randn(1, 3, 32, 64), scene()[1]
    target = wanted._replace(boxes=torch.tensor([[2.0, 2, 30, 20]]), labels=torch.tensor([0]))
    target = target._replace(masks=torch.zeros(1, 32, 64, dtype=torch.bool))
    target.masks[0, 2:20, 2:30] = True
    losses = step(network, images, [target])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    assert len(network.eval()(images, [(32, 64)])[0].scores) == 8  # 2 x 4 patches


def test_the_released_classes_are_those_that_exist(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = theirs(91)
    save_file(reference.state_dict(), tmp_path / "model.safetensors")
    network = RFDETRSeg(80, **RFDETRSeg.tiny, weights=str(tmp_path / "model.safetensors"))
    assert network.weights_of[:12] == (
        *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
        *("traffic light", "fire hydrant", "stop sign"),
    )
    ids = [1, 11, 13, 90]  # no street sign, which would be 12
    here = [0, 10, 11, 79]
    rows = reference.model.class_embed.weight[ids]
    assert torch.equal(network.class_embed.weight[here], rows)
    with pytest.warns(UserWarning, match="is not of the 2 classes here"):
        other = RFDETRSeg(2, **RFDETRSeg.tiny, weights=str(tmp_path / "model.safetensors"))
    assert torch.equal(other.query_feat.weight, reference.model.model.query_feat.weight)


def test_a_state_dict_without_a_key_is_named(tmp_path: Path) -> None:
    state = theirs().state_dict()
    (name, *_) = [name for name in state if name.endswith("attention.k_proj.weight")]
    del state[name]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(SegfolioError, match=rf"model.safetensors: {re.escape(name)} is missing beside .*q_proj"):
        RFDETRSeg(3, **RFDETRSeg.tiny, weights=str(tmp_path / "model.safetensors"))


def test_a_released_model_is_read_from_its_folder(both: Any, tmp_path: Path) -> None:
    """Which holds the names of the authors' release, not those of transformers."""
    reference, network = both
    reference.save_pretrained(tmp_path / "released")
    read = RFDETRSeg(3, **RFDETRSeg.tiny, weights=str(tmp_path / "released")).state_dict()
    assert all(torch.equal(read[name], value) for name, value in network.state_dict().items())


def test_of_weights_of_more_queries_the_first_are_taken(both: Any, tmp_path: Path) -> None:
    reference, network = (each.eval() for each in both)
    save_file(reference.state_dict(), tmp_path / "six.safetensors")
    few = RFDETRSeg(3, **{**RFDETRSeg.tiny, "num_queries": 2}, weights=str(tmp_path / "six.safetensors")).eval()
    assert torch.equal(few.query_feat.weight[2:4], network.query_feat.weight[6:8])  # of the second group
    with torch.no_grad():
        last = few.layers(torch.randn(1, 3, *SIZE), [SIZE], 1)[0]
    assert last.logits.shape == (1, 2, 3)


def test_it_starts_from_a_vit_of_other_patches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = RFDETRSeg(1, **{**RFDETRSeg.tiny, "patch_size": 8}).vit
    state = {**trained.state_dict(), "mask_token": torch.zeros(1, 64)}
    save_file(state, tmp_path / "dinov2.safetensors")
    network = RFDETRSeg(1, **RFDETRSeg.tiny, weights=str(tmp_path / "dinov2.safetensors"))
    assert torch.equal(network.vit.blocks[2].attn.qkv.weight, trained.blocks[2].attn.qkv.weight)
    assert network.vit.patch_embed.proj.weight.shape == (64, 3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"image_size": 80}, "image_size is 80; expected a multiple of 32, of 2x2 windows"),
        ({"taps": (3, 7)}, r"taps is \[3, 7\]; expected numbers of 1 to 6"),
        ({"backbone": "resnet50"}, "resnet50 is no plain ViT"),
        ({"weights": "lvd142n"}, "lvd142n is neither a file"),
    ],
)
def test_what_does_not_fit_is_said(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SegfolioError, match=sentence):
        RFDETRSeg(1, **{**RFDETRSeg.tiny, **arguments})
