"""PMT says what the authors' code says; its encoder stays as it is; released decoders are read."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from segfolio.architectures.mask_classification.pmt import PMT
from segfolio.errors import SegfolioError

TINY = PMT.tiny
SMALL = {**TINY, "num_blocks": 3}
AUTHORS = {  # what tue-mps/pmt at 54d73c9 says of `waves`, with the weights of `filled`
    "classes": [[0.624972, -0.015373, -0.109901], [0.568695, 0.112584, -0.182314], [0.468685, 0.122668, -0.092446]],
    "masks": [[-0.021728, 0.61694, 0.867944], [-0.024825, 0.614817, 0.864286], [-0.029709, 0.613501, 0.86259]],
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def wave(like: Tensor, number: int) -> Tensor:
    steps = torch.arange(like.numel(), dtype=torch.float64)
    return (0.2 * torch.sin(steps * (0.7 + 0.01 * number) + number)).view(like.shape).to(like.dtype)


def filled(network: nn.Module) -> nn.Module:
    """Every weight a sine of its own."""
    state = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
    for number, (key, value) in enumerate(sorted(state.items())):
        if key != "_extra_state":
            value.copy_(wave(value, number).abs() + 0.5 if "running_var" in key else wave(value, number))
    return network


def test_it_says_what_the_authors_code_says() -> None:
    network = filled(PMT(5, **SMALL)).eval()
    with torch.no_grad():
        output = network(5 * wave(torch.zeros(1, 3, 64, 64), 0))
    torch.testing.assert_close(output.class_logits[0, :3, :3], torch.tensor(AUTHORS["classes"]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.mask_logits[0, :3, 5, 5:8], torch.tensor(AUTHORS["masks"]), atol=1e-5, rtol=1e-5)


def authors_names(network: nn.Module) -> dict[str, Tensor]:
    """The decoder under the names of a release."""
    renamed = {}
    for key, value in network.state_dict().items():
        for ours, theirs in (
            ("query.", "decoder.q."),
            ("layers.", "decoder.blocks."),
            ("layernorm.", "decoder.decoder_norm."),
            ("class_predictor.", "decoder.class_head."),
            ("upscale_block.block.", "decoder.upscale."),
            ("mask_head.fc", "decoder.mask_head."),
            ("_extra_state", "decoder.attn_mask_probs"),
        ):
            key = key.replace(ours, theirs, 1) if key.startswith(ours) else key
        key = key.replace("layernorm2d", "norm")
        for number in (1, 2, 3):
            key = key.replace(f"decoder.mask_head.{number}.", f"decoder.mask_head.-{2 * number - 2}.")
        key = key.replace("mask_head.-", "mask_head.")
        if key.startswith("laterals."):
            _, place, part, *rest = key.split(".")
            before = {"norm": "bn", "projection": "decoder.lateral_projections", "scale": "decoder.scalers"}[part]
            key = ".".join([before, place, *rest])
        if not key.startswith("encoder."):
            renamed[f"network.{key}"] = value
    return renamed


def test_a_released_decoder_is_put_on_an_encoder(tmp_path: Path) -> None:
    whole = filled(PMT(5, **SMALL)).eval()
    whole.mask_probabilities = [0.0, 0.25, 1.0]
    torch.save(authors_names(whole), tmp_path / "decoder.pth")
    torch.save(whole.encoder.state_dict(), tmp_path / "vit.pth")
    files = {"weights": str(tmp_path / "vit.pth"), "decoder": str(tmp_path / "decoder.pth")}
    ours = PMT(5, **SMALL, **files).eval()
    assert ours.mask_probabilities == [0.0, 0.25, 1.0]
    for key, value in whole.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    other = authors_names(PMT(6, **SMALL))
    torch.save(other, tmp_path / "decoder.pth")
    with pytest.raises(SegfolioError, match=r"decoder\.pth: .* class_predictor\.weight \[7, 64\] for \[6, 64\]"):
        PMT(5, **SMALL, **files)


@pytest.mark.parametrize("backbone", ["test_vit", "vit_tiny_patch16_dinov3_qkvb"])
def test_an_encoder_is_frozen_and_no_graph_is_kept_of_it(backbone: str) -> None:
    network = PMT(5, **{**TINY, "backbone": backbone}).train()
    assert not network.encoder.training
    assert not any(p.requires_grad for p in network.encoder.parameters())
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    network(images).mask_logits.sum().backward()
    assert images.grad is None
    assert network.layers[0].mlp.up_proj.weight.grad is not None
    trained = PMT(5, **{**TINY, "backbone": backbone, "frozen": False}).train()
    trained(images).mask_logits.sum().backward()
    assert images.grad.abs().max() > 0
    assert trained.encoder.training


@pytest.mark.parametrize(("backbone", "scaled"), [("test_vit", True), ("vit_tiny_patch16_dinov3_qkvb", False)])
def test_positions_of_the_decoder_are_scaled_in_training_beside_other_encoders_than_dinov3s(
    backbone: str, scaled: bool
) -> None:
    network, images = PMT(5, **{**TINY, "backbone": backbone}).train(), torch.zeros(1, 3, 64, 64)
    first, second = (network.rope_embeddings(images)[0] for _ in range(2))
    assert torch.equal(first, second) != scaled


def test_the_licence_of_dinov3_is_told(tmp_path: Path) -> None:
    backbone = "vit_tiny_patch16_dinov3_qkvb"
    torch.save(timm.create_model(backbone).state_dict(), tmp_path / "vit.pth")
    arguments = {**TINY, "backbone": backbone, "taps": None}
    with pytest.warns(UserWarning, match="are under the DINOv3 License"):
        network = PMT(5, **arguments, weights=str(tmp_path / "vit.pth"))
    assert network.taps == (2, 5, 8, 11)


def test_a_vit_of_other_patches_and_size_is_resampled(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit", img_size=112, patch_size=14).state_dict(), tmp_path / "vit.pth")
    network = PMT(5, **TINY, weights=str(tmp_path / "vit.pth"))
    assert network.encoder.pos_embed.shape == (1, 17, 64)
    assert network.encoder.patch_embed.proj.weight.shape[2:] == (16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"taps": (2, 6)}, r"taps \[2, 6\]; give a block or more, and taps from 0 to 5, the blocks of test_vit"),
        ({"num_blocks": 0}, "PMT: num_blocks 0"),
        ({"patch_size": 14}, "patch_size of PMT is 14, expected 8, 16, 32"),
        ({"backbone": "resnet18"}, "backbone resnet18 is no plain ViT"),
        ({"weights": "lvd1689m"}, "lvd1689m is neither a file"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_does_not_fit_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(SegfolioError, match=message):
        PMT(5, **{**TINY, **arguments})
