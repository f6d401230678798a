"""Attention maps, and the command that draws them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segfolio.architectures.encoder_decoder.unet import UNet
from segfolio.architectures.transformer.segmenter import Segmenter
from segfolio.contents import architectures
from segfolio.data.formats.images import read_image, write_image
from segfolio.errors import SegfolioError
from segfolio.viz.attention import attention_maps


@pytest.fixture
def network() -> Segmenter:
    torch.manual_seed(0)
    network = Segmenter(3, **Segmenter.tiny).eval()
    for block in (*network.encoder.blocks, *network.decoder.blocks):
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
        nn.init.normal_(block.attn.qkv.bias)
    return network


def test_maps_are_the_attention_that_the_blocks_compute(network: Segmenter) -> None:
    """Head by head; of the encoder the class token is first, of the decoder those of the classes are last."""
    image = torch.randn(3, 40, 48)
    found = attention_maps(network, image)
    assert list(found) == [*(f"encoder.{block}" for block in range(6)), "decoder.0", "decoder.1"]
    inputs = {}
    for part in ("encoder", "decoder"):
        for number, block in enumerate(getattr(network, part).blocks):
            name = f"{part}.{number}"
            block.attn.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0][0]}))
    with torch.no_grad():
        network(image[None])
    for name, shares in found.items():
        part, number = name.split(".")
        attention = getattr(network, part).blocks[int(number)].attn
        tokens, width = inputs[name], attention.qkv.in_features
        first = 1 if part == "encoder" else 0
        assert len(tokens) == 30 + (1 if part == "encoder" else 3)
        query, key, _ = (tokens @ attention.qkv.weight.T + attention.qkv.bias).split(width, -1)
        heads = width // attention.num_heads
        total = torch.zeros(len(tokens))
        for start in range(0, width, heads):
            channels = slice(start, start + heads)
            scores = query[first + 2 * 6 + 3, channels] @ key[:, channels].T / heads**0.5
            total += scores.softmax(0) / attention.num_heads
        expected = total[first : first + 30].view(5, 6).detach().numpy()
        np.testing.assert_allclose(shares, expected, rtol=1e-4, atol=1e-6)
        assert 0.1 < shares.sum() < 1


def test_the_network_is_left_as_it_was(network: Segmenter) -> None:
    attention_maps(network, torch.randn(3, 64, 64))
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(Segmenter):
        variants = {"Seg, small": Segmenter.tiny, "Seg, linear": {**Segmenter.tiny, "decoder": "linear"}}

    class Other(UNet):
        variants = {"U-Net, small": {"width": 2}}

    monkeypatch.setattr("segfolio.viz.variants.architecture_classes", lambda: iter([Small, Other]))


def test_the_command_writes_a_picture_that_says_that_weights_are_random(few: None, tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    write_image(tmp_path / "photograph.png", rng.integers(0, 255, (50, 70, 3), dtype=np.uint8))
    out = tmp_path / "attention.png"
    names = ("Seg, small", "Seg, linear")
    images = str(tmp_path / "photograph.png")
    architectures(["--attention", *names, "--size", "64", "--images", images, "--output", str(out)])
    said = capsys.readouterr().out
    assert "Seg, small" in said
    assert "encoder.5, decoder.0, decoder.1" in said
    assert "random weights" in said
    assert f"written: {out}" in said
    picture = read_image(out)
    assert picture.shape[1] > 4 * 320  # four columns, and 1 + 8 + 6 tiles
    assert picture.shape[0] > 4 * 320
    assert picture.std() > 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("Seg, smal",), "no architecture 'Seg, smal'; did you mean 'Seg, small'"),
        (("U-Net, small", "--size", "32"), "has no blocks of a plain ViT; attention is drawn of Segmenter, SETR"),
        (("Seg, small", "--size", "60"), "the image is of 60x60 pixels; give a --size of whole patches of 8x8"),
        (("Seg, small", "--erf", "Seg, small"), "--erf and --attention are two pictures; give one of them"),
        (("Seg, small", "--output", "attention.txt"), "--output attention.txt is no name of a picture"),
    ],
)
def test_a_mistake_is_one_sentence(few: None, arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(SegfolioError, match=says):
        architectures(["--attention", *arguments])
