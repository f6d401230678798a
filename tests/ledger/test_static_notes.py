"""FLOPs that notes of `paper.static` state: of a head as the paper builds it, whose logits ours makes with fewer."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import Conv2dNormActivation

from segfolio.architectures.transformer.intern_image import InternImage
from segfolio.architectures.transformer.segformer import SegFormer
from segfolio.architectures.transformer.swin_upernet import SwinUPerNet
from segfolio.layers.counting import flops
from segfolio.layers.hollow import hollow
from segfolio.layers.uper_head import PooledConvolution
from segfolio.ledger.static import countings

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def stated(experiment: str, words: str) -> tuple[dict[str, Any], tuple[int, int], str]:
    """An experiment's arguments of the network, the size of the image of which FLOPs are, and the G behind `words`."""
    content = yaml.safe_load((EXPERIMENTS / f"{experiment}.yaml").read_text())
    (counting,) = (c for c in countings(content["paper"]["static"]) if "flops" in c.printed)
    found = re.search(rf"{words} ([\d.]+) G", counting.note)
    assert counting.crop
    assert found
    arguments = content["model"]["init_args"]["architecture"]["init_args"]
    return {key: value for key, value in arguments.items() if key != "weights"}, counting.crop, found[1]


def joined(self: PooledConvolution, maps: list[Tensor]) -> Tensor:
    size = maps[0].shape[-2:]
    return Conv2dNormActivation.forward(self, torch.cat([interpolate(each, size, mode="bilinear") for each in maps], 1))


@pytest.mark.parametrize(
    ("experiment", "network", "classes"),
    [
        *((f"swin_upernet/ade20k_{name}", SwinUPerNet, 150) for name in ("tiny", "small", "base_22k_640")),
        ("swin_upernet/ade20k_large_22k_640", SwinUPerNet, 150),
        *((f"intern_image/ade20k_{name}", InternImage, 150) for name in ("tiny", "xl_640")),
        *((f"intern_image/cityscapes_{name}", InternImage, 19) for name in ("tiny", "small", "base", "large", "xl")),
    ],
)
def test_upernets_are_of_levels_that_are_joined_at_stride_4(
    experiment: str, network: type[nn.Module], classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, size, figure = stated(experiment, "joined at stride 4 they are")
    with hollow():
        built = network(classes, **arguments).eval()

    def run() -> None:
        with torch.device("meta"):
            built(torch.empty(1, 3, *size))

    monkeypatch.setattr(PooledConvolution, "forward", joined)
    assert f"{flops(run) / 1e9:.1f}" == figure


@pytest.mark.parametrize("variant", ["b0", "b2", "b5"])
def test_segformers_are_of_the_fusion_at_stride_4(variant: str) -> None:
    arguments, (side, _), figure = stated(f"segformer/ade20k_{variant}", "stride 4, which takes")
    with hollow():
        fuse = SegFormer(150, **arguments).head.fuse

    def run() -> None:
        with torch.device("meta"):
            fuse(torch.empty(1, fuse.in_channels, side // 4, side // 4))

    assert f"{flops(run) / 1e9:.1f}" == figure
