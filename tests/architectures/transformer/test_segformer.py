"""SegFormer against transformers' and segmentation_models.pytorch's, under the same weights."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from transformers import SegformerConfig, SegformerForImageClassification, SegformerForSemanticSegmentation

from benchmarks.confusion_matrix import peak_bytes
from segfolio.architectures.transformer.segformer import LinearHead, SegFormer, of_ours
from segfolio.errors import SegfolioError
from segfolio.layers.counting import flops
from segfolio.layers.hollow import hollow

SMALL: dict[str, Any] = {"channels": (8, 16, 40, 64), "blocks": (2, 1, 2, 1), "width": 24}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def config(**more: Any) -> SegformerConfig:
    """transformers' of `SMALL`, without dropout."""
    return SegformerConfig(  # type: ignore[call-arg]
        num_labels=5,
        hidden_sizes=SMALL["channels"],
        depths=SMALL["blocks"],
        decoder_hidden_size=SMALL["width"],
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
        **more,
    )


def with_epsilon_of_the_release(network: nn.Module) -> Any:
    """transformers' normalisations in and behind the blocks, as the release has them; statistics that are not 0 and 1,
    weights large enough to tell one part from another."""
    for name, module in network.named_modules():
        if isinstance(module, nn.LayerNorm) and "patch_embeddings" not in name and "sequence_reduction" not in name:
            module.eps = 1e-6
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.1, 2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else nn.init.uniform_(parameter, 0.1, 1)
    return network


@pytest.mark.parametrize(
    ("name", "millions"),
    [("B0", 3.8), ("B1", 13.7), ("B2", 27.5), ("B3", 47.3), ("B4", 64.1), ("B5", 84.7)],
)
def test_parameters_are_the_papers(name: str, millions: float) -> None:
    with hollow():
        network = SegFormer(150, **SegFormer.variants[f"SegFormer-{name}"])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(("name", "side", "printed"), [("B0", 512, 8.4), ("B1", 512, 15.9), ("B5", 640, 183.3)])
def test_flops_are_the_papers_but_for_the_fusion_at_stride_4(name: str, side: int, printed: float) -> None:
    """Four levels of `width` channels into as many, at each pixel of the finest."""
    with hollow():
        network = SegFormer(150, **SegFormer.variants[f"SegFormer-{name}"]).eval()

    def run() -> None:
        with torch.device("meta"):
            network(torch.empty(1, 3, side, side))

    fusion = 4 * network.head.fuse.out_channels**2 * (side // 4) ** 2
    assert flops(run) < 0.75e9 * printed
    assert (flops(run) + fusion) / 1e9 == pytest.approx(printed, rel=0.003)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("size", [(64, 96), (65, 97)], ids=str)
def test_logits_gradients_and_statistics_are_those_of_transformers(size: tuple[int, int], training: bool) -> None:
    theirs = with_epsilon_of_the_release(SegformerForSemanticSegmentation(config())).train(training)
    ours = SegFormer(5, **SMALL, drop_path=0.0, dropout=0.0).train(training)
    ours.load_state_dict(of_ours(theirs.state_dict()))
    images, target = torch.randn(2, 3, *size), torch.randint(5, (2, *size))
    for network in (ours, theirs):
        found = network(images)
        logits = found if network is ours else found.logits
        cross_entropy(interpolate(logits, size, mode="bilinear"), target).backward()
        network.logits = logits
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4)
    gradients = of_ours({name: p.grad for name, p in theirs.named_parameters()})
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    statistics = of_ours(dict(theirs.named_buffers()))
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, statistics[name], rtol=1e-4, atol=1e-4)


def test_logits_are_those_of_segmentation_models_pytorch(tmp_path: Path) -> None:
    theirs = with_epsilon_of_the_release(smp.Segformer("mit_b0", encoder_weights=None, classes=5)).eval()
    torch.save(theirs.state_dict(), tmp_path / "smp.pth")
    with pytest.warns(UserWarning, match="no commercial use"):
        ours = SegFormer(5, weights=str(tmp_path / "smp.pth")).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = theirs.segmentation_head[0](theirs.decoder(theirs.encoder(images)))
        torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4)


def test_a_released_model_loads_under_the_names_of_the_hub_and_its_licence_is_said_once(tmp_path: Path) -> None:
    theirs = with_epsilon_of_the_release(SegformerForSemanticSegmentation(config())).eval()
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="NVIDIA") as said:
        ours = SegFormer(5, **SMALL, weights=str(tmp_path)).eval()
    assert [str(warning.message).endswith("which allows no commercial use") for warning in said] == [True]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images).logits, rtol=1e-4, atol=1e-4)


