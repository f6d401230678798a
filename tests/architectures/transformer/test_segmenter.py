"""Segmenter: its decoders by hand, the authors' checkpoints, positions, memory."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from benchmarks.confusion_matrix import peak_bytes
from segfolio.architectures.transformer.segmenter import MaskDecoder, Segmenter
from segfolio.errors import SegfolioError
from segfolio.layers.hollow import hollow

TINY = {**Segmenter.tiny, "patch_size": 16}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("variant", "millions"),
    [
        ("Seg-Ti-Mask/16", 7),
        ("Seg-S-Mask/16", 26),  # printed: 27
        ("Seg-B-Mask/16", 103),  # printed: 106, more than the release builds
        ("Seg-L-Mask/16", 334),
        ("Seg-B/8", 89),
        ("Seg-B†/16", 87),
        ("Seg-B†-Mask/16", 103),  # printed: 106
    ],
)
def test_parameters_are_the_authors_with_the_classifier_of_imagenet_that_their_encoder_has(
    variant: str, millions: int
) -> None:
    assert round(parameters(150, Segmenter.variants[variant]) / 1e6) == millions


def test_the_parameters_on_cityscapes_are_those_of_a_decoder_of_one_block() -> None:
    large = {"backbone": "vit_large_patch16_384", "image_size": 768, "decoder_blocks": 1}
    assert round(parameters(19, large) / 1e6) == 322


def parameters(num_classes: int, arguments: dict[str, Any]) -> int:
    with hollow():
        network = Segmenter(num_classes, **arguments)
    classifier = 1000 * (network.encoder.embed_dim + 1)
    return sum(p.numel() for p in network.parameters()) + classifier


def test_a_class_is_scored_at_a_patch_by_their_cosine_normalised_over_the_classes() -> None:
    """Equation 2 and the release, patch by patch."""
    decoder = MaskDecoder(64, 3, blocks=2, dropout=0.1).eval()
    patches = torch.randn(2, 4, 64)
    with torch.no_grad():
        found = decoder(patches)
        tokens = torch.cat([decoder.proj_dec(patches), decoder.cls_emb.repeat(2, 1, 1)], 1)
        for block in decoder.blocks:
            tokens = block(tokens)
        tokens = decoder.decoder_norm(tokens)
        for image in range(2):
            for patch in range(4):
                a = tokens[image, patch] @ decoder.proj_patch
                cosines = []
                for token in tokens[image, 4:]:
                    b = token @ decoder.proj_classes
                    cosines.append(a @ b / (a.norm() * b.norm()))
                torch.testing.assert_close(found[image, patch], decoder.mask_norm(torch.stack(cosines)))


@pytest.mark.parametrize("decoder", ["linear", "mask"])
def test_an_image_of_other_size_is_padded_and_its_logits_cut(decoder: Any) -> None:
    network = Segmenter(3, decoder=decoder, **TINY).eval()
    images = torch.randn(1, 3, 50, 96)
    with torch.no_grad():
        whole = network(pad(images, (0, 0, 0, 14)))
        assert whole.shape == (1, 3, 4, 6)
        expected = interpolate(whole, (64, 96), mode="bilinear")[:, :, :50]
        torch.testing.assert_close(network(images), expected)


def test_positions_of_another_size_give_the_logits_of_a_table_of_that_size() -> None:
    small, large = Segmenter(3, **TINY).eval(), Segmenter(3, **{**TINY, "image_size": 96}).eval()
    table = small.encoder.pos_embed
    grid = interpolate(table[:, 1:].transpose(1, 2).unflatten(2, (4, 4)), (6, 6), mode="bilinear")
    positions = torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    large.load_state_dict({**small.state_dict(), "encoder.pos_embed": positions})
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(small(images), large(images))


def test_a_checkpoint_of_the_authors_loads(tmp_path: Path) -> None:
    """Of their names, beside the state of the optimiser, with the encoder's classifier of ImageNet."""
    network = Segmenter(5, **TINY).eval()
    state = network.state_dict()
    names = {key.split(".")[1] for key in state if key.startswith("decoder.")}
    assert names == {"cls_emb", "proj_dec", "proj_patch", "proj_classes", "decoder_norm", "mask_norm", "blocks"}
    model = {**state, "encoder.head.weight": torch.zeros(1000, 64), "encoder.head.bias": torch.zeros(1000)}
    torch.save({"model": model, "n_cls": 5, "optimizer": {"state": {}}, "epoch": 3}, tmp_path / "checkpoint.pth")
    copy = Segmenter(5, **TINY, weights=str(tmp_path / "checkpoint.pth")).eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(copy(images), network(images))


def test_a_classifier_of_timm_loads_and_the_decoder_stays_new(tmp_path: Path) -> None:
    given = timm.create_model("test_vit", img_size=160)
    torch.save(given.state_dict(), tmp_path / "vit.pth")
    network = Segmenter(5, **TINY, weights=str(tmp_path / "vit.pth"))
    assert torch.equal(network.encoder.blocks[5].attn.qkv.weight, given.blocks[5].attn.qkv.weight)
    assert network.encoder.pos_embed.shape == (1, 17, 64)


@pytest.mark.parametrize(("saved", "built"), [("linear", "mask"), ("mask", "linear")])
def test_a_file_of_the_other_decoder_is_refused(tmp_path: Path, saved: Any, built: Any) -> None:
    torch.save(Segmenter(5, **TINY, decoder=saved).state_dict(), tmp_path / "other.pth")
    with pytest.raises(SegfolioError, match=r"other.pth: \d+ of the weights are missing: decoder\..*78 would fit"):
        Segmenter(5, **TINY, decoder=built, weights=str(tmp_path / "other.pth"))


def test_stochastic_depth_grows_from_nothing_to_its_rate() -> None:
    blocks = Segmenter(5, **TINY, drop_path=0.5).encoder.blocks
    assert [getattr(b.drop_path1, "drop_prob", 0.0) for b in blocks] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def trained(network: nn.Module, images: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    network.zero_grad(set_to_none=False)  # whose memory is not that of activations
    network.train()(images).square().mean().backward()
    return [p.grad for p in network.parameters()]


def test_checkpointing_takes_a_quarter_of_the_memory_and_gives_the_same_gradients() -> None:
    plain, sparing = (
        Segmenter(5, "vit_tiny_patch16_384", decoder="linear", image_size=128, checkpointing=given)
        for given in (False, True)
    )
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 128, 128)
    for a, b in zip(trained(plain, images), trained(sparing, images), strict=True):
        torch.testing.assert_close(a, b)
    assert peak_bytes(lambda: trained(sparing, images)) < 0.25 * peak_bytes(lambda: trained(plain, images))


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match=r"images of 12x64 pixels, smaller than a patch of 16x16"):
        Segmenter(5, **TINY)(torch.randn(1, 3, 12, 64))
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "16.pth")
    with pytest.raises(SegfolioError, match=r"16.pth is of patches of 16x16 pixels and the network's are 8x8"):
        Segmenter(5, **Segmenter.tiny, weights=str(tmp_path / "16.pth"))
