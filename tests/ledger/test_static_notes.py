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


def stated(experiment: str, words: str) -> tuple[dict[str, Any], dict[tuple[int, int], str]]:
    """An experiment's arguments of the network, and the G behind `words` by the size of the image."""
    content = yaml.safe_load((EXPERIMENTS / f"{experiment}.yaml").read_text())
    figures = {}
    for counting in countings(content["paper"]["static"]):
        if counting.crop:
            found = re.search(rf"{words} ([\d.]+) G", counting.note)
            assert found
            figures[counting.crop] = found[1]
    assert figures
    arguments = content["model"]["init_args"]["architecture"]["init_args"]
    return {key: value for key, value in arguments.items() if key != "weights"}, figures


def joined(self: PooledConvolution, maps: list[Tensor]) -> Tensor:
    size = maps[0].shape[-2:]
    return Conv2dNormActivation.forward(self, torch.cat([interpolate(each, size, mode="bilinear") for each in maps], 1))


@pytest.mark.parametrize(
    ("experiment", "network", "classes"),
    [
        *((f"swin_upernet/ade20k_{name}", SwinUPerNet, 150) for name in ("tiny", "small", "base", "base_22k_640")),
        ("swin_upernet/ade20k_large_22k_640", SwinUPerNet, 150),
        *((f"intern_image/ade20k_{name}", InternImage, 150) for name in ("tiny", "xl_640")),
        *((f"intern_image/cityscapes_{name}", InternImage, 19) for name in ("tiny", "small", "base", "large", "xl")),
    ],
)
def test_upernets_are_of_levels_that_are_joined_at_stride_4(
    experiment: str, network: type[nn.Module], classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, figures = stated(experiment, "joined at stride 4 they are")
    with hollow():
        built = network(classes, **arguments).eval()
    monkeypatch.setattr(PooledConvolution, "forward", joined)
    assert {size: counted(built, 3, size) for size in figures} == figures


@pytest.mark.parametrize("variant", ["ade20k_b0", "ade20k_b2", "ade20k_b5", "cityscapes_b0", "cityscapes_b2"])
def test_segformers_are_of_the_fusion_at_stride_4(variant: str) -> None:
    arguments, figures = stated(f"segformer/{variant}", "stride 4, which takes")
    with hollow():
        fuse = SegFormer(150, **arguments).head.fuse
    for (height, width), figure in figures.items():
        assert counted(fuse, fuse.in_channels, (height // 4, width // 4)) == figure


def counted(network: nn.Module, channels: int, size: tuple[int, int]) -> str:
    """FLOPs in G."""

    def run() -> None:
        with torch.device("meta"):
            network(torch.empty(1, channels, *size))

    return f"{flops(run) / 1e9:.1f}"


@pytest.mark.parametrize(
    ("variant", "classes", "printed"), [("b0", 150, 125.5), ("b5", 150, 1460.4), ("b5", 19, 1447.6)]
)
def test_segformers_figures_of_cityscapes_are_of_150_classes_but_one(
    variant: str, classes: int, printed: float
) -> None:
    """With the fusion at stride 4, as the paper has it, they are within a thousandth."""
    arguments, figures = stated(f"segformer/cityscapes_{variant}", "stride 4, which takes")
    ((size, fusion),) = figures.items()
    with hollow():
        network = SegFormer(classes, **arguments).eval()
    assert float(counted(network, 3, size)) + float(fusion) == pytest.approx(printed, rel=1e-3)