def test_an_encoder_of_either_loads_and_the_head_stays_new(tmp_path: Path) -> None:
    classifier = SegformerForImageClassification(config())
    classifier.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="NVIDIA"):
        ours = SegFormer(7, **SMALL, weights=str(tmp_path))
    expected = of_ours(classifier.state_dict())
    assert expected.keys() == {key for key in ours.state_dict() if key.startswith("encoder.")}
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in expected.items())
    encoder = smp.encoders.get_encoder("mit_b0", weights=None).state_dict()
    assert of_ours(encoder).keys() == {key for key in SegFormer(7).state_dict() if key.startswith("encoder.")}


def test_weights_of_its_own_have_no_licence_to_tell(tmp_path: Path) -> None:
    torch.save(SegFormer(5, **SMALL).state_dict(), tmp_path / "own.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SegFormer(5, **SMALL, weights=str(tmp_path / "own.pth"))


def test_a_level_is_enlarged_as_if_it_were_projected_and_fused_behind() -> None:
    """The head by the paper's four steps."""
    head = LinearHead((3, 5), 4, 2, dropout=0.0)
    levels = [torch.randn(2, 7, 6, 3), torch.randn(2, 4, 3, 5)]
    projected = [p(level).permute(0, 3, 1, 2) for p, level in zip(head.projections, levels, strict=True)]
    enlarged = [interpolate(each, (7, 6), mode="bilinear") for each in projected]
    expected = head.classifier(head.norm(head.fuse(torch.cat(enlarged[::-1], 1))).relu())
    torch.testing.assert_close(head(levels), expected)


def test_dropout_takes_whole_channels_of_an_image() -> None:
    head = LinearHead((3,), 8, 8, dropout=0.5)
    nn.init.zeros_(head.classifier.bias)
    head.classifier.weight.data.copy_(torch.eye(8)[..., None, None])
    level = torch.randn(2, 5, 5, 3)
    features = head.norm(head.fuse(head.projections[0](level).permute(0, 3, 1, 2))).relu()
    kept = head([level]).sum((2, 3)) / features.sum((2, 3))
    assert sorted({round(value, 3) for value in kept.flatten().tolist()}) == [0, 2]


def test_stochastic_depth_grows_from_nothing_to_its_rate() -> None:
    blocks = [block for stage in SegFormer(5, **SMALL, drop_path=0.5).encoder.stages for block in stage.blocks]
    assert [block.drop_path.drop_prob for block in blocks] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def trained(network: nn.Module, images: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    network.zero_grad(set_to_none=False)  # whose memory is not that of activations
    network.train()(images).square().mean().backward()
    return [p.grad for p in network.parameters()]


def test_checkpointing_takes_a_quarter_of_the_memory_and_gives_the_same_gradients() -> None:
    """Of B5, on a quarter of its channels; with what a block needs when it is computed again. Of B0, whose
    widest block is a quarter of all, that is 0.38."""
    small = {"channels": (16, 32, 80, 128), "blocks": (3, 6, 40, 3), "width": 192}
    plain, sparing = SegFormer(5, **small), SegFormer(5, **small, checkpointing=True)
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 128, 128)
    for a, b in zip(trained(plain, images), trained(sparing, images), strict=True):
        torch.testing.assert_close(a, b)
    assert peak_bytes(lambda: trained(sparing, images)) < 0.25 * peak_bytes(lambda: trained(plain, images))


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match=r"images of 20x64 pixels; its attention needs at least 29 on each side"):
        SegFormer(5, **SegFormer.tiny)(torch.randn(1, 3, 20, 64))
    with pytest.raises(SegfolioError, match=r"channels \[8, 16, 40, 60\].*multiples of the stages' 1, 2, 5, 8 heads"):
        SegFormer(5, channels=(8, 16, 40, 60))
    with pytest.raises(SegfolioError, match=r"mit_b0 is neither a file nor a repository of the hub"):
        SegFormer(5, weights="mit_b0")
    with pytest.raises(SegfolioError, match=r"holds neither model.safetensors nor pytorch_model.bin"):
        SegFormer(5, weights=str(tmp_path))
    torch.save(SegFormer(5).state_dict(), tmp_path / "b0.pth")
    with pytest.raises(SegfolioError, match=r"b0.pth: .* have another shape"):
        SegFormer(5, channels=(64, 128, 320, 512), weights=str(tmp_path / "b0.pth"))


def test_the_smallest_image_has_logits() -> None:
    assert SegFormer(5, **SegFormer.tiny).eval()(torch.randn(1, 3, 29, 30)).shape == (1, 5, 8, 8)
