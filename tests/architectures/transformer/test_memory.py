"""What a training step at the papers' sizes keeps for its backward pass, counted without running it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from segfolio.architectures.mask_classification.eomt import EoMT
from segfolio.architectures.mask_classification.eomt_dinov3 import EoMTDINOv3
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
NETWORKS = [
    (Segmenter, Segmenter.variants["Seg-L-Mask/16"]),
    (SETR, {"image_size": 640}),
    (DPT, {"image_size": 640}),
    (DINOLinear, DINOLinear.variants["DINOv3-L, linear"]),
    (BEiTUPerNet, BEiTUPerNet.variants["BEiT-UPerNet, L"]),
    (SwinUPerNet, SwinUPerNet.variants["Swin-UPerNet, L, 640"]),
    (InternImage, InternImage.variants["InternImage-L"]),
    (SegFormer, SegFormer.variants["SegFormer-B5"]),
    (EoMT, EoMT.variants["EoMT-L"]),
    (EoMTDINOv3, EoMTDINOv3.variants["EoMT-L, DINOv3"]),
    (PMT, {**PMT.variants["PMT-L, DINOv3"], "frozen": False}),
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


@pytest.mark.parametrize(("cls", "arguments"), NETWORKS, ids=lambda given: getattr(given, "__name__", ""))
def test_two_crops_of_640_train_on_24_gib_and_checkpointing_takes_a_quarter(cls: Any, arguments: Any) -> None:
    """With it there are the saved tensors, the weights, their gradients and the two moments of AdamW, and what a block
    saves when it is computed again, for which a quarter of all that is kept without is more than enough."""
    kept = []
    for checkpointing in (False, True):
        with hollow():
            network = cls(150, **arguments, checkpointing=checkpointing).train()
        with torch.device("meta"):
            kept.append(saved_bytes(network, torch.empty(IMAGES)))
    plain, sparing = kept
    assert sparing < 0.25 * plain
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    assert 4 * weights + sparing + plain / 4 < 24 * GIB
