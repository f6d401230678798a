"""SETR: its three decoders by the release's steps, positions, memory."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from benchmarks.confusion_matrix import peak_bytes
from segfolio.architectures.transformer.setr import SETR, Levels, MLAHead, PatchHead, PUPHead
from segfolio.errors import SegfolioError
from segfolio.layers.hollow import hollow

TINY = {**SETR.tiny, "depth": 5, "auxiliary": (1, 2, 3), "taps": (1, 2, 3, 4)}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("num_classes", "arguments", "millions"),
    [
        (19, {"auxiliary": ()}, 306),
        (19, {"decoder": "mla"}, 311),
        (150, {"decoder": "pup", "auxiliary": (9, 14, 19, 23), "image_size": 512}, 318),
        (150, {"decoder": "pup", "auxiliary": (), "image_size": 512}, 308),  # as MaskFormer's Table 1 prints SETR
    ],
)
def test_parameters_are_those_that_papers_print(num_classes: int, arguments: dict[str, Any], millions: int) -> None:
    """Of ViT-L; on Cityscapes a naive network with its auxiliary heads has 0.8 M more, and PUP's positions 1.3 M."""
    with hollow():
        network = SETR(num_classes, **arguments)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


@pytest.mark.parametrize(
    ("variant", "heads", "millions"),
    [
        ("SETR-Naive", 4, 305.67),
        ("SETR-PUP", 5, 318.31),
        ("SETR-MLA", 5, 310.57),
        ("SETR-Naive-Base", 4, 87.69),
        ("SETR-PUP-DeiT", 5, 97.64),
        ("SETR-MLA-DeiT", 5, 92.59),
    ],
)
def test_parameters_are_the_papers_with_a_classifier_in_each_head_that_nothing_uses(
    variant: str, heads: int, millions: float
) -> None:
    """Of ADE20K's classes and crops, though printed of Cityscapes: mmsegmentation's heads begin with a classifier."""
    with hollow():
        network = SETR(150, image_size=512, **SETR.variants[variant])
    unused = heads * (512 * 150 + 150)
    assert round((sum(p.numel() for p in network.parameters()) + unused) / 1e6, 2) == millions


def over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[-2:])


def up(x: Tensor, factor: int, align_corners: bool = False) -> Tensor:
    size = (x.shape[-2] * factor, x.shape[-1] * factor)
    return interpolate(x, size, mode="bilinear", align_corners=align_corners)


def test_an_auxiliary_head_of_pup_classifies_behind_the_enlargement() -> None:
    head = PatchHead(8, 3, kernel=3, enlarge=4)
    patches = torch.randn(2, 8, 4, 5)
    expected = head.classifier(up(head.hidden(over_channels(head.norm, patches)), 4))
    torch.testing.assert_close(head(patches), expected)


def test_pup_enlarges_by_two_behind_each_convolution() -> None:
    head = PUPHead(8, 3)
    patches = torch.randn(2, 8, 2, 3)
    x = over_channels(head.norm, patches)
    for step in head.steps[:3]:
        x = up(step(x), 2)
    expected = up(head.classifier(head.steps[3](x)), 2)
    assert expected.shape == (2, 3, 32, 48)
    torch.testing.assert_close(head(patches), expected)


def test_mla_adds_maps_from_the_last_to_the_first_and_joins_them() -> None:
    levels, head = Levels(8), MLAHead(3)
    tokens = [torch.randn(2, 6, 8) for _ in range(4)]
    found = levels(tokens, (2, 3))
    p2, p3, p4, p5 = (
        project(over_channels(norm, each.transpose(1, 2).unflatten(2, (2, 3))))
        for project, norm, each in zip(levels.project, levels.norms, tokens, strict=True)
    )
    sums = (p5 + p4 + p3 + p2, p5 + p4 + p3, p5 + p4, p5)
    for each, smooth, total in zip(found, levels.smooth, sums, strict=True):
        torch.testing.assert_close(each, smooth(total), rtol=1e-4, atol=1e-4)
    enlarged = [up(level(each), 4, align_corners=True) for level, each in zip(head.levels, found, strict=True)]
    torch.testing.assert_close(head(found), head.classifier(torch.cat(enlarged, 1)))


