"""BEiT-UPerNet against transformers' under the same weights, and under the names of its releases."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from transformers import BeitConfig, BeitForSemanticSegmentation

from benchmarks.confusion_matrix import peak_bytes
from segfolio.architectures.transformer.beit_upernet import BEiTUPerNet, of_ours
from segfolio.errors import SegfolioError
from segfolio.layers.hollow import hollow

SMALL: dict[str, Any] = {**BEiTUPerNet.tiny, "width": 32, "depth": 6, "taps": (0, 2, 3, 4)}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def theirs() -> Any:
    """transformers' of `SMALL`, weights large enough to tell one part from another, statistics that are not 0 and 1."""
    config = BeitConfig(
        hidden_size=32,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=64,
        layer_norm_eps=1e-6,
        out_indices=[2, 4, 5, 6],  # two above ours
        use_relative_position_bias=True,
        drop_path_rate=0.0,
        num_labels=5,
    )
    return shaken(BeitForSemanticSegmentation(config))


def read(state: dict[str, Any]) -> dict[str, Any]:
    """Theirs under our names, but for the last block, behind which no map is taken."""
    return {key: value for key, value in of_ours(state).items() if not key.startswith("encoder.blocks.5.")}


def shaken(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.1, 2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else nn.init.uniform_(parameter, 0.1, 1)
    return network


@pytest.mark.parametrize(("variant", "millions"), [("B", 163), ("L", 441)])
def test_parameters(variant: str, millions: int) -> None:
    """Of B as many as transformers' class has at 640 pixels, 163.41 M."""
    with hollow():
        network = BEiTUPerNet(150, **BEiTUPerNet.variants[f"BEiT-UPerNet, {variant}"])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("size", [(64, 64), (96, 128)], ids=str)
def test_logits_and_gradients_are_those_of_transformers(size: tuple[int, int], training: bool) -> None:
    """At the size of the tables, and at another."""
    their, ours = theirs().double(), BEiTUPerNet(5, **SMALL).double()
    for network in (their, ours):
        network.train(training)
    ours.load_state_dict(read(their.state_dict()))
    images, target = torch.randn(2, 3, *size, dtype=torch.float64), torch.randint(5, (2, *size))
    expected, found = their(images).logits, ours(images)
    torch.testing.assert_close(found.logits, expected)
    for logits in (found.logits, expected):
        cross_entropy(interpolate(logits, size, mode="bilinear"), target).backward()
    gradients = of_ours({name: p.grad for name, p in their.named_parameters() if p.grad is not None})
    for name, p in ours.named_parameters():
        if not name.startswith("auxiliary."):
            torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


def test_logits_are_within_a_hundred_thousandth_of_transformers_with_its_initial_weights() -> None:
    their = BeitForSemanticSegmentation(theirs().config).eval()
    ours = BEiTUPerNet(5, **SMALL).eval()
    ours.load_state_dict(read(their.state_dict()))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, their(images).logits, rtol=0, atol=1e-5)


def test_the_auxiliary_logits_are_those_of_transformers_in_training_alone() -> None:
    their, ours = theirs().double(), BEiTUPerNet(5, **SMALL).double()
    ours.load_state_dict(read(their.state_dict()))
    seen = []
    their.auxiliary_head.register_forward_hook(lambda *found: seen.append(found[2]))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    their.train()(images)
    torch.testing.assert_close(ours(images).auxiliary["aux"], seen[0])
    assert ours.eval()(images).auxiliary == {}
    assert BEiTUPerNet(5, **SMALL, auxiliary=False)(torch.randn(2, 3, 64, 64)).auxiliary == {}


QUERIES = {"q": "query", "k": "key", "v": "value"}
HUB = (  # transformers' names of today to those on the hub
    (r"^beit\.layers", "beit.encoder.layer"),
    (r"\.attention\.([qkv])_proj\.", lambda m: f".attention.attention.{QUERIES[m[1]]}."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.relative_position_bias\.rel", ".attention.attention.relative_position_bias.rel"),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^fpn\.fpn1\.conv_transpose1", "fpn1.0"),
    (r"^fpn\.fpn1\.normalization", "fpn1.1"),
    (r"^fpn\.fpn1\.conv_transpose2", "fpn1.3"),
    (r"^fpn\.fpn2", "fpn2.0"),
    (r"psp_modules\.blocks\.(\d)\.conv", r"psp_modules.\1.1"),
    (r"psp_bottleneck", "bottleneck"),
    (r"\.convolution\.", ".conv."),
    (r"(_head.*)\.normalization\.", r"\1.bn."),
)
AUTHORS = (  # ours to the authors'
    (r"^encoder\.patch_embed\.", "backbone.patch_embed.proj."),
    (r"^encoder\.", "backbone."),
    (r"^neck\.", "backbone."),
    (r"\.(qkv|q_bias|v_bias|relative_position_bias_table|proj)(?=$|\.(weight|bias)$)", r".attn.\1"),
    (r"patch_embed\.attn\.proj", "patch_embed.proj"),
    (r"\.fc(\d)\.", r".mlp.fc\1."),
    (r"^head\.pooled\.(\d)\.", r"decode_head.psp_modules.\1.1."),
    (r"^head\.lateral", "decode_head.lateral_convs"),
    (r"^head\.smooth", "decode_head.fpn_convs"),
    (r"^head\.fuse", "decode_head.fpn_bottleneck"),
    (r"^head\.classifier", "decode_head.conv_seg"),
    (r"^head\.", "decode_head."),
    (r"^auxiliary\.4", "auxiliary_head.conv_seg"),
    (r"^auxiliary\.", "auxiliary_head.convs.0."),
    (r"(_head.*)\.0\.(weight|bias)$", r"\1.conv.\2"),
    (r"(_head.*)\.1\.(\w+)$", r"\1.bn.\2"),
)


