"""Networks as pictures show them: of as many classes as their weights have, on images as their recipes say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from segfolio.architectures.encoder_decoder.unet import UNet
from segfolio.architectures.transformer.segformer import SegFormer
from segfolio.architectures.transformer.segmenter import Segmenter
from segfolio.architectures.transformer.swin_upernet import SwinUPerNet
from segfolio.contents import architectures
from segfolio.data.formats.images import read_image, write_image
from segfolio.errors import SegfolioError
from segfolio.viz.variants import built, classes_in, for_each, normalisation, pictures

EXPERIMENTS = Path(__file__).parents[2]


@pytest.mark.parametrize("classes", [2, 21, 150])
@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (SegFormer, SegFormer.tiny),
        (SwinUPerNet, SwinUPerNet.tiny),
        (Segmenter, Segmenter.tiny),
        (Segmenter, {**Segmenter.tiny, "decoder": "linear"}),
    ],
)
def test_a_file_tells_the_classes_of_its_network(cls: Any, arguments: dict[str, Any], classes: int) -> None:
    state = {f"of_a_library.{name}": value for name, value in cls(classes, **arguments).state_dict().items()}
    assert classes_in(state, lambda count: cls(count, **arguments)) == classes


def test_a_file_of_the_encoder_alone_tells_none() -> None:
    state = SegFormer(5, **SegFormer.tiny).encoder.state_dict()
    assert classes_in(state, lambda count: SegFormer(count, **SegFormer.tiny)) == 21


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    class Mit(SegFormer):
        variants = {"SegFormer, small": SegFormer.tiny}

    class Seg(Segmenter):
        variants = {"Seg, small": Segmenter.tiny}

    class Net(UNet):
        variants = {"U-Net, small": {"width": 2}}

    monkeypatch.setattr("segfolio.viz.variants.architecture_classes", lambda: iter([Mit, Seg, Net]))
    torch.save(SegFormer(150, **SegFormer.tiny).state_dict(), tmp_path / "ade20k.pth")
    torch.save(Segmenter(19, **Segmenter.tiny).state_dict(), tmp_path / "cityscapes.pth")
    return tmp_path


def test_trained_networks_are_drawn_each_with_weights_of_its_own(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("SegFormer, small", "U-Net, small", "Seg, small")
    weights = (str(few / "ade20k.pth"), "random", str(few / "cityscapes.pth"))
    output = few / "erf.png"
    architectures(["--erf", *names, "--weights", *weights, "--size", "64", "--output", str(output)])
    told = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.startswith(names)]
    assert [row[0] for row in told] == [names[0]] * 5 + [*names[1:]]
    assert "random weights" in "  ".join(told[5])
    assert all(str(few / "ade20k.pth") in "  ".join(row) for row in told[:5])
    picture = read_image(output)
    assert picture.shape[1] > 5 * 320  # a line for each network: four stages and logits
    assert picture.shape[0] > 3 * 320
    middle = len(picture) // 2
    assert (
        picture[middle - 50 : middle + 50, :1200] == 255
    ).all()  # a network without stages has its logits below the others'


def test_attention_is_drawn_of_trained_networks(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["Seg, small", "--weights", str(few / "cityscapes.pth"), "--size", "64", "--output", str(few / "at.png")]
    architectures(["--attention", *given])
    assert "encoder.5, decoder.0, decoder.1" in capsys.readouterr().out
    assert read_image(few / "at.png").std() > 20


def run_of_its_own(folder: Path, classes: int, **more: Any) -> Path:
    """A checkpoint of a Segmenter that is none of its variants."""
    arguments = {**Segmenter.tiny, "decoder_blocks": 1}
    network = {"class_path": f"{Segmenter.__module__}.Segmenter", "init_args": {**arguments, "weights": "augreg"}}
    model = {"class_path": "segfolio.families.PerPixel", "init_args": {"architecture": network, **more}}
    (folder / "checkpoints").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": model}))
    state = {f"network.{name}": value for name, value in Segmenter(classes, **arguments).state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
    return folder / "checkpoints" / "last.ckpt"


def test_a_runs_checkpoint_makes_the_network_of_its_config(tmp_path: Path) -> None:
    file = run_of_its_own(tmp_path, 11, mean=[0.2], std=[0.4, 0.5, 0.6])
    network: Any = built("Seg-Ti-Mask/16", Segmenter, {"backbone": "vit_tiny_patch16_384"}, str(file))
    assert len(network.decoder.blocks) == 1
    assert network.decoder.cls_emb.shape[1] == 11
    key = "network.decoder.cls_emb"
    assert torch.equal(network.decoder.cls_emb, torch.load(file)["state_dict"][key])
    normal = normalisation(Segmenter, {}, str(file))
    assert (list(normal.mean), list(normal.std), normal.source) == ([0.2] * 3, [0.4, 0.5, 0.6], "its run")
    with pytest.raises(SegfolioError, match=r"is of a run of .*segmenter\.Segmenter; SegFormer-B0 is .*SegFormer"):
        built("SegFormer-B0", SegFormer, {}, str(file))


@pytest.mark.parametrize(
    ("cls", "name", "mean", "source"),
    [
        (Segmenter, "Seg-Ti-Mask/16", 0.5, "segmenter/ade20k_tiny_mask"),
        (Segmenter, "Seg-B†-Mask/16", 0.485, "segmenter/ade20k_base_deit_mask"),
        (SegFormer, "SegFormer-B0", 0.485, "segformer/ade20k_b0"),
        (UNet, None, 0.485, "ImageNet"),
    ],
)
def test_images_are_normalised_as_the_recipe_says(
    cls: Any, name: str | None, mean: float, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXPERIMENTS)
    found = normalisation(cls, cls.variants[name] if name else {"width": 3}, None)
    assert (found.mean[0], found.source) == (mean, source)


def test_pictures_are_from_0_to_1_and_normalised_for_each_network(tmp_path: Path) -> None:
    write_image(tmp_path / "grey.png", np.full((20, 30, 3), 51, dtype=np.uint8))
    (image,) = pictures(tmp_path / "grey.png", 16)
    assert torch.allclose(image, torch.full((3, 16, 16), 0.2))
    noise = torch.stack(pictures(None, 64))
    usual = normalisation(UNet, {"width": 3}, None)
    seen: Tensor = torch.stack([usual.done(each) for each in noise])
    assert seen.mean().abs() < 0.02
    assert (seen.std() - 1).abs() < 0.02


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ([], [None, None]),
        (["a.pth"], ["a.pth", "a.pth"]),
        (["random", "b.pth"], [None, "b.pth"]),
    ],
)
def test_weights_are_one_for_all_or_one_for_each(weights: list[str], found: list[str | None]) -> None:
    assert for_each(["A", "B"], weights) == found
    with pytest.raises(SegfolioError, match="--weights gives 3 for 2 networks; give one for all or one for each"):
        for_each(["A", "B"], ["a", "b", "c"])


def test_weights_of_another_network_are_told(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 5, 1).state_dict(), tmp_path / "other.pth")
    with pytest.raises(SegfolioError, match=r"other\.pth"):
        built("SegFormer, small", SegFormer, SegFormer.tiny, str(tmp_path / "other.pth"))
