"""Swin-UPerNet against transformers' under the same weights, and under the names of its releases."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, unfold
from transformers import SwinConfig, SwinForImageClassification, UperNetConfig, UperNetForSemanticSegmentation

from benchmarks.confusion_matrix import peak_bytes
from segfolio.architectures.transformer.swin_upernet import SwinUPerNet, by_fours, of_ours
from segfolio.errors import SegfolioError
from segfolio.layers.hollow import hollow

SMALL: dict[str, Any] = {"channels": 16, "blocks": (2, 2, 3, 2), "heads": (1, 2, 2, 4), "window": 3, "width": 24}
SWIN = {"embed_dim": 16, "depths": (2, 2, 3, 2), "num_heads": (1, 2, 2, 4), "window_size": 3, "drop_path_rate": 0.0}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def theirs() -> Any:
    """transformers' of `SMALL`, weights large enough to tell one part from another, statistics that are not 0 and 1."""
    swin = SwinConfig(**SWIN, out_features=["stage1", "stage2", "stage3", "stage4"])  # type: ignore[arg-type]
    config = UperNetConfig(  # type: ignore[call-arg]
        backbone_config=swin, num_labels=5, hidden_size=24, auxiliary_channels=12, auxiliary_in_channels=64
    )
    return shaken(UperNetForSemanticSegmentation(config))