def renamed(state: dict[str, Tensor], names: Any) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        for pattern, name in names:
            key = re.sub(pattern, name, key)
        found[key] = value
    return found


def test_a_released_model_loads_under_the_names_of_the_hub(tmp_path: Path) -> None:
    their = theirs().eval()
    state = renamed(their.state_dict(), HUB)
    assert "beit.encoder.layer.0.attention.attention.query.bias" in state
    assert "decode_head.psp_modules.3.1.bn.running_var" in state
    torch.save(state, tmp_path / "pytorch_model.bin")
    ours = BEiTUPerNet(5, **SMALL, weights=str(tmp_path)).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, their(images).logits, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_the_authors_loads(tmp_path: Path) -> None:
    given = shaken(BEiTUPerNet(5, **SMALL))
    state = renamed(given.state_dict(), AUTHORS)
    assert "backbone.blocks.0.attn.q_bias" in state
    assert "backbone.patch_embed.proj.weight" in state
    assert "decode_head.fpn_bottleneck.bn.running_mean" in state
    state["backbone.blocks.0.attn.relative_position_index"] = torch.zeros(17, 17).long()
    torch.save({"state_dict": state}, tmp_path / "beit.pth")
    ours = BEiTUPerNet(5, **SMALL, weights=str(tmp_path / "beit.pth"))
    for key, value in given.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_a_classifier_of_timm_loads_and_has_timms_patches(tmp_path: Path) -> None:
    beit = timm.create_model("beit_base_patch16_224", embed_dim=32, depth=6, num_heads=2, img_size=64)
    shaken(beit).eval()
    torch.save(beit.state_dict(), tmp_path / "timm.pth")
    ours = BEiTUPerNet(5, **SMALL, weights=str(tmp_path / "timm.pth")).eval()
    seen = []
    ours.neck.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours(images)
        expected = beit.forward_intermediates(images, indices=[0, 2, 3, 4], intermediates_only=True)
    for found, each in zip(seen, expected, strict=True):
        torch.testing.assert_close(found, each, rtol=1e-3, atol=1e-3)


def test_tables_of_another_size_are_interpolated_and_those_of_the_class_token_kept(tmp_path: Path) -> None:
    given = shaken(BEiTUPerNet(5, **SMALL))
    torch.save(given.state_dict(), tmp_path / "64.pth")
    ours = BEiTUPerNet(5, **{**SMALL, "image_size": 96}, weights=str(tmp_path / "64.pth"))
    old, new = (each.encoder.blocks[1].relative_position_bias_table for each in (given, ours))
    grid = interpolate(old[:-3].T.reshape(1, 2, 7, 7), (11, 11), mode="bilinear").reshape(2, 121).T
    torch.testing.assert_close(new, torch.cat([grid, old[-3:]]))


def trained(network: nn.Module, images: Tensor) -> list[Tensor]:
    network.zero_grad(set_to_none=False)  # whose memory is not that of activations
    network.train()(images).logits.square().mean().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def test_checkpointing_keeps_a_quarter_of_the_encoders_memory_and_gives_the_same_gradients() -> None:
    """Of many blocks, with what a block needs when it is computed again."""
    small = {**SMALL, "depth": 36, "taps": (7, 15, 23, 35), "auxiliary": False, "width": 16, "image_size": 256}
    plain, sparing = (BEiTUPerNet(5, **small, checkpointing=given) for given in (False, True))
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 256, 256)
    for a, b in zip(trained(plain, images), trained(sparing, images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert peak_bytes(lambda: trained(sparing, images)) < 0.25 * peak_bytes(lambda: trained(plain, images))


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match=r"BEiTUPerNet got images of 64x15 pixels, smaller than a patch of 16x16"):
        BEiTUPerNet(5, **SMALL)(torch.randn(1, 3, 64, 15))
    with pytest.raises(SegfolioError, match=r"heads 3, taps .*; give a width that the heads divide and four of the"):
        BEiTUPerNet(5, **{**SMALL, "heads": 3})
    with pytest.raises(SegfolioError, match=r"image_size is 72, expected whole patches of 16x16 pixels"):
        BEiTUPerNet(5, **{**SMALL, "image_size": 72})
    with pytest.raises(SegfolioError, match=r"in22k is neither a file, nor timm's name of a BEiT with its tag"):
        BEiTUPerNet(5, **SMALL, weights="in22k")
    torch.save(BEiTUPerNet(5, **SMALL, patch_size=32).state_dict(), tmp_path / "32.pth")
    with pytest.raises(SegfolioError, match=r"32.pth is of patches of 32x32 pixels and the network's are 16x16"):
        BEiTUPerNet(5, **SMALL, weights=str(tmp_path / "32.pth"))
    state = BEiTUPerNet(5, **SMALL).state_dict()
    state["encoder.blocks.0.relative_position_bias_table"] = torch.zeros(40, 2)
    torch.save(state, tmp_path / "table.pth")
    with pytest.raises(SegfolioError, match=r"table.pth has a table of 40 relative positions, which is of no square"):
        BEiTUPerNet(5, **SMALL, weights=str(tmp_path / "table.pth"))
