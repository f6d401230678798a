"""Images whose coarsest features are a single value."""

from typing import Any

import pytest
import torch

from segfolio.architectures.mask_classification.mask2former import Mask2Former
from segfolio.architectures.mask_classification.maskformer import MaskFormer
from segfolio.architectures.mask_classification.oneformer import OneFormer
from segfolio.architectures.mask_classification.per_pixel import PerPixelBaseline, PerPixelBaselinePlus
from segfolio.errors import SegfolioError
from segfolio.layers.backbones import SWINS


@pytest.mark.parametrize("cls", [MaskFormer, Mask2Former, OneFormer, PerPixelBaseline, PerPixelBaselinePlus])
@pytest.mark.parametrize("backbone", ["resnet10t", "swin_tiny_patch4_window7_224"])
def test_they_are_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, cls: Any, backbone: str) -> None:
    """And those that are a little longer are not."""
    monkeypatch.setitem(SWINS, "tiny", (16, (2, 2, 2, 2), (1, 2, 2, 4)))
    network = cls(3, **{**cls.tiny, "backbone": backbone})
    for training in (True, False):
        for side in (20, 32):
            with pytest.raises(
                SegfolioError, match=rf"{cls.__name__} got images of {side}x20 pixels, smaller than two"
            ):
                network.train(training)(torch.randn(1, 3, side, 20))
        network(torch.randn(1, 3, 33, 20))
