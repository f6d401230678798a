"""FCN: Table 1, the crops of the Caffe networks, torchvision's weights, the stages of training."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn
from torchvision.models import alexnet, googlenet, vgg16

from segfolio.architectures.encoder_decoder import fcn
from segfolio.architectures.encoder_decoder.fcn import FCN, BilinearUpsampling, Inception, Skip
from segfolio.errors import SegfolioError

EXPERIMENTS = [
    path
    for path in sorted((Path(__file__).parents[3] / "experiments/fcn").glob("*.yaml"))
    if "encoder_decoder.fcn.FCN" in path.read_text()  # the others are figures alone, or torchvision's network
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def on_meta(num_classes: int = 21, **arguments: Any) -> FCN:
    with torch.device("meta"):
        return FCN(num_classes, **arguments)


def conv_layers(net: FCN) -> int:
    """Convolutions from image to scores; an inception module is two deep."""
    return 1 + sum(2 if isinstance(m, Inception) else isinstance(m, nn.Conv2d) for m in net.trunk)


@pytest.mark.parametrize(
    ("backbone", "layers", "millions", "field"),
    [("alexnet", 8, 57, 355), ("vgg16", 16, 134, 404), ("googlenet", 22, 6, 907)],
)
def test_table_1(backbone: str, layers: int, millions: int, field: int) -> None:
    net = on_meta(backbone=backbone, stride=32)
    assert net.geometry() == (field, 32)
    assert conv_layers(net) == layers
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == millions


@pytest.mark.parametrize(
    ("arguments", "crops"),
    [
        ({"stride": 32}, [19]),
        ({"stride": 16}, [27, 5]),
        ({"stride": 8}, [31, 5, 9]),
        ({"stride": 32, "backbone": "alexnet"}, [18]),
    ],
)
def test_crops_are_those_of_the_caffe_networks(arguments: dict[str, Any], crops: list[int]) -> None:
    net = on_meta(**arguments)
    assert [net.crop, *(skip.crop for skip in net.skips.values())] == crops


PATHS = [
    *(("score", variant) for variant in FCN.variants.values()),
    ("skips.pool4.score", {"stride": 16}),
    ("skips.pool4.score", {"stride": 8}),
    ("skips.pool3.score", {"stride": 8}),
]


@pytest.mark.parametrize(("path", "arguments"), PATHS, ids=str)
def test_every_logit_looks_at_its_own_pixel(path: str, arguments: dict[str, Any]) -> None:
    # With equal weights and average pooling a logit is a mean of the pixels around the one it belongs to.
    net = FCN(1, **arguments, **FCN.tiny).eval()
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
                module.add_module(name, pool)
    for p in net.trunk.parameters():
        nn.init.constant_(p, 0 if p.ndim == 1 else 1 / p[0].numel())
    nn.init.ones_(net.get_submodule(path).weight)

    size = net.geometry()[0] + 70
    images = torch.ones(1, 3, size, 40, requires_grad=True)
    logits = net(images)
    for pixel in (size // 2 - 16, size // 2, size // 2 + 7):
        (gradient,) = torch.autograd.grad(logits[0, 0, pixel, 20], images, retain_graph=True)
        weight = gradient.sum(dim=(0, 1, 3)).double()
        centre = (weight * torch.arange(size)).sum() / weight.sum()
        assert centre.item() == pytest.approx(pixel, abs=0.01)


@pytest.mark.parametrize("kernel_size", [15, 16])
def test_upsampling_keeps_a_ramp(kernel_size: int) -> None:
    ramp = torch.arange(6.0).expand(1, 2, 6, 6)
    upsampled = BilinearUpsampling(2, kernel_size, 8)(ramp)[0, 1, 20]
    centre = (kernel_size - 1) / 2
    inside = torch.arange(upsampled.numel())[kernel_size:-kernel_size]
    torch.testing.assert_close(upsampled[inside], (inside - centre) / 8)


def test_upsampling_is_bilinear_interpolation() -> None:
    x = torch.randn(1, 3, 7, 5)
    upsampled = BilinearUpsampling(3, 4, 2)(x)[..., 3:-3, 3:-3]
    torch.testing.assert_close(upsampled, F.interpolate(x, scale_factor=2.0, mode="bilinear")[..., 2:-2, 2:-2])


@pytest.mark.parametrize("variant", FCN.variants, ids=str)
def test_scores_cover_every_size(variant: str) -> None:
    net = on_meta(1, **FCN.variants[variant], **FCN.tiny)
    for height in range(32, 97):
        assert net(torch.empty(1, 3, height, 160 - height, device="meta")).shape[-2:] == (
            height,
            160 - height,
        )


def test_starts_from_zero_scores() -> None:
    assert not FCN(3, **FCN.tiny)(torch.randn(1, 3, 40, 33)).any()


def test_skip_scales_features_before_they_are_scored() -> None:
    skip = Skip(4, num_classes=2, scale=0.01, crop=5, learned=False)
    nn.init.ones_(skip.score.weight)
    features = torch.ones(1, 4, 15, 15)
    torch.testing.assert_close(skip(torch.zeros(1, 2, 2, 2), features), torch.full((1, 2, 6, 6), 0.04))


def give(monkeypatch: pytest.MonkeyPatch, classifier: nn.Module) -> None:
    monkeypatch.setattr(fcn, "read_weights", lambda *_: classifier.state_dict())


@pytest.mark.parametrize(("backbone", "padding"), [("vgg16", 1), ("alexnet", 2)])
def test_trunk_is_torchvisions_classifier(backbone: str, padding: int, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = {"vgg16": lambda: vgg16(init_weights=False), "alexnet": alexnet}[backbone]().eval()
    give(monkeypatch, classifier)
    net = FCN(2, backbone=backbone, stride=32, weights="IMAGENET1K_V1").eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        fc7 = classifier.classifier[:-1](classifier.features(images).flatten(1))
        convolved = net.trunk[1:](F.pad(images, [padding] * 4))
    assert convolved.shape == (1, 4096, 1, 1)
    torch.testing.assert_close(convolved[0, :, 0, 0], fc7[0])
    if backbone == "vgg16":  # truncated, it takes as many of the weights as it has layers
        truncated = FCN(2, stride=8, truncated=True, weights="IMAGENET1K_V1")
        assert torch.equal(truncated.trunk.conv3_3.weight, classifier.features[14].weight)


def test_trunk_is_torchvisions_googlenet(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = googlenet(transform_input=True, init_weights=False).eval()
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
    give(monkeypatch, classifier)
    net = FCN(2, backbone="googlenet", stride=32, weights="IMAGENET1K_V1").eval()
    net.trunk.pool4 = classifier.maxpool4  # 2x2 there
    classifier.fc, features = nn.Identity(), net.trunk[1:]
    images = torch.randn(1, 3, 224, 224)
    grey = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    padded = grey[:, None, None].repeat(1, 1, 230, 230)  # what torchvision's zero padding stands for
    padded[..., 3:-3, 3:-3] = images
    with torch.no_grad():
        torch.testing.assert_close(features(padded).flatten(1), classifier(images), rtol=1e-4, atol=1e-5)


def save(net: FCN, path: Path) -> str:
    torch.save({"state_dict": {f"network.{k}": v for k, v in net.state_dict().items()}}, path)
    return str(path)


def test_staged_training(tmp_path: Path) -> None:
    coarse = FCN(3, stride=32, **FCN.tiny)
    nn.init.ones_(coarse.score.weight)
    middle = FCN(3, stride=16, weights=save(coarse, tmp_path / "32s.ckpt"), **FCN.tiny)
    assert torch.equal(middle.score.weight, coarse.score.weight)
    assert torch.equal(middle.trunk.fc6.weight, coarse.trunk.fc6.weight)
    assert not middle.skips.pool4.score.weight.any()
    nn.init.ones_(middle.skips.pool4.score.weight)
    fine = FCN(3, stride=8, weights=save(middle, tmp_path / "16s.ckpt"), **FCN.tiny)
    assert fine.skips.pool4.score.weight.all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 8}, "missing: skips.pool4.score.weight"),
        (
            {"stride": 16, "num_classes": 5},
            r"another shape: score.weight \[3, 256, 1, 1\] for \[5, 256, 1, 1\]",
        ),
        ({"stride": 32, "truncated": True}, "not of this network: trunk.fc6.weight"),
    ],
)
def test_weights_of_another_network_are_an_error(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    path = save(FCN(3, stride=32, **FCN.tiny), tmp_path / "32s.ckpt")
    with pytest.raises(SegfolioError, match=message):
        FCN(**{"num_classes": 3} | arguments | FCN.tiny, weights=path)


def test_weights_of_another_classifier_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, alexnet())
    with pytest.raises(SegfolioError, match=r"of the weights are missing: conv1_2\.weight"):
        on_meta(weights="IMAGENET1K_V1")


@pytest.mark.parametrize(
    ("arguments", "learned"),
    [
        ({"stride": 8}, {"score", "skips.pool4.score", "skips.pool3.score"}),
        ({"stride": 16, "learned_upsampling": True}, {"score", "skips.pool4.score", "skips.pool4.upsample"}),
    ],
)
def test_frozen_backbone_learns_the_scores_alone(arguments: dict[str, Any], learned: set[str]) -> None:
    net = on_meta(**arguments, frozen_backbone=True)
    assert {name.rpartition(".")[0] for name, p in net.named_parameters() if p.requires_grad} == learned


@pytest.mark.parametrize("arguments", [{"backbone": "alexnet"}, {"stride": 4}], ids=str)
def test_stride_that_does_not_exist_is_an_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(SegfolioError, match="vgg16 has 32, 16 and 8, alexnet and googlenet have 32"):
        FCN(2, **arguments)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_builds_the_network_of_its_name(path: Path) -> None:
    model = yaml.safe_load(path.read_text())["model"]
    arguments = model["init_args"]["architecture"]["init_args"]
    net = on_meta(**arguments | {"weights": None})
    pool = fcn.POOLS[net.stride]
    assert (pool if arguments.get("truncated") else f"fcn{net.stride}s") in path.stem or net.backbone in path.stem
    assert ("fixed" in path.stem) == (not net.trunk.conv1_1.weight.requires_grad)
    assert ("staged" in path.stem) == ("voc2011_fcn16s/" in arguments["weights"])
