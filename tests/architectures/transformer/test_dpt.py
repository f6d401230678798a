"""DPT against transformers' under the same weights, positions, memory."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import DPTConfig, DPTForSemanticSegmentation

from benchmarks.confusion_matrix import peak_bytes
from segfolio.architectures.transformer.dpt import DPT, of_ours
from segfolio.errors import SegfolioError

SMALL: dict[str, Any] = {**DPT.tiny, "dropout": 0.0}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def theirs(image_size: int = 64) -> Any:
    """transformers' on a ViT as timm's `test_vit`, weights large enough to tell one part from another."""
    config = DPTConfig(
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=192,
        image_size=image_size,
        layer_norm_eps=1e-6,
        backbone_out_indices=[0, 1, 3, 5],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        semantic_classifier_dropout=0.0,
        num_labels=5,
    )
    network = DPTForSemanticSegmentation(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.1, 2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1) if parameter.ndim > 1 else nn.init.uniform_(parameter, 0.1, 1)
    return network.eval()


@pytest.mark.parametrize("side", [64, 96, 112])
def test_logits_are_those_of_transformers(side: int) -> None:
    """At the size of the table of positions, at another, and at one of an odd number of patches."""
    their, ours = theirs().double(), DPT(5, **SMALL).double().eval()
    ours.load_state_dict(of_ours(their.state_dict()))
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        expected = their(images).logits
    found = ours(images).logits
    torch.testing.assert_close(found[..., : expected.shape[-2], : expected.shape[-1]], expected[..., :side, :side])


def test_gradients_and_the_auxiliary_logits_are_those_of_transformers() -> None:
    their, ours = theirs().double(), DPT(5, **SMALL).double()
    ours.load_state_dict(of_ours(their.state_dict()))
    their.auxiliary_head.eval().head[3].p = 0.0
    their.train()
    images, target = torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.randint(5, (2, 64, 64))
    their.config.auxiliary_loss_weight = 0.2
    expected = their(images, labels=target).loss
    found = ours(images)
    scores = (found.logits, interpolate(found.auxiliary["aux"], (64, 64), mode="bilinear"))
    main, auxiliary = (nn.functional.cross_entropy(each, target) for each in scores)
    torch.testing.assert_close(main + 0.2 * auxiliary, expected)
    expected.backward()
    (main + 0.2 * auxiliary).backward()
    gradients = of_ours({name: p.grad for name, p in their.named_parameters() if p.grad is not None})
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-5, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


def test_a_released_model_of_another_image_size_loads(tmp_path: Path) -> None:
    their = theirs(96)
    their.save_pretrained(tmp_path)
    ours = DPT(5, **SMALL, weights=str(tmp_path)).eval()
    table = their.dpt.embeddings.position_embeddings
    grid = interpolate(table[:, 1:].transpose(1, 2).unflatten(2, (6, 6)), (4, 4), mode="bilinear")
    torch.testing.assert_close(ours.encoder.pos_embed[:, 1:], grid.flatten(2).transpose(1, 2))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, their(images).logits, rtol=1e-4, atol=1e-4)


def test_a_classifier_of_timm_loads_and_the_rest_stays_new(tmp_path: Path) -> None:
    given = timm.create_model("test_vit", img_size=160)
    torch.save(given.state_dict(), tmp_path / "vit.pth")
    network = DPT(5, **SMALL, weights=str(tmp_path / "vit.pth"))
    assert torch.equal(network.encoder.blocks[4].attn.qkv.weight, given.blocks[4].attn.qkv.weight)


def test_an_image_of_other_size_has_logits_of_its_size() -> None:
    network = DPT(5, **SMALL)
    output = network(torch.randn(2, 3, 50, 90))
    assert output.logits.shape == (2, 5, 50, 90)
    assert output.auxiliary["aux"].shape == (2, 5, 32, 48)
    assert network.eval()(torch.randn(1, 3, 17, 33)).auxiliary == {}
    assert DPT(5, **SMALL, auxiliary=False)(torch.randn(2, 3, 64, 64)).auxiliary == {}


def trained(network: nn.Module, images: Tensor) -> list[Tensor]:
    network.zero_grad(set_to_none=False)  # whose memory is not that of activations
    network.train()(images).logits.square().mean().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def test_checkpointing_takes_a_quarter_of_the_memory_and_gives_the_same_gradients() -> None:
    """Of a narrow decoder, which is not computed again, on a ViT of many channels."""
    small = {"backbone": "vit_tiny_patch16_384", "taps": (2, 5, 8, 11), "channels": (4, 4, 4, 4), "width": 2}
    arguments = {**small, "image_size": 128, "auxiliary": False}
    plain, sparing = (DPT(3, **arguments, checkpointing=given) for given in (False, True))
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 128, 128)
    for part in (plain, sparing):
        part.head[3].p = 0.0
    for a, b in zip(trained(plain, images), trained(sparing, images), strict=True):
        torch.testing.assert_close(a, b)
    assert peak_bytes(lambda: trained(sparing, images)) < 0.25 * peak_bytes(lambda: trained(plain, images))


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match=r"DPT got images of 64x15 pixels, smaller than a patch of 16x16"):
        DPT(5, **SMALL)(torch.randn(1, 3, 64, 15))
    with pytest.raises(SegfolioError, match=r"taps \[1, 2\], channels .* give four of each, the taps of the blocks 0 "):
        DPT(5, **{**SMALL, "taps": (1, 2)})
    torch.save(timm.create_model("vit_tiny_patch16_224", patch_size=32).state_dict(), tmp_path / "32.pth")
    with pytest.raises(SegfolioError, match=r"32.pth is of patches of 32x32 pixels and the network's are 16x16"):
        DPT(5, **SMALL, weights=str(tmp_path / "32.pth"))
