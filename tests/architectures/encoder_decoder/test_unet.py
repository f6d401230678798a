"""U-Net: the sizes and the parameters of the paper, and the mirrored border."""

import pytest
import torch
from torch import nn

from segfolio.architectures.encoder_decoder.unet import UNet


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def expected_parameters(in_channels: int, num_classes: int, batch_norm: bool) -> int:
    """By arithmetic: two convolutions per block, five blocks down, four up-convolutions and blocks up."""
    levels = [64, 128, 256, 512, 1024]

    def two_convs(inputs: int, outputs: int) -> int:
        return 9 * outputs * (inputs + outputs) + (4 if batch_norm else 2) * outputs

    down = sum(two_convs(i, o) for i, o in zip([in_channels, *levels[:-1]], levels, strict=True))
    up = sum(4 * 2 * c * c + c + two_convs(2 * c, c) for c in levels[:-1])
    return down + up + (64 + 1) * num_classes


def test_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        assert parameters(UNet(2, in_channels=1)) == expected_parameters(1, 2, False) == 31_030_658
        same = UNet(21, padding="same", batch_norm=True)
    assert parameters(same) == expected_parameters(3, 21, True) == 31_038_933


def test_tile_of_figure_1() -> None:
    sizes: list[int] = []
    with torch.device("meta"):
        network = UNet(2, in_channels=1).eval()
        for block in (*network.down, *network.merge):
            block.register_forward_hook(lambda _, __, x: sizes.append(x.shape[-1]))
        assert network.forward_tile(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert sizes == [568, 280, 136, 64, 28, 52, 100, 196, 388]


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [(33, 50), (64, 64), (97, 32)], ids=str)
def test_any_size(padding: str, size: tuple[int, int]) -> None:
    network = UNet(3, width=2, depth=3, padding=padding).eval()
    assert network(torch.randn(1, 3, *size)).shape == (1, 3, *size)


def test_an_image_is_one_tile_of_its_mirrored_self() -> None:
    torch.manual_seed(0)
    network = UNet(3, width=4, depth=2).eval()
    image = torch.randn(1, 3, 44, 52)  # 4 * 14 - 12 and 4 * 16 - 12: a valid network's output sizes
    tile = nn.functional.pad(image, (20, 20, 20, 20), mode="reflect")
    torch.testing.assert_close(network(image), network.forward_tile(tile))


def test_overlapping_tiles_agree_with_the_whole_image() -> None:
    """Section 2: logits need only the valid part of the input, so tiles fit together without a seam."""
    torch.manual_seed(0)
    network = UNet(2, width=4, depth=2).eval()
    tile = torch.randn(1, 3, 136, 136)
    whole = network.forward_tile(tile)
    part = network.forward_tile(tile[..., 32:, 64:])  # at a multiple of the stride, 4
    torch.testing.assert_close(part, whole[..., 32:, 64:], atol=1e-5, rtol=1e-5)


def test_an_image_smaller_than_the_border_is_mirrored_more_than_once() -> None:
    torch.manual_seed(0)
    network = UNet(2, width=2, depth=4).eval()  # needs 92 pixels around it
    image = torch.randn(1, 3, 32, 32)
    period = torch.cat([image, image[..., 1:-1].flip(-1)], -1)
    wide = torch.cat([period] * 4, -1)[..., :236]
    torch.testing.assert_close(network(image), network(wide)[..., :32], atol=1e-5, rtol=1e-5)


def test_initial_weights_have_the_deviation_of_section_3() -> None:
    network = UNet(2, width=32, depth=2)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 4000:
            n = module.in_channels * (9 if module.kernel_size == (3, 3) else 1)
            assert module.weight.std().item() == pytest.approx((2 / n) ** 0.5, rel=0.05)


def test_dropout_is_at_the_end_of_the_contracting_path() -> None:
    """Zeros reach the skip of the lowest pooling, as in the authors' release, and no finer one."""
    network = UNet(2, width=8, depth=3, dropout=0.9).train()
    zeros = []
    for merge in network.merge:  # its input is the skip and the map from below, half of the channels each
        merge.register_forward_pre_hook(lambda _, x: zeros.append((x[0].chunk(2, 1)[0] == 0).float().mean()))
    network(torch.randn(1, 3, 64, 64))
    assert zeros[0] > 0.9 > max(zeros[1:])