def shaken(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.1, 2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else nn.init.uniform_(parameter, 0.1, 1)
    return network


def released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the hub keeps transformers' weights."""
    renamed = {}
    for key, value in state.items():
        for old, new in (
            *(("backbone.swin.", "backbone."), ("self.relative", "self.relative"), ("o_proj", "output.dense")),
            *(("relative_position_bias.relative", "self.relative"), ("q_proj", "self.query"), ("k_proj", "self.key")),
            *(("v_proj", "self.value"), ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense")),
        ):
            key = key.replace(old, new)
        renamed[key] = value
    return renamed


@pytest.mark.parametrize(("variant", "millions"), [("T", 60), ("S", 81), ("B", 121), ("B, 640", 121), ("L, 640", 234)])
def test_parameters_are_the_papers(variant: str, millions: int) -> None:
    with hollow():
        network = SwinUPerNet(150, **SwinUPerNet.variants[f"Swin-UPerNet, {variant}"])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("size", [(96, 96), (65, 97), (49, 130)], ids=str)
def test_logits_gradients_and_statistics_are_those_of_transformers(size: tuple[int, int], training: bool) -> None:
    """Of windows that are whole, and of images of which neither patches, windows nor merged tokens are."""
    their, ours = theirs().double(), SwinUPerNet(5, **SMALL, drop_path=0.0, dropout=0.0).double()
    for network in (their, ours):
        network.train(training)
    ours.load_state_dict(of_ours(their.state_dict()))
    images, target = torch.randn(2, 3, *size, dtype=torch.float64), torch.randint(5, (2, *size))
    expected = their(images, labels=target)
    found = ours(images)
    logits = interpolate(found.logits, size, mode="bilinear")
    torch.testing.assert_close(logits, expected.logits)
    loss = cross_entropy(logits, target)
    if training:
        loss = loss + 0.4 * cross_entropy(interpolate(found.auxiliary["aux"], size, mode="bilinear"), target)
        torch.testing.assert_close(loss, expected.loss)
    loss.backward()
    (expected.loss if training else cross_entropy(expected.logits, target)).backward()
    gradients = of_ours({name: p.grad for name, p in their.named_parameters() if p.grad is not None})
    for name, p in ours.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")
    statistics = of_ours(dict(their.named_buffers()))
    for name, buffer in ours.named_buffers():
        if name in statistics:
            torch.testing.assert_close(buffer, statistics[name])


def test_logits_are_within_a_hundred_thousandth_of_transformers_with_its_initial_weights() -> None:
    their = UperNetForSemanticSegmentation(theirs().config).eval()
    ours = SwinUPerNet(5, **SMALL).eval()
    ours.load_state_dict(of_ours(their.state_dict()))
    images = torch.randn(1, 3, 128, 96)
    with torch.no_grad():
        found = interpolate(ours(images).logits, (128, 96), mode="bilinear")
        torch.testing.assert_close(found, their(images).logits, rtol=0, atol=1e-5)


def test_a_released_model_loads_under_the_names_of_the_hub(tmp_path: Path) -> None:
    their = theirs().eval()
    state = released(their.state_dict())
    assert "backbone.encoder.layers.0.blocks.1.attention.self.query.weight" in state
    state["backbone.encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(9, 9).long()
    torch.save(state, tmp_path / "pytorch_model.bin")
    ours = SwinUPerNet(5, **SMALL, weights=str(tmp_path)).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = interpolate(ours(images).logits, (64, 64), mode="bilinear")
        torch.testing.assert_close(found, their(images).logits, rtol=1e-5, atol=1e-4)


def of_the_authors(own: dict[str, Tensor], mmsegmentation: bool) -> dict[str, Tensor]:
    """Our weights under the names of the authors' release, or of mmsegmentation, which merges tokens otherwise."""
    stages = "backbone.stages" if mmsegmentation else "backbone.layers"
    attention = "attn.w_msa" if mmsegmentation else "attn"
    state = {}
    for key, value in own.items():
        parts = key.split(".")
        if key.startswith("encoder.stages"):
            stage, rest = int(parts[2]), ".".join(parts[3:])
            if rest.startswith("norm."):
                state[f"backbone.norm{stage}.{parts[-1]}"] = value
            elif rest.startswith("merge"):
                name = "norm" if "norm" in rest else "reduction"
                if mmsegmentation:  # a quarter for each of (0, 0), (1, 0), (0, 1), (1, 1), channels inside
                    quarters = value.chunk(4, -1)
                    value = torch.stack([quarters[0], quarters[2], quarters[1], quarters[3]], -1).flatten(-2)
                state[f"{stages}.{stage - 1}.downsample.{name}.{parts[-1]}"] = value
            else:
                for old, new in (
                    ("attention.position_bias", f"{attention}.relative_position_bias_table"),
                    ("attention.qkv", f"{attention}.qkv"),
                    ("attention.output", f"{attention}.proj"),
                    ("linear1", "ffn.layers.0.0" if mmsegmentation else "mlp.fc1"),
                    ("linear2", "ffn.layers.1" if mmsegmentation else "mlp.fc2"),
                ):
                    rest = rest.replace(old, new)
                state[f"{stages}.{stage}.{rest}"] = value
        else:
            for old, new in (
                ("encoder.embed.", f"backbone.patch_embed.proj{'ection' if mmsegmentation else ''}."),
                ("encoder.embed_norm.", "backbone.patch_embed.norm."),
                ("auxiliary.4.", "auxiliary_head.conv_seg."),
                ("auxiliary.0.", "auxiliary_head.convs.0.conv."),
                ("auxiliary.1.", "auxiliary_head.convs.0.bn."),
                ("head.pooled.", "decode_head.psp_modules."),
                ("head.classifier.", "decode_head.conv_seg."),
                ("head.lateral.", "decode_head.lateral_convs."),
                ("head.smooth.", "decode_head.fpn_convs."),
                ("head.fuse.", "decode_head.fpn_bottleneck."),
                ("head.bottleneck.", "decode_head.bottleneck."),
            ):
                key = key.replace(old, new) if key.startswith(old) else key
            if key.startswith("decode_head") and "conv_seg" not in key:
                *before, layer, last = key.split(".")
                between = ["1"] if "psp" in key else []
                key = ".".join([*before, *between, {"0": "conv", "1": "bn"}[layer], last])
            state[key] = value
    return state


@pytest.mark.parametrize("mmsegmentation", [False, True])
def test_a_checkpoint_under_the_authors_names_or_mmsegmentations_loads(mmsegmentation: bool, tmp_path: Path) -> None:
    given = shaken(SwinUPerNet(5, **SMALL)).eval()
    state = of_the_authors(given.state_dict(), mmsegmentation)
    assert len(state) == len(given.state_dict())
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "released.pth")
    ours = SwinUPerNet(5, **SMALL, weights=str(tmp_path / "released.pth"))
    for key, value in given.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, msg=key)


def test_tokens_are_merged_in_the_authors_order_and_unfolded_in_mmsegmentations() -> None:
    tokens = torch.randn(1, 4, 6, 3)
    unfolded = unfold(tokens.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2).view(1, 2, 3, 3, 4)
    torch.testing.assert_close(by_fours(tokens), unfolded[..., [0, 2, 1, 3]].transpose(3, 4).flatten(3))


def test_a_classifier_of_timm_or_transformers_loads_and_the_heads_stay_new(tmp_path: Path) -> None:
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=448).eval()
    torch.save(swin.state_dict(), tmp_path / "timm.pth")
    ours = SwinUPerNet(5, width=8, weights=str(tmp_path / "timm.pth")).eval()
    images = torch.randn(1, 3, 448, 448)
    with torch.no_grad():
        expected = swin.forward_intermediates(images, indices=[3], intermediates_only=True)[0]
        norm = ours.encoder.stages[3].norm
        found = ours.encoder(images)[3].permute(0, 2, 3, 1)
        torch.testing.assert_close(found, norm(expected.permute(0, 2, 3, 1)), rtol=1e-4, atol=1e-4)
    classifier = SwinForImageClassification(SwinConfig(**SWIN))  # type: ignore[arg-type]
    torch.save(classifier.state_dict(), tmp_path / "transformers.pth")
    loaded = SwinUPerNet(5, **SMALL, weights=str(tmp_path / "transformers.pth"))
    key = classifier.swin.encoder.layers[2].blocks[1].attention.k_proj.weight
    assert torch.equal(loaded.encoder.stages[2].blocks[1].attention.qkv.weight[64:128], key)


