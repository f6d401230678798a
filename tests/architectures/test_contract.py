"""What every architecture promises, for every file under `architectures/`, found by discovery."""

import ast
import inspect
import io
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, logsigmoid

import segfolio.architectures
from segfolio.layers.hollow import hollow
from segfolio.layers.outputs import MaskOutput, PixelOutput
from segfolio.listing import architecture_classes
from segfolio.weights.input_layer import first_convolution

ROOT = Path(segfolio.architectures.__file__).parent
PER_PIXEL = ("encoder_decoder", "dilated", "transformer", "mask_classification")
"""Rooms whose networks turn images into scores of classes per pixel, directly or by masks."""

FILES = sorted(path for path in ROOT.glob("*/*.py") if path.name != "__init__.py")
CLASSES = list(architecture_classes())
NETWORKS = [cls for cls in CLASSES if cls.__module__.split(".")[-2] in PER_PIXEL]
LIBRARIES = {
    *("torch", "torchvision", "timm", "segmentation_models_pytorch", "transformers", "huggingface_hub"),
    *("segfolio.errors", "segfolio.layers", "segfolio.weights", "segfolio.precision", "segfolio.architectures"),
    *("segfolio.losses.regions", "segfolio.losses.over_processes"),  # a network that assigns says what its parts lose
    *("segfolio.losses.set_detection", "segfolio.losses.mask_matching"),
}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
every_network = pytest.mark.parametrize("cls", NETWORKS, ids=lambda cls: cls.__name__)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_discovery_finds_what_is_there() -> None:
    assert {path.stem for path in FILES} >= {"unet", "segnet", "smp"}
    assert {inspect.getfile(cls) for cls in CLASSES} == {str(path) for path in FILES}


