"""MaX-DeepLab has masks that exclude each other, attention along axes, and a memory that pixels read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segfolio.architectures.mask_classification.max_deeplab import MaXDeepLab, decoder_path, exclusive
from segfolio.errors import SegfolioError
from segfolio.layers.axial import AxialAttention, AxialAttention2d, DualPath

TINY = MaXDeepLab.tiny


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("variant", "millions"), [("MaX-DeepLab-S", 61.9), ("MaX-DeepLab-L", 451)])
def test_parameters_with_the_classes_of_coco_panoptic(variant: str, millions: float) -> None:
    """Without the semantic head, which is for training alone, and its decoder."""
    with torch.device("meta"):
        network = MaXDeepLab(133, **MaXDeepLab.variants[variant])
    apart = [part for part in (network.semantic, network.semantic_head) if part is not None]
    own = sum(p.numel() for p in network.parameters()) - sum(p.numel() for part in apart for p in part.parameters())
    assert round(own / 1e6, 1 if millions < 100 else 0) == millions


def test_masks_are_shares_of_a_pixel() -> None:
    logits = 30 * torch.randn(2, 5, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(exclusive(logits).sigmoid().double(), logits.softmax(1), atol=1e-5, rtol=1e-5)
    output = MaXDeepLab(5, **TINY).eval()(torch.randn(1, 3, 64, 96))
    torch.testing.assert_close(output.mask_logits.sigmoid().sum(1), torch.ones(1, 16, 24), atol=1e-4, rtol=0)
    assert output.dense is None


def test_in_training_pixels_have_classes_and_embeddings_of_unit_length() -> None:
    dense = MaXDeepLab(5, **TINY)(torch.randn(2, 3, 65, 97)).dense
    assert dense["semantic"].shape == (2, 5, 17, 25)
    torch.testing.assert_close(dense["features"].norm(dim=1), torch.ones(2, 17, 25))


def test_the_decoder_of_l_goes_down_twice() -> None:
    assert decoder_path(0, 0) == [(8, (1,)), (4, (1,))]
    assert [stride for stride, _ in decoder_path(1, 1)] == [8, 4, 8, 16, 8, 4, 8, 16, 8, 4]
    assert [parts for _, parts in decoder_path(1, 1)] == [(0,)] * 3 + [(0, 1)] + [(1,)] * 6


def test_every_slot_says_no_object_at_first() -> None:
    network = MaXDeepLab(133, **TINY).eval()
    with torch.no_grad():
        said = network(torch.randn(1, 3, 64, 64)).class_logits.softmax(-1)[..., -1]
    assert ((said - 0.9).abs() < 0.05).all()


def naive(network: AxialAttention, tokens: Tensor) -> Tensor:
    """One pair of positions after the other, normalisations in evaluation."""
    own: Any = network
    split = own.qkv(tokens).split([own.keys, own.keys, own.values], -1)
    query, key, value = (x.unflatten(-1, (8, -1)) for x in split)
    batch, length = tokens.shape[:2]
    logits = torch.empty(batch, 24, length, length)
    for i in range(length):
        for j in range(length):
            apart = j - i + own.span - 1
            for head in range(8):
                q, k = query[:, i, head], key[:, j, head]
                logits[:, head, i, j] = (q * k).sum(-1)
                logits[:, 8 + head, i, j] = q @ own.query_position[apart]
                logits[:, 16 + head, i, j] = k @ own.key_position[apart]
    normed = own.similarity_norm(logits)
    weights = (normed[:, :8] + normed[:, 8:16] + normed[:, 16:]).softmax(-1)
    depth = own.values // 8
    content, places = torch.zeros(batch, 8, depth, length), torch.zeros(batch, 8, depth, length)
    for i in range(length):
        for j in range(length):
            w = weights[:, :, i, j, None]
            content[:, :, :, i] += w * value[:, j]
            places[:, :, :, i] += w * own.value_position[j - i + own.span - 1]
    read = own.output_norm(torch.cat([content.flatten(1, 2), places.flatten(1, 2)], 1))
    return (read[:, : own.values] + read[:, own.values :]).transpose(1, 2)


def random_statistics(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(value)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def test_axial_attention_is_that_of_each_pair_of_positions() -> None:
    attention, tokens = random_statistics(AxialAttention(24, 16, 32, span=7)), torch.randn(3, 5, 24)
    with torch.no_grad():
        torch.testing.assert_close(attention(tokens), naive(attention, tokens), atol=1e-4, rtol=1e-4)


def test_pixels_see_their_column_and_then_their_row() -> None:
    attention = random_statistics(AxialAttention2d(16, 16, 16, span=8))
    maps = torch.randn(1, 16, 4, 6)
    changed = maps.clone()
    changed[0, :, 1, 2] += 1
    with torch.no_grad():
        differs = (attention(maps) != attention(changed)).any(1)[0]
    assert differs.all()  # every pixel has the column's pixel in its row
    with torch.no_grad():
        down = (attention.height(maps[0].permute(2, 1, 0)) != attention.height(changed[0].permute(2, 1, 0))).any(-1)
    assert down.any(1).tolist() == [False, False, True, False, False, False]


def test_more_pixels_on_an_axis_than_positions_are_refused() -> None:
    with pytest.raises(SegfolioError, match="has positions for 3 tokens on an axis and gets 4; give smaller images"):
        MaXDeepLab(5, **TINY, span=3)(torch.randn(1, 3, 64, 64))


def test_pixels_and_memory_read_each_other() -> None:
    exchange = random_statistics(DualPath(8, 12, 16, 20, 0.0))
    maps, memory = torch.randn(1, 8, 3, 4), torch.randn(1, 5, 12)
    with torch.no_grad():
        pixels, slots = exchange(maps, memory)
        of_slots, _ = exchange(maps, memory.roll(1, 2))
        _, of_pixels = exchange(maps.roll(1, 1), memory)
        shuffled, _ = exchange(maps, memory[:, [3, 1, 0, 4, 2]])
    assert pixels.shape == maps.shape
    assert slots.shape == memory.shape
    assert not torch.allclose(pixels, of_slots)
    assert not torch.allclose(slots, of_pixels)
    torch.testing.assert_close(shuffled, pixels)  # the memory has no order


def test_weights_are_a_file_of_its_own(tmp_path: Path) -> None:
    network = MaXDeepLab(5, **TINY)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    assert torch.equal(MaXDeepLab(5, **TINY, weights=str(tmp_path / "own.pth")).memory, network.memory)
    with pytest.raises(SegfolioError, match="max_deeplab_s is not a file; expected a state dict of MaXDeepLab"):
        MaXDeepLab(5, **TINY, weights="max_deeplab_s")


def test_weights_of_the_backbone_alone_load(tmp_path: Path) -> None:
    network = MaXDeepLab(5, **MaXDeepLab.tiny)
    backbone = {k: v + 1 for k, v in network.state_dict().items() if k.startswith("stem.") or ".blocks." in k}
    backbone = {k: v for k, v in backbone.items() if k.startswith(("stem.", "stages."))}
    torch.save(backbone, tmp_path / "backbone.pt")
    found = MaXDeepLab(5, **MaXDeepLab.tiny, weights=str(tmp_path / "backbone.pt")).state_dict()
    assert all(torch.equal(found[key], value) for key, value in backbone.items())
    backbone.pop(next(iter(backbone)))
    torch.save(backbone, tmp_path / "less.pt")
    with pytest.raises(SegfolioError, match="missing"):
        MaXDeepLab(5, **MaXDeepLab.tiny, weights=str(tmp_path / "less.pt"))
