"""Parameters, FLOPs and layers of networks that are small enough to be counted by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segfolio.architectures.dilated.deeplab_v3_plus import DeepLabV3Plus
from segfolio.errors import SegfolioError
from segfolio.layers.counting import flops, layers, parameters
from segfolio.layers.hollow import hollow


class Net(nn.Module):
    """Two ways, one of them through two convolutions more, and an enlargement that is not learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)  # 3 x 4 x 9 + 4 = 112
        self.long = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))  # 2 x (16 + 4) = 40
        self.short = nn.Conv2d(4, 4, 1, bias=False)  # 16
        self.scale = nn.Parameter(torch.ones(4, 1, 1))  # 4
        self.register_buffer("kernel", torch.ones(4, 1, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.long(x) + self.short(x) * self.scale
        return F.conv_transpose2d(x, self.kernel, stride=2, groups=4)


@pytest.mark.parametrize(
    ("of", "count"),
    [
        ("", 172),
        ("stem", 112),
        ("long + short", 56),
        ("long+short + long.0", 56),  # once
        ("long - long.2", 20),
        ("short + scale", 20),
        ("- long", 132),
        (" -long - stem", 20),
    ],
)
def test_parts_are_added_and_taken_off_by_their_paths(of, count) -> None:
    assert parameters(Net(), of) == count


def test_what_two_layers_share_counts_once() -> None:
    net = Net()
    net.long[2].weight = net.long[0].weight
    assert (parameters(net), parameters(net, "long")) == (172 - 16, 40 - 16)


@pytest.mark.parametrize(
    ("of", "says"),
    [("lonk", "Net has no part 'lonk'; did you mean 'long'?"), ("head.x", "no part 'head.x'; it has stem, ")],
)
def test_a_part_that_is_not_there_is_named(of, says) -> None:
    with pytest.raises(SegfolioError) as error:
        parameters(Net(), f"stem + {of}")
    assert says in str(error.value)


def counted(network: nn.Module, *shape: int, fvcore: bool = False) -> int:
    def run() -> None:
        with torch.device("meta"):
            network.eval()(torch.empty(shape))

    return flops(run, fvcore)


def test_a_multiply_add_is_one() -> None:
    with hollow():
        conv, line = nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Linear(5, 7)
    assert counted(conv, 2, 3, 16, 16) == 2 * 8 * 8 * 8 * 27
    assert counted(line, 2, 11, 5) == 2 * 11 * 5 * 7


def test_attention_is_two_products_beside_its_projections() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x)

    assert counted(Attention(), 1, 2, 10, 8, fvcore=True) == counted(Attention(), 1, 2, 10, 8) == 2 * 2 * 10 * 10 * 8


class Resized(nn.Module):
    def __init__(self, **how: object) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, **self.how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "each"),
    [
        (lambda: nn.BatchNorm2d(4), 2),
        (lambda: nn.GroupNorm(2, 4), 5),
        (lambda: nn.LayerNorm(8), 5),
        (lambda: nn.AdaptiveAvgPool2d(2), 1),
        (lambda: Resized(mode="bilinear", align_corners=False), 4 * 4),
        (nn.ReLU, 0),
    ],
)
def test_fvcore_counts_norms_and_resizing_for_each_value(layer, each) -> None:
    with hollow():
        network = layer()
    assert counted(network, 1, 4, 8, 8, fvcore=True) == each * 4 * 8 * 8
    assert counted(network, 1, 4, 8, 8) == 0


def test_layers_are_those_of_the_longest_way_with_weights_of_their_own() -> None:
    assert layers(Net()(torch.zeros(1, 3, 8, 8))) == 3


def test_fvcore_itself_has_the_same_count() -> None:
    """Of fvcore 0.1.5, on an image of 256 x 256: 44.315 G of convolutions, the rest norms and interpolation."""
    with hollow():
        network = DeepLabV3Plus(150, "resnet50c", output_stride=8, width=512, projection=3)
    assert counted(network, 1, 3, 256, 256, fvcore=True) == 44_426_789_888
    assert counted(network, 1, 3, 256, 256) == 44_315_115_520
