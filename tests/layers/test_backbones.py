"""Backbones by timm's names: weights of timm and of transformers' releases end up where they belong."""

from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from transformers import AutoBackbone, MaskFormerSwinConfig

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import SWINS, backbone_config, crop_quarter, freeze_unused, pad_to
from segfolio.weights.backbones import load_encoder, load_pretrained

SWIN = "swin_tiny_patch4_window7_224"


def own_swin(kind: str) -> nn.Module:
    """A small Swin of transformers, of those that Mask2Former (swin) and MaskFormer (maskformer-swin) have."""
    config = backbone_config(SWIN)
    if kind == "maskformer-swin":
        config = MaskFormerSwinConfig.from_dict(config.to_dict())
        config.out_features = ["stage1", "stage2", "stage3", "stage4"]
    return AutoBackbone.from_config(config).eval()


@pytest.fixture
def small_swin(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """timm's state dict of a Swin that is as small as `SWIN` is here."""
    monkeypatch.setitem(SWINS, "tiny", (16, (1, 2, 1, 1), (1, 2, 2, 4)))
    small = {"embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4)}
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **more: create(name, **more, **small))
    torch.manual_seed(0)
    swin = timm.create_model(SWIN)
    for p in swin.parameters():
        nn.init.normal_(p, std=0.1)
    return swin.state_dict()


@pytest.mark.parametrize("kind", ["swin", "maskformer-swin"])
def test_a_swin_has_the_features_of_timms(small_swin: dict[str, Tensor], kind: str) -> None:
    theirs = timm.create_model(SWIN, features_only=True).eval()
    theirs.load_state_dict({k.replace("layers.", "layers_"): v for k, v in small_swin.items()}, strict=False)
    ours = own_swin(kind)
    load_encoder(ours, small_swin, "file", SWIN)
    images = torch.randn(1, 3, 224, 224)
    for mine, timms in zip(ours(images).feature_maps, theirs(images), strict=True):
        torch.testing.assert_close(mine.movedim(1, -1), layer_norm(timms, timms.shape[-1:]), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["swin", "maskformer-swin"])
def test_the_norm_that_nothing_reads_is_frozen(small_swin: dict[str, Tensor], kind: str) -> None:
    swin = own_swin(kind)
    freeze_unused(swin)
    sum(f.sum() for f in swin(torch.randn(1, 3, 64, 64)).feature_maps).backward()
    assert [n for n, p in swin.named_parameters() if p.requires_grad == (p.grad is None)] == []


def test_another_swin_does_not_fit(small_swin: dict[str, Tensor]) -> None:
    deeper = small_swin | {"layers.3.blocks.7.attn.relative_position_bias_table": torch.zeros(169, 4)}
    shallower = {k: v for k, v in small_swin.items() if "layers.3" not in k}
    for state, message in ((deeper, f"file does not hold weights of {SWIN}"), (shallower, "weights are missing")):
        with pytest.raises(SegfolioError, match=message):
            load_encoder(own_swin("swin"), state, "file", SWIN)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_a_classifier_of_timm_becomes_the_encoder(name: str) -> None:
    torch.manual_seed(0)
    classifier = timm.create_model(name).eval()
    encoder = AutoBackbone.from_config(backbone_config(name)).eval()
    load_encoder(encoder, classifier.state_dict(), "file", name)
    images = torch.randn(1, 3, 64, 96)
    features = encoder(images).feature_maps
    assert [64 // f.shape[2] for f in features] == [4, 8, 16, 32]
    own = {k.replace(".", "_"): v for k, v in classifier.state_dict().items()}
    assert all(torch.equal(v, own[k.replace(".", "_")]) for k, v in encoder._backbone.state_dict().items())


def test_images_are_padded_on_the_right_and_below_and_maps_cropped() -> None:
    images = torch.ones(1, 3, 65, 97)
    padded = pad_to(images, 32)
    assert padded.shape == (1, 3, 96, 128)
    assert padded.sum() == images.sum() == padded[..., :65, :97].sum()
    assert crop_quarter(torch.zeros(1, 2, 24, 32), images).shape == (1, 2, 17, 25)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("resnet5", "timm has no backbone 'resnet5'; did you mean one of .*resnet50"),
        ("test_vit", "test_vit has no features of strides 4, 8, 16 and 32"),
        ("swin_giant_patch4_window7_224", "timm has no backbone 'swin_giant_patch4_window7_224'"),
    ],
)
def test_backbones_that_do_not_do(backbone: str, message: str) -> None:
    with pytest.raises(SegfolioError, match=message):
        backbone_config(backbone)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("imagenet", r"imagenet is neither a file, .* timm's weights for resnet50 \(.*tv_in1k"),
        ("tv_in1k", r"timm/resnet50.tv_in1k is not in .*, nor .*`hf download timm/resnet50.tv_in1k`"),
        ("facebook/maskformer-swin-tiny-ade", "facebook/maskformer-swin-tiny-ade is not in .*, nor to be downloaded"),
        ("empty", "empty does not hold weights for transformers' MaskFormerForInstanceSegmentation"),
    ],
)
def test_weights_that_are_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: str, message: str
) -> None:
    from transformers import MaskFormerForInstanceSegmentation as Released

    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SegfolioError, match=message):
        load_pretrained(nn.Linear(1, 1), weights, "resnet50", Released, pytest.fail)


def test_weights_in_the_cache_are_read_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    repository = tmp_path / "models--timm--test_convnext.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(snapshot.name)
    save_file(timm.create_model("test_convnext").state_dict(), snapshot / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("segfolio.weights.hub.snapshot_download", lambda *_, **__: pytest.fail("asks"))
    read: list[dict[str, Tensor]] = []
    load_pretrained(nn.Linear(1, 1), "r160_in1k", "test_convnext", None, read.append)
    assert read[0].keys() == timm.create_model("test_convnext").state_dict().keys()
