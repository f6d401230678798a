"""What a training step at the papers' sizes keeps for its backward pass, counted without running it."""

import sys
from functools import cache
from typing import Any

import pytest
import timm.layers  # noqa: F401  its attention is to be among the modules that are looked through
import torch
import transformers.integrations.sdpa_attention  # noqa: F401
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention

from segfolio.architectures.mask_classification.eomt import EoMT
from segfolio.architectures.mask_classification.eomt_dinov3 import EoMTDINOv3
from segfolio.architectures.mask_classification.maskformer import MaskFormer
from segfolio.architectures.mask_classification.max_deeplab import MaXDeepLab
from segfolio.architectures.mask_classification.per_pixel import PerPixelBaseline, PerPixelBaselinePlus
from segfolio.architectures.mask_classification.pmt import PMT
from segfolio.architectures.transformer.beit_upernet import BEiTUPerNet
from segfolio.architectures.transformer.dino_linear import DINOLinear
from segfolio.architectures.transformer.dpt import DPT
from segfolio.architectures.transformer.intern_image import InternImage
from segfolio.architectures.transformer.segformer import SegFormer
from segfolio.architectures.transformer.segmenter import Segmenter
from segfolio.architectures.transformer.setr import SETR
from segfolio.architectures.transformer.swin_upernet import SwinUPerNet
from segfolio.layers.hollow import hollow

GIB = 2**30
IMAGES = (2, 3, 640, 640)
NETWORKS: tuple[Any, ...] = (  # and not DETR, Mask2Former and OneFormer, which read values: test_checkpointing.py
    *(Segmenter, SETR, DPT, DINOLinear, BEiTUPerNet, SwinUPerNet, InternImage, SegFormer),
    *(EoMT, EoMTDINOv3, PMT, MaskFormer, PerPixelBaseline, PerPixelBaselinePlus, MaXDeepLab),
)
ALWAYS = {Segmenter: {"image_size": 640}, SETR: {"image_size": 640}, DPT: {"image_size": 640}, PMT: {"frozen": False}}
QUICK = {  # of which the others are tested by `make test-all`: what keeps most, and the largest of plain ViTs
    *("Seg-Ti-Mask/16", "Seg-L-Mask/16", "SETR-Naive", "SETR-PUP-DeiT", "DPT-Base", "DPT-Large", "DINOv2-S, linear"),
    *("BEiT-UPerNet, B", "BEiT-UPerNet, L", "Swin-UPerNet, T", "Swin-UPerNet, S", "SegFormer-B0", "EoMT-S"),
    *("EoMT-S, DINOv3", "PMT-S, DINOv3", "MaskFormer, R101c", "PerPixelBaseline, R50", "PerPixelBaseline+, R50"),
}
OF_24_GIB = [  # the largest of each that are trained on one GPU
    *((Segmenter, "Seg-L-Mask/16"), (SETR, "SETR-Naive"), (DPT, "DPT-Large"), (DINOLinear, "DINOv3-L, linear")),
    *((BEiTUPerNet, "BEiT-UPerNet, L"), (SwinUPerNet, "Swin-UPerNet, L, 640"), (InternImage, "InternImage-L")),
    *((SegFormer, "SegFormer-B5"), (EoMT, "EoMT-L"), (EoMTDINOv3, "EoMT-L, DINOv3"), (PMT, "PMT-L, DINOv3")),
    *((MaskFormer, "MaskFormer, Swin-L"), (MaXDeepLab, "MaX-DeepLab-S")),
]


def saved_bytes(network: nn.Module, images: Tensor) -> int:
    """Of the tensors that a forward pass saves, each storage once, but for weights."""
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        network(images)
    return sum(storage.nbytes() for storage in kept.values())


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *_: Any, **named: Any) -> Tensor:
    """As devices compute it where they can, keeping no product of queries and keys, which `meta` does not by itself."""
    if attn_mask is not None and attn_mask.requires_grad:  # of which no device has a gradient otherwise
        return scaled_dot_product_attention(query, key, value, attn_mask, scale=named.get("scale"))
    mask = None if attn_mask is None else torch.empty_like(attn_mask, dtype=query.dtype)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, 0.0, False, attn_mask=mask, scale=named.get("scale"))[0]


@pytest.fixture(autouse=True)
def fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    name = scaled_dot_product_attention.__name__
    for module in list(sys.modules.values()):
        if vars(module).get(name) is scaled_dot_product_attention and module.__name__ != __name__:
            monkeypatch.setattr(module, name, attention)


@cache
def kept(cls: Any, variant: str) -> tuple[int, int, int]:
    """Bytes that a step keeps without checkpointing and with it, and those of the weights."""
    found = []
    for checkpointing in (False, True):
        with hollow():
            arguments = {**cls.variants[variant], **ALWAYS.get(cls, {})}
            network = cls(150, **arguments, checkpointing=checkpointing).train()
        with torch.device("meta"):
            found.append(saved_bytes(network, torch.empty(IMAGES)))
    return found[0], found[1], sum(p.numel() * p.element_size() for p in network.parameters())


def given(cls: Any, variant: str) -> Any:
    return pytest.param(cls, variant, id=variant, marks=[] if variant in QUICK else [pytest.mark.slow])


@pytest.mark.parametrize(("cls", "variant"), [given(cls, name) for cls in NETWORKS for name in cls.variants])
def test_checkpointing_keeps_at_most_a_quarter(cls: Any, variant: str) -> None:
    plain, sparing, _ = kept(cls, variant)
    assert sparing <= 0.25 * plain


@pytest.mark.parametrize(("cls", "variant"), [given(*each) for each in OF_24_GIB])
def test_two_crops_of_640_train_on_24_gib(cls: Any, variant: str) -> None:
    """There are the saved tensors, the weights, their gradients and the two moments of AdamW, and what a block saves
    when it is computed again, for which a quarter of all that is kept without is more than enough."""
    plain, sparing, weights = kept(cls, variant)
    assert 4 * weights + sparing + plain / 4 < 24 * GIB