@every_file
def test_docstring_names_paper_and_deviations(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    opening = docstring.split("\n\n")[0]
    assert re.search(r"arXiv \d{4}\.\d{4,5}", opening), "the first paragraph names the paper and its arXiv id"
    assert re.search(r"^Follows ", docstring, re.MULTILINE)
    assert re.search(r"^Deviates", docstring, re.MULTILINE)


@every_file
def test_knows_nothing_but_networks(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or ".")
    allowed = LIBRARIES | sys.stdlib_module_names
    assert not {name for name in imported if not any(name == a or name.startswith(a + ".") for a in allowed)}


@every_class
def test_signature(cls: type[nn.Module]) -> None:
    first, *others = inspect.signature(cls).parameters.values()
    assert (first.name, first.annotation) == ("num_classes", int)
    assert all(p.default is not p.empty and p.annotation is not p.empty for p in others)
    assert re.search(r"arXiv \d{4}\.\d{4,5}", cls.paper)


@every_class
def test_variants_are_built_without_memory(cls: type[nn.Module]) -> None:
    assert cls.variants
    for arguments in cls.variants.values():
        with hollow():
            network = cls(21, **arguments)
        assert all(p.is_meta for p in network.parameters())


@every_class
def test_the_first_convolution_that_a_network_lists_sees_the_image(cls: type[nn.Module]) -> None:
    """By which images of other channels are refused, and weights of RGB made to fit them."""
    for arguments in cls.variants.values():
        with torch.device("meta"):
            found = first_convolution(cls(21, **arguments))
        assert found
        assert found[1].in_channels == arguments.get("in_channels", 3)


def pixel_logits(output: Tensor | PixelOutput | MaskOutput) -> Tensor:
    """`[B, C, h, w]` of any network's output; of masks, the logarithm of MaskFormer's semantic inference."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, PixelOutput):
        return output.logits
    classes = output.class_logits.log_softmax(-1)[..., :-1, None, None]
    return (classes + logsigmoid(output.mask_logits)[:, :, None]).logsumexp(1)


def sizes(height: int, width: int) -> list[tuple[int, int]]:
    """That logits may have: the image's, or a part of it, rounded up."""
    return [(-(-height // stride), -(-width // stride)) for stride in (1, 4, 8, 16)]


@every_network
def test_a_network_that_takes_in_channels_reads_images_of_as_many(cls: type[nn.Module]) -> None:
    if "in_channels" not in inspect.signature(cls).parameters:
        pytest.skip("it takes RGB alone")
    network = cls(4, **cls.tiny, in_channels=5).train()
    images = torch.randn(2, 5, 64, 64, requires_grad=True)
    pixel_logits(network(images)).square().mean().backward()
    assert images.grad is not None
    assert (images.grad.abs().amax((0, 2, 3)) > 0).all()


@every_network
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("size", [(64, 64), (65, 97)], ids=str)
def test_logits_have_the_size_of_the_image(cls: type[nn.Module], size: tuple[int, int], training: bool) -> None:
    for batch, num_classes in ((1, 5), (2, 1)):
        network = cls(num_classes, **cls.tiny).train(training)
        logits = pixel_logits(network(torch.randn(batch, 3, *size)))
        assert logits.shape[:2] == (batch, num_classes)
        assert logits.shape[2:] in sizes(*size)
        assert logits.isfinite().all()


@every_network
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_trains_and_predicts_in_every_precision(cls: type[nn.Module], dtype: torch.dtype) -> None:
    """As Lightning's `bf16-true` and `64-true`: weights and what is made are of that type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        network = cls(5, **cls.tiny).to(dtype)
        pixel_logits(network(torch.randn(2, 3, 48, 72))).float().square().mean().backward()
        with torch.no_grad():
            logits = pixel_logits(network.eval()(torch.randn(1, 3, 48, 72)))
    finally:
        torch.set_default_dtype(before)
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@every_network
def test_smallest_image(cls: type[nn.Module]) -> None:
    logits = pixel_logits(cls(5, **cls.tiny).eval()(torch.randn(1, 3, 32, 33)))
    assert logits.shape[:2] == (1, 5)
    assert logits.shape[2:] in sizes(32, 33)


@every_network
def test_every_parameter_gets_a_gradient(cls: type[nn.Module]) -> None:
    network = cls(5, **cls.tiny)
    output = network(torch.randn(2, 3, 64, 64))
    if isinstance(output, MaskOutput):
        beside = [x for x in (output.boxes, *(output.dense or {}).values()) if x is not None]
    else:
        beside = list(output.auxiliary.values()) if isinstance(output, PixelOutput) else []
    torch.stack([each.square().mean() for each in (pixel_logits(output), *beside)]).sum().backward()
    trained = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, grad in trained.items() if grad is None] == []
    assert all(grad.isfinite().all() for grad in trained.values())


@every_network
def test_state_dict_holds_the_whole_network(cls: type[nn.Module]) -> None:
    images = torch.randn(2, 3, 64, 96)
    network = cls(5, **cls.tiny)
    network(images)  # running statistics
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    copy = cls(5, **cls.tiny)
    copy.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(*(pixel_logits(each.eval()(images)) for each in (copy, network)))


@every_network
def test_export_gives_the_same_logits(cls: type[nn.Module]) -> None:
    images = torch.randn(1, 3, 65, 97)
    network = cls(5, **cls.tiny).eval()
    exported = torch.export.export(network, (images,)).module()
    torch.testing.assert_close(exported(images), network(images))


@every_network
def test_overfits_one_batch(cls: type[nn.Module]) -> None:
    if cls.__name__ == "DETR":
        pytest.skip("its masks are one for all queries at first, and part by matching: see its own tests")
    images, target = shapes()
    network = cls(4, **cls.tiny)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    losses = []
    for _ in range(60):
        loss = pixel_loss(network, images, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.2 * losses[0]


def pixel_loss(network: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy at the size of the image, of the logits repeated to it."""
    return cross_entropy(interpolate(pixel_logits(network(images)), target.shape[-2:]), target)


def shapes() -> tuple[Tensor, Tensor]:
    """Two noisy images of four squares and a disc: `[2, 3, 64, 64]` and class indices `[2, 64, 64]`."""
    squares = torch.tensor([[[0, 1], [2, 0]], [[1, 2], [0, 1]]])
    target = squares.repeat_interleave(32, 1).repeat_interleave(32, 2)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    target[:, (y - 32) ** 2 + (x - 32) ** 2 < 256] = 3
    colors = torch.tensor([[1.0, 1, 1], [1, -1, 0], [0, 1, -1], [-1, 0, 1]])
    return colors[target].permute(0, 3, 1, 2) + 0.1 * torch.randn(2, 3, 64, 64), target
