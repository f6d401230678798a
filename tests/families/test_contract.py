"""A family refuses a network of another before it is trained, by what the network says that it returns."""

from functools import partial
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from segfolio.architectures.encoder_decoder.unet import UNet
from segfolio.architectures.mask_classification.eomt import EoMT
from segfolio.architectures.mask_classification.per_pixel import PerPixelBaseline
from segfolio.architectures.one_stage.yolact import YOLACT
from segfolio.architectures.promptable.sam import SAM
from segfolio.architectures.transformer.segformer import SegFormer
from segfolio.data.datasets import Shapes
from segfolio.errors import SegfolioError
from segfolio.families import Detection, MaskClassification, PerPixel, Promptable, PromptableDetection, Video
from segfolio.families.contract import GIVEN, of_family
from segfolio.listing import architecture_classes
from segfolio.losses import CrossEntropy, MaskClassificationLoss

LABELS = Shapes("val").labels
ADAM = partial(torch.optim.Adam, lr=1e-3)
MAKE: dict[Any, Any] = {
    PerPixel: partial(PerPixel, losses={"ce": CrossEntropy()}),
    MaskClassification: partial(MaskClassification, task="semantic", criterion=MaskClassificationLoss()),
    **{cls: cls for cls in (Detection, Promptable, PromptableDetection, Video)},
}
NETWORKS: dict[Any, str] = {
    **{EoMT: "queries with masks, .*MaskClassification", SegFormer: "scores per pixel, .*PerPixel"},
    **{YOLACT: "detections, .*Detection", SAM: "masks of prompts, .*Promptable", UNet: "scores per pixel, .*PerPixel"},
}


@pytest.mark.parametrize("family", MAKE)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_of_another_family_is_one_sentence(family: Any, network: Any) -> None:
    said = NETWORKS[network]
    architecture = partial(network, **network.tiny)
    if family.networks_of == said.rpartition("*")[2]:
        if family is Promptable:
            family(LABELS, architecture, optimizer=ADAM)
        return
    with pytest.raises(
        SegfolioError, match=f"{network.__name__} gives {said.replace(', ', f', from which {family.__name__} does')}"
    ):
        MAKE[family](LABELS, architecture, optimizer=ADAM)


def test_the_baselines_of_mask_classification_are_per_pixel() -> None:
    MAKE[PerPixel](LABELS, partial(PerPixelBaseline, **PerPixelBaseline.tiny), optimizer=ADAM)


def test_every_architecture_says_of_which_family_it_is() -> None:
    for cls in architecture_classes():
        returned = get_type_hints(cls.forward)["return"]
        assert any(each in GIVEN for each in (returned, *get_args(returned))), cls.__name__


def test_a_network_that_does_not_say_is_taken() -> None:
    class Untold(nn.Module):
        def forward(self, images):  # type: ignore[no-untyped-def]
            return images

    class Hidden(nn.Module):
        def forward(self, images: Tensor) -> "Elsewhere":  # type: ignore[name-defined]  # noqa: F821
            return images

    for network in (Untold(), Hidden()):
        assert of_family(network, PerPixel) is network
