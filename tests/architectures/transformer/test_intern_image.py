"""InternImage: its deformable convolution pixel by pixel, the authors' names, memory."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from benchmarks.confusion_matrix import peak_bytes
from benchmarks.deformable_convolution import drawn, naive
from segfolio.architectures.transformer.intern_image import DeformableConvolution, InternImage, sample
from segfolio.errors import SegfolioError
from segfolio.layers.hollow import hollow


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("size", [(4, 5), (3, 7), (1, 2)], ids=str)
def test_points_are_those_of_a_loop_over_pixels_groups_and_points(size: tuple[int, int], scale: float) -> None:
    given = drawn(2, *size, groups=2, channels=6)
    torch.testing.assert_close(sample(*given, scale), naive(*given, scale))


def test_gradients_are_those_of_finite_differences() -> None:
    given = [each.requires_grad_() for each in drawn(1, 3, 4, groups=2, channels=4)]
    assert torch.autograd.gradcheck(lambda *tensors: sample(*tensors, 1.0), given)


def test_without_offsets_it_is_a_mean_of_nine_neighbours() -> None:
    layer = DeformableConvolution(4, 2, offset_scale=1.0)
    tokens = torch.randn(1, 6, 7, 4)
    kernel = torch.full((4, 1, 3, 3), 1 / 9)
    means = conv2d(layer.input_proj(tokens).permute(0, 3, 1, 2), kernel, padding=1, groups=4).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(tokens), layer.output_proj(means))


@pytest.mark.parametrize(("size", "millions"), [("T", 59), ("S", 80), ("B", 128), ("L", 256), ("XL", 368)])
def test_parameters_are_the_authors(size: str, millions: int) -> None:
    with hollow():
        network = InternImage(150, **InternImage.variants[f"InternImage-{size}"])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


AUTHORS = (  # ours to the authors'
    (r"^encoder\.(patch_embed|levels)\.", r"backbone.\1."),
    (r"\.downsample\.weight", ".downsample.conv.weight"),
    (r"\.downsample_norm\.", ".downsample.norm.1."),
    (r"\.dcn\.depthwise\.", ".dcn.dw_conv.0."),
    (r"\.dcn\.norm\.", ".dcn.dw_conv.1.1."),
    (r"(patch_embed\.norm\d)\.", r"\1.1."),
    (r"(blocks\.\d+\.norm\d)\.", r"\1.0."),
    (r"(levels\.\d\.norm)\.", r"\1.0."),
    (r"\.fc(\d)\.", r".mlp.fc\1."),
    (r"^head\.pooled\.(\d)\.", r"decode_head.psp_modules.\1.1."),
    (r"^head\.lateral", "decode_head.lateral_convs"),
    (r"^head\.smooth", "decode_head.fpn_convs"),
    (r"^head\.fuse", "decode_head.fpn_bottleneck"),
    (r"^head\.classifier", "decode_head.conv_seg"),
    (r"^head\.", "decode_head."),
    (r"^auxiliary\.4", "auxiliary_head.conv_seg"),
    (r"^auxiliary\.", "auxiliary_head.convs.0."),
    (r"(_head.*)\.0\.(weight|bias)$", r"\1.conv.\2"),
    (r"(_head.*)\.1\.(\w+)$", r"\1.bn.\2"),
)


def of_the_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        for pattern, name in AUTHORS:
            key = re.sub(pattern, name, key)
        found[key] = value
    return found


@pytest.mark.parametrize("post_norm", [False, True])
def test_a_checkpoint_of_the_authors_loads(post_norm: bool, tmp_path: Path) -> None:
    given = InternImage(5, **InternImage.tiny, post_norm=post_norm)
    for parameter in given.parameters():
        nn.init.normal_(parameter)
    state = of_the_authors(given.state_dict())
    names = {
        *("backbone.patch_embed.norm2.1.weight", "backbone.levels.0.blocks.0.norm1.0.bias"),
        *("backbone.levels.2.blocks.1.dcn.dw_conv.1.1.weight", "backbone.levels.0.downsample.norm.1.weight"),
        *("decode_head.psp_modules.2.1.conv.weight", "auxiliary_head.convs.0.bn.running_var"),
    }
    assert names <= state.keys()
    assert ("backbone.levels.3.norm.0.weight" in state) is not post_norm
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "upernet.pth")
    ours = InternImage(5, **InternImage.tiny, post_norm=post_norm, weights=str(tmp_path / "upernet.pth"))
    for key, value in given.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_a_classifier_of_the_authors_loads_and_the_heads_stay_new(tmp_path: Path) -> None:
    given = InternImage(5, **InternImage.tiny)
    state = {
        key.removeprefix("backbone."): value
        for key, value in of_the_authors(given.state_dict()).items()
        if key.startswith("backbone.")
    }
    state |= {"conv_head.0.weight": torch.zeros(8, 64, 1, 1), "head.weight": torch.zeros(10, 8)}
    torch.save({"model": state}, tmp_path / "classifier.pth")
    ours = InternImage(7, **InternImage.tiny, weights=str(tmp_path / "classifier.pth"))
    for key, value in given.encoder.state_dict().items():
        assert torch.equal(ours.encoder.state_dict()[key], value), key


def test_a_block_normalises_before_its_branches_or_behind_them() -> None:
    tokens = torch.randn(2, 5, 6, 8)
    for post_norm in (False, True):
        block = InternImage(3, **InternImage.tiny, post_norm=post_norm, layer_scale=0.5).encoder.levels[0].blocks[0]
        if post_norm:
            first = tokens + 0.5 * block.norm1(block.dcn(tokens))
            expected = first + 0.5 * block.norm2(block.fc2(nn.functional.gelu(block.fc1(first))))
        else:
            first = tokens + 0.5 * block.dcn(block.norm1(tokens))
            expected = first + 0.5 * block.fc2(nn.functional.gelu(block.fc1(block.norm2(first))))
        torch.testing.assert_close(block(tokens), expected)


def test_stages_have_the_strides_of_the_paper_and_training_an_auxiliary_head() -> None:
    network = InternImage(3, **InternImage.tiny)
    sizes = []
    network.head.register_forward_pre_hook(lambda _, inputs: sizes.extend(tuple(x.shape[-2:]) for x in inputs[0]))
    output = network(torch.randn(2, 3, 64, 90))
    assert sizes == [(16, 23), (8, 12), (4, 6), (2, 3)]
    assert output.logits.shape == (2, 3, 16, 23)
    assert output.auxiliary["aux"].shape == (2, 3, 4, 6)
    assert network.eval()(torch.randn(1, 3, 64, 64)).auxiliary == {}


def trained(network: nn.Module, images: Tensor) -> list[Tensor]:
    network.zero_grad(set_to_none=False)  # whose memory is not that of activations
    network.train()(images).logits.square().mean().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def test_checkpointing_takes_a_quarter_of_the_memory_and_gives_the_same_gradients() -> None:
    """Of as many blocks as T has in its third stage in each of the first three."""
    small: dict[str, Any] = {**InternImage.tiny, "channels": 16, "blocks": (18, 18, 18, 1), "width": 8}
    plain, sparing = (InternImage(5, **small, auxiliary=False, checkpointing=given) for given in (False, True))
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 128, 128)
    for a, b in zip(trained(plain, images), trained(sparing, images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert peak_bytes(lambda: trained(sparing, images)) < 0.25 * peak_bytes(lambda: trained(plain, images))


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match=r"InternImage got images of 3x64 pixels, smaller than a patch of 4x4"):
        InternImage(3, **InternImage.tiny)(torch.randn(1, 3, 3, 64))
    with pytest.raises(SegfolioError, match=r"groups \[3, 2, 2, 4\]; give four of each, the groups divisors of the st"):
        InternImage(3, **{**InternImage.tiny, "groups": (3, 2, 2, 4)})
    with pytest.raises(SegfolioError, match=r"internimage_t is no file; expected a state dict of InternImage"):
        InternImage(3, **InternImage.tiny, weights="internimage_t")
    torch.save(InternImage(3, **InternImage.tiny).state_dict(), tmp_path / "8.pth")
    with pytest.raises(SegfolioError, match=r"8.pth: .* have another shape"):
        InternImage(3, **{**InternImage.tiny, "channels": 16}, weights=str(tmp_path / "8.pth"))


def test_points_are_as_exact_in_bfloat16() -> None:
    """Beyond 256 it has no odd numbers: with no offsets and all weight on the middle, values stay where they are."""
    values = torch.randn(1, 3, 320, 4).bfloat16()
    offsets, weights = torch.zeros(1, 3, 320, 2, 9, 2), torch.zeros(1, 3, 320, 2, 9)
    weights[..., 4] = 1
    assert torch.equal(sample(values, offsets.bfloat16(), weights.bfloat16(), 1.0), values)