def test_tables_of_another_window_are_interpolated(tmp_path: Path) -> None:
    given = SwinUPerNet(5, **SMALL)
    torch.save(given.state_dict(), tmp_path / "3.pth")
    table = SwinUPerNet(5, **{**SMALL, "window": 4}, weights=str(tmp_path / "3.pth")).encoder.stages[1].blocks[0]
    grid = given.encoder.stages[1].blocks[0].attention.position_bias.T.reshape(1, 2, 5, 5)
    expected = interpolate(grid, (7, 7), mode="bicubic").reshape(2, 49).T
    torch.testing.assert_close(table.attention.position_bias, expected)


def test_the_auxiliary_logits_are_of_training_alone_and_can_be_left_out() -> None:
    network = SwinUPerNet(5, **SMALL)
    images = torch.randn(2, 3, 64, 64)
    assert network(images).auxiliary["aux"].shape == (2, 5, 4, 4)
    assert network.eval()(images).auxiliary == {}
    assert SwinUPerNet(5, **SMALL, auxiliary=False)(images).auxiliary == {}


def test_stochastic_depth_grows_from_nothing_to_its_rate() -> None:
    blocks = [block for stage in SwinUPerNet(5, **SMALL, drop_path=0.8).encoder.stages for block in stage.blocks]
    assert [block.drop_path.drop_prob for block in blocks] == pytest.approx([0.1 * step for step in range(9)])


def trained(network: nn.Module, images: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    network.zero_grad(set_to_none=False)  # whose memory is not that of activations
    network.train()(images).logits.square().mean().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def test_checkpointing_takes_a_quarter_of_the_memory_and_gives_the_same_gradients() -> None:
    """Of S, on a third of its channels."""
    small = {"channels": 32, "blocks": (2, 2, 18, 2), "heads": (1, 2, 4, 8), "width": 16, "dropout": 0.0}
    plain, sparing = (SwinUPerNet(5, **small, checkpointing=given) for given in (False, True))
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 224, 224)
    for a, b in zip(trained(plain, images), trained(sparing, images), strict=True):
        torch.testing.assert_close(a, b)
    assert peak_bytes(lambda: trained(sparing, images)) < 0.25 * peak_bytes(lambda: trained(plain, images))


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match=r"images of 20x64 pixels, smaller than a window of 28x28"):
        SwinUPerNet(5, width=8)(torch.randn(1, 3, 20, 64))
    with pytest.raises(SegfolioError, match=r"heads \[3, 6\]; give four of each, the heads divisors of the stages' 96"):
        SwinUPerNet(5, heads=(3, 6))
    with pytest.raises(SegfolioError, match=r"window is 0, expected 1 or more tokens"):
        SwinUPerNet(5, window=0)
    with pytest.raises(SegfolioError, match=r"ms_in1k is neither a file, nor timm's name of a Swin with its tag"):
        SwinUPerNet(5, width=8, weights="ms_in1k")
    state = timm.create_model("swin_tiny_patch4_window7_224", patch_size=8).state_dict()
    torch.save(state, tmp_path / "8.pth")
    with pytest.raises(SegfolioError, match=r"have another shape: encoder.embed.weight \[96, 3, 8, 8\] for \[96, 3, 4"):
        SwinUPerNet(5, width=8, weights=str(tmp_path / "8.pth"))
