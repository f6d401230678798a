"""Blocks of mask transformers that are computed a second time: what a training step keeps is in
`transformer/test_memory.py`."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from segfolio.architectures.mask_classification.detr import DETR
from segfolio.architectures.mask_classification.eomt import EoMT
from segfolio.architectures.mask_classification.eomt_dinov3 import EoMTDINOv3
from segfolio.architectures.mask_classification.mask2former import Mask2Former
from segfolio.architectures.mask_classification.maskformer import MaskFormer
from segfolio.architectures.mask_classification.max_deeplab import MaXDeepLab
from segfolio.architectures.mask_classification.oneformer import OneFormer
from segfolio.architectures.mask_classification.per_pixel import PerPixelBaseline, PerPixelBaselinePlus
from segfolio.architectures.mask_classification.pmt import PMT
from segfolio.errors import SegfolioError
from segfolio.layers.backbones import SWINS
from segfolio.layers.outputs import MaskOutput, PixelOutput
from segfolio.listing import architecture_classes
from tests.architectures.transformer.test_memory import saved_bytes

SWIN = "swin_tiny_patch4_window7_224"
ROOMS = ("transformer", "mask_classification")
MASKFORMERS = (MaskFormer, PerPixelBaseline, PerPixelBaselinePlus)


def learn(network: Any, images: Tensor) -> None:
    """Gradients of all that a network is trained by."""
    torch.manual_seed(0)
    output = network(images)
    if isinstance(output, MaskOutput):
        found = [x for layer in output.layers for x in layer[:2] if x is not None]
    else:
        found = [output.logits, *output.auxiliary.values()] if isinstance(output, PixelOutput) else [output]
    torch.stack([x.square().mean() for x in found]).sum().backward()


def test_every_transformer_takes_it() -> None:
    networks = [cls for cls in architecture_classes() if cls.__module__.split(".")[-2] in ROOMS]
    assert not [cls.__name__ for cls in networks if "checkpointing" not in inspect.signature(cls).parameters]


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [(EoMT, {"drop_path": 0.5}), (EoMTDINOv3, {"drop_path": 0.5}), (PMT, {"frozen": False}), (PMT, {})],
    ids=["EoMT", "EoMTDINOv3", "PMT, trained", "PMT"],
)
def test_gradients_are_the_same(cls: Any, arguments: dict[str, Any]) -> None:
    """Also of what is dropped at random, and of queries that are let go of their masks at random."""
    torch.manual_seed(0)
    plain, sparing = (cls(3, **cls.tiny, **arguments, checkpointing=given).train() for given in (False, True))
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for network in (plain, sparing):
        network.mask_probabilities = [0.5] * len(network.mask_probabilities)
        learn(network, images)
    for (name, p), q in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None and q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-7)
    assert any(p.grad is not None for p in plain.layers.parameters())


@pytest.mark.parametrize("cls", [DETR, MaXDeepLab, Mask2Former, *MASKFORMERS])
def test_statistics_see_a_batch_once_and_gradients_are_the_same(cls: Any) -> None:
    torch.manual_seed(0)
    arguments = {**cls.tiny, **({} if cls is MaXDeepLab else {"backbone": "resnet10t"})}
    plain, sparing = (cls(3, **arguments, checkpointing=given).train() for given in (False, True))
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for network in (plain, sparing):
        learn(network, images)
    for (name, p), q in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None and q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-6)
    for (name, b), c in zip(plain.named_buffers(), sparing.buffers(), strict=True):
        torch.testing.assert_close(b, c, msg=name)


def test_a_quarter_is_kept_of_detr() -> None:
    """Counted in a run: what its encoder does to values that are not finite asks for values."""
    kept = [saved_bytes(DETR(3, checkpointing=given).train(), torch.randn(1, 3, 96, 96)) for given in (False, True)]
    assert kept[1] < 0.25 * kept[0]


@pytest.mark.parametrize("cls", [Mask2Former, OneFormer, *MASKFORMERS])
@pytest.mark.parametrize("backbone", [SWIN, "convnext_atto"])
def test_a_quarter_is_kept_and_gradients_are_the_same(monkeypatch: pytest.MonkeyPatch, cls: Any, backbone: str) -> None:
    """With stochastic depth."""
    monkeypatch.setitem(SWINS, "tiny", (16, (2, 2, 2, 2), (1, 2, 2, 4)))
    torch.manual_seed(0)
    arguments = {**cls.tiny, "backbone": backbone}
    plain, sparing = (cls(3, **arguments, checkpointing=given).train() for given in (False, True))
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 96, 96)
    kept = [saved_bytes(network, images) for network in (plain, sparing)]
    assert kept[1] < 0.25 * kept[0]
    for network in (plain, sparing):
        learn(network, images)
    for (name, p), q in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None and q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", [EoMT, EoMTDINOv3, PMT])
def test_an_image_smaller_than_a_patch_is_said(cls: Any) -> None:
    with pytest.raises(SegfolioError, match=rf"{cls.__name__} got images of 64x7 pixels, smaller than a patch"):
        cls(3, **cls.tiny)(torch.zeros(1, 3, 64, 7))


def test_a_backbone_that_cannot_is_said() -> None:
    with pytest.raises(SegfolioError, match="timm cannot compute the blocks of this backbone again"):
        Mask2Former(3, **{**Mask2Former.tiny, "backbone": "hrnet_w18_small"}, checkpointing=True)
