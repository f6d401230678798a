"""SegNet: the parameters of the paper, what the indices do, and the encoder's weights."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import vgg16_bn

from segfolio.architectures.encoder_decoder.segnet import SegNet, SegNetBasic, _encode_decode
from segfolio.errors import SegfolioError


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameters_of_the_paper() -> None:
    """Encoder 14.7 M (section 3), all 29.45 M (Table 6); both with batch normalisation."""
    encoder = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    encoder += [(256, 512)] + [(512, 512)] * 5
    decoder = [(o, i) for i, o in encoder[1:]]
    convs = [sum(9 * i * o + 3 * o for i, o in layers) for layers in (encoder, decoder)]
    with torch.device("meta"):
        network, basic = SegNet(11), SegNetBasic(11)
    assert parameters(network.encoder) == convs[0] == 14_723_136
    assert parameters(network) == sum(convs) + (9 * 64 + 1) * 11 == 29_449_355
    assert parameters(basic) == 49 * 64 * (3 + 7 * 64) + 8 * 2 * 64 + (64 + 1) * 11 == 1_416_075


def test_encoder_has_the_layers_of_vgg16() -> None:
    with torch.device("meta"):
        ours, theirs = SegNet(2).encoder, vgg16_bn().features
    assert [tuple(p.shape) for p in ours.parameters()] == [tuple(p.shape) for p in theirs.parameters()]


def test_layers_of_the_basic_network() -> None:
    network = SegNetBasic(11, width=2)
    assert [type(m).__name__ for m in network.encoder[0]] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert [type(m).__name__ for m in network.decoder[0]] == ["Conv2d", "BatchNorm2d"]
    convs = [m for stage in (*network.encoder, *network.decoder) for m in stage if isinstance(m, nn.Conv2d)]
    assert {(m.kernel_size, m.bias) for m in convs} == {((7, 7), None)}


def test_response_normalisation_is_caffes() -> None:
    """x / (1 + alpha / 5 * sum of squares over five channels) ** 0.75, on values up to 255."""
    pixel = torch.tensor([200.0, 100.0, 50.0])
    expected = pixel / (1 + 1e-4 / 5 * pixel.square().sum()) ** 0.75
    normalised = SegNetBasic(2, width=2).normalise(pixel.reshape(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(normalised, expected)


@pytest.mark.parametrize("size", [(8, 8), (45, 61)], ids=str)
def test_maxima_return_to_where_they_were(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    restored = _encode_decode(x, [nn.Identity()], [nn.Identity()])
    pooled, indices = nn.functional.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    assert torch.equal(restored, nn.functional.max_unpool2d(pooled, indices, 2, output_size=size))
    kept = restored != 0
    assert restored.shape == x.shape
    assert torch.equal(restored[kept], x[kept])
    rows, columns = (-(-n // 2) for n in size)
    assert kept.sum() == 2 * 3 * rows * columns  # one of each window, those cut by the border included


def test_360_rows_are_pooled_as_in_caffe() -> None:
    """The released file upsamples to 23x30 and 45x60: poolings round up."""
    sizes = []
    with torch.device("meta"):
        network = SegNet(11).eval()
        for stage in network.decoder:
            stage.register_forward_hook(lambda _, __, x: sizes.append(tuple(x.shape[-2:])))
        network(torch.empty(1, 3, 360, 480))
    assert sizes == [(23, 30), (45, 60), (90, 120), (180, 240), (360, 480)]


def test_weights_of_the_encoder(tmp_path: Path) -> None:
    """From a file with torchvision's names; older ones have no `num_batches_tracked`."""
    torch.manual_seed(0)
    vgg = vgg16_bn().eval()
    state = {k: v for k, v in vgg.state_dict().items() if k.startswith("features.") and "tracked" not in k}
    state["features.1.running_mean"] += 0.5
    torch.save(state, tmp_path / "vgg.pth")
    network = SegNet(2, weights=str(tmp_path / "vgg.pth")).eval()
    images = torch.randn(1, 3, 32, 32)
    features = images
    for stage in network.encoder:
        features = nn.functional.max_pool2d(stage(features), 2)
    torch.testing.assert_close(features, vgg.features(images))


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(SegfolioError, match=r"other.pth holds 1 tensors .* vgg16_bn has 78"):
        SegNet(2, width=2, weights=str(tmp_path / "other.pth"))
    with pytest.raises(SegfolioError, match="IMAGENET1K_V1"):
        SegNet(2, width=2, weights="imagenet")
