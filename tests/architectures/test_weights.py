"""What networks say of a file that is of another network than they are."""

from pathlib import Path
from typing import Any

import pytest
import torch

from segfolio.architectures.mask_classification.eomt import EoMT
from segfolio.architectures.mask_classification.eomt_dinov3 import EoMTDINOv3
from segfolio.architectures.mask_classification.pmt import PMT
from segfolio.architectures.one_stage.rf_detr_seg import RFDETRSeg
from segfolio.architectures.promptable.mobile_sam import MobileSAM
from segfolio.architectures.promptable.sam import SAM
from segfolio.architectures.transformer.beit_upernet import BEiTUPerNet
from segfolio.architectures.transformer.dino_linear import DINOLinear
from segfolio.architectures.transformer.dpt import DPT
from segfolio.architectures.transformer.segmenter import Segmenter
from segfolio.architectures.transformer.setr import SETR
from segfolio.errors import SegfolioError
from segfolio.weights.files import PATCHES

PLAIN = [EoMT, EoMTDINOv3, PMT, RFDETRSeg, MobileSAM, SAM, BEiTUPerNet, DINOLinear, DPT, Segmenter, SETR]


@pytest.mark.parametrize("cls", PLAIN)
def test_patches_of_another_size_are_one_sentence(cls: Any, tmp_path: Path) -> None:
    state = cls(5, **cls.tiny).state_dict()
    (key,) = filter(PATCHES.search, state)
    side, half = state[key].shape[-1], state[key].shape[-1] // 2
    state[key] = state[key][..., :half, :half].contiguous()
    torch.save(state, tmp_path / "x.pth")
    says = f"x.pth is of patches of {half}x{half} pixels and the network's are {side}x{side}; take weights of the same"
    with pytest.raises(SegfolioError, match=says):
        cls(5, **cls.tiny, weights=str(tmp_path / "x.pth"))
