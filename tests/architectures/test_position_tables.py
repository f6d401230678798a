"""Tables of positions of plain ViTs: of other sizes, of oblong images, of other backbones, with other tokens beside."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from segfolio.architectures.mask_classification.eomt import POSITIONS, EoMT
from segfolio.architectures.mask_classification.pmt import PMT
from segfolio.architectures.transformer.beit_upernet import BEiTUPerNet
from segfolio.architectures.transformer.dino_linear import DINOLinear
from segfolio.architectures.transformer.dpt import DPT
from segfolio.architectures.transformer.segmenter import Segmenter
from segfolio.architectures.transformer.setr import SETR
from segfolio.errors import SegfolioError
from segfolio.layers.vit import resized

MLA = {"decoder": "mla", "taps": (0, 1, 3, 5)}
PLAIN: list[Any] = [
    pytest.param(cls, {**cls.tiny, "patch_size": 16} if cls in (Segmenter, EoMT, PMT) else cls.tiny, id=cls.__name__)
    for cls in (Segmenter, SETR, DPT, DINOLinear, EoMT, PMT)
] + [pytest.param(SETR, {**SETR.tiny, **MLA}, id="SETR, without a class token")]


def file_of(state: dict[str, Tensor], folder: Path) -> str:
    torch.save(state, folder / "vit.pth")
    return str(folder / "vit.pth")


@pytest.mark.parametrize(("cls", "arguments"), PLAIN)
@pytest.mark.parametrize(
    ("table", "said"),
    [
        ((1, 10 * 8 + 1, 64), r"vit.pth has a table of 81 positions, which is no square grid of patches and 1 token "),
        ((1, 98, 64), r"vit.pth has a table of 98 positions, which is no square grid of patches and 1 token beside it"),
        ((1, 17, 32), r"a table of positions of 1x17x32 and the network is 64 wide; take weights of the same backbone"),
        ((17, 64), r"a table of positions of 17x64 and the network is 64 wide"),
    ],
)
def test_a_table_that_cannot_be_is_one_sentence(
    tmp_path: Path, cls: Any, arguments: dict[str, Any], table: tuple[int, ...], said: str
) -> None:
    """Of 10 x 8 patches and a class token there are as many positions as of 9 x 9 patches."""
    state = timm.create_model("test_vit").state_dict() | {"pos_embed": torch.zeros(table)}
    with pytest.raises(SegfolioError, match=said):
        cls(5, **arguments, weights=file_of(state, tmp_path))


@pytest.mark.parametrize(("cls", "arguments"), PLAIN)
def test_a_whole_network_of_another_image_size_has_its_table_interpolated(
    tmp_path: Path, cls: Any, arguments: dict[str, Any]
) -> None:
    given = cls(5, **{**arguments, "image_size": 96})
    found = cls(5, **arguments, weights=file_of(given.state_dict(), tmp_path))
    key = POSITIONS if cls is EoMT else "encoder.pos_embed"
    there, here = (network.state_dict()[key].view(1, -1, 64) for network in (given, found))
    beside = here.shape[1] - 16
    assert torch.equal(here[:, :beside], there[:, :beside])
    expected = resized(there[:, beside:], (6, 6), (4, 4), bicubic=cls in (EoMT, PMT))
    torch.testing.assert_close(here[:, beside:], expected)
    for name, value in given.state_dict().items():
        assert name == key or torch.equal(value, found.state_dict()[name]), name


@pytest.mark.parametrize("cls", [Segmenter, DPT, EoMT, PMT])
def test_a_distilled_vit_loads_without_the_position_of_its_second_token(tmp_path: Path, cls: Any) -> None:
    arguments = {**cls.tiny, "backbone": "deit_tiny_patch16_224"}
    if cls is Segmenter:
        arguments["patch_size"] = 16
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", img_size=64)
    state = distilled.state_dict()
    found = cls(5, **arguments, weights=file_of(state, tmp_path)).state_dict()
    patches = state["pos_embed"][:, 2:]
    if cls is EoMT:
        torch.testing.assert_close(found[POSITIONS], patches[0])
        torch.testing.assert_close(found["embeddings.cls_token"], state["cls_token"] + state["pos_embed"][:, :1])
    else:
        torch.testing.assert_close(found["encoder.pos_embed"], torch.cat([state["pos_embed"][:, :1], patches], 1))


@pytest.mark.parametrize("patch", [0, -8])
@pytest.mark.parametrize("cls", [Segmenter, BEiTUPerNet, EoMT, PMT])
def test_patches_without_a_pixel_are_one_sentence(cls: Any, patch: int) -> None:
    with pytest.raises(SegfolioError, match=rf"patch_size (of \w+ )?is {patch}[;,] "):
        cls(5, **{**cls.tiny, "patch_size": patch})


def test_a_table_of_pairs_without_a_pair_of_patches_is_one_sentence(tmp_path: Path) -> None:
    state = BEiTUPerNet(5, **BEiTUPerNet.tiny).state_dict()
    for rows in (0, 2, 3, 40):
        state["encoder.blocks.0.relative_position_bias_table"] = torch.zeros(rows, 2)
        with pytest.raises(SegfolioError, match=f"has a table of {rows} relative positions, which is of no square"):
            BEiTUPerNet(5, **BEiTUPerNet.tiny, weights=file_of(state, tmp_path))