@pytest.mark.parametrize(("decoder", "stride", "heads"), [("naive", 16, 3), ("pup", 1, 3), ("mla", 4, 4)])
def test_auxiliary_logits_are_of_training_alone(decoder: Any, stride: int, heads: int) -> None:
    network = SETR(3, decoder, **TINY)
    images = torch.randn(2, 3, 64, 96)
    output = network(images)
    assert output.logits.shape == (2, 3, 64 // stride, 96 // stride)
    assert list(output.auxiliary) == [f"aux_{number}" for number in range(1, heads + 1)]
    torch.stack([each.square().mean() for each in (output.logits, *output.auxiliary.values())]).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert network.eval()(images).auxiliary == {}
    assert network(torch.randn(1, 3, 50, 96)).logits.shape == (1, 3, 50, 96)


def test_heads_see_the_blocks_that_are_named() -> None:
    network = SETR(3, **{**TINY, "auxiliary": (3, 0)})
    seen = []
    for head in (network.head, *network.auxiliary):  # in the order in which they run
        head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 64, 64)
    network(images)
    first, fourth, last = network.encoder.forward_intermediates(images, indices=[0, 3, 4], intermediates_only=True)
    for found, expected in zip(seen, (last, fourth, first), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("decoder", "beside"), [("naive", 1), ("mla", 0)])
def test_a_classifier_of_timm_loads_and_mla_leaves_the_class_token_out(
    decoder: Any, beside: int, tmp_path: Path
) -> None:
    given = timm.create_model("test_vit", img_size=160, depth=5)
    torch.save(given.state_dict(), tmp_path / "vit.pth")
    network = SETR(5, decoder, **TINY, weights=str(tmp_path / "vit.pth"))
    assert torch.equal(network.encoder.blocks[4].attn.qkv.weight, given.blocks[4].attn.qkv.weight)
    assert network.encoder.pos_embed.shape == (1, 16 + beside, 64)
    assert "encoder.norm.weight" not in network.state_dict()


def trained(network: nn.Module, images: Tensor) -> list[Tensor]:
    network.zero_grad(set_to_none=False)  # whose memory is not that of activations
    network.train()(images).logits.square().mean().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def test_checkpointing_takes_a_quarter_of_the_memory_and_gives_the_same_gradients() -> None:
    plain, sparing = (SETR(5, **{**SETR.tiny, "auxiliary": ()}, checkpointing=given) for given in (False, True))
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 128, 128)
    for a, b in zip(trained(plain, images), trained(sparing, images), strict=True):
        torch.testing.assert_close(a, b)
    assert peak_bytes(lambda: trained(sparing, images)) < 0.25 * peak_bytes(lambda: trained(plain, images))


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match=r"SETR got images of 64x15 pixels, smaller than a patch of 16x16"):
        SETR(5, **TINY)(torch.randn(1, 3, 64, 15))
    with pytest.raises(SegfolioError, match=r"auxiliary \[9, 14, 19\]; give some of the blocks 0 to 4 of test_vit"):
        SETR(5, **{**TINY, "auxiliary": (9, 14, 19)})
    with pytest.raises(SegfolioError, match=r"taps \[1, 2\]; give four of the blocks 0 to 4 of test_vit"):
        SETR(5, "mla", **{**TINY, "taps": (1, 2)})
    torch.save(timm.create_model("vit_tiny_patch16_224", patch_size=32).state_dict(), tmp_path / "32.pth")
    with pytest.raises(SegfolioError, match=r"32.pth is of patches of 32x32 pixels and the network's are 16x16"):
        SETR(5, **TINY, weights=str(tmp_path / "32.pth"))
