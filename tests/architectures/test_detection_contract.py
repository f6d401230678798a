"""What every network that finds objects promises: losses in training, detections in evaluation, of any image."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.ops import box_iou

from segfolio.architectures.one_stage.solo_v2 import SOLOv2
from segfolio.architectures.one_stage.yolact import YOLACT
from segfolio.architectures.region_based.cascade_rcnn import CascadeMaskRCNN, CascadeRCNN
from segfolio.architectures.region_based.faster_rcnn import FasterRCNN
from segfolio.architectures.region_based.mask_rcnn import MaskRCNN
from segfolio.architectures.region_based.rcnn import RCNN
from segfolio.errors import SegfolioError
from segfolio.layers.detection import Detections, DetectionTarget
from segfolio.layers.mask_maps import covered
from segfolio.layers.proposals import ProposalRecipe
from segfolio.layers.regions import RegionRecipe
from segfolio.listing import architecture_classes
from segfolio.speed.measure import peak_bytes

CLASSES = [cls for cls in architecture_classes() if cls.__module__.split(".")[-2] in ("region_based", "one_stage")]
ONE_STAGE = [cls for cls in CLASSES if "one_stage" in cls.__module__]
REGION_BASED = [cls for cls in CLASSES if "region_based" in cls.__module__]
QUICK = ProposalRecipe(
    anchor_sizes=((8,), (16,), (32,), (64,), (128,)), samples=64, before_nms=(100, 100), after_nms=(50, 50)
)
SINGLE = {"rpn": replace(QUICK, anchor_sizes=((16, 32, 64),))}
FEW = RegionRecipe(samples=32)


def small(cls: Any) -> dict[str, Any]:
    """The smallest of its kind, of few regions where it has such."""
    return {**cls.tiny, **({"roi": FEW} if cls in REGION_BASED else {})}


def has_boxes(cls: Any) -> bool:
    return cls is not SOLOv2


def lenient(network: Any) -> Any:
    """It finds something before it has learned anything."""
    if isinstance(network, SOLOv2):
        network.recipe = replace(network.recipe, score_threshold=0.0, kept_score=0.0)
    return network


every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
every_one_stage = pytest.mark.parametrize("cls", ONE_STAGE, ids=lambda cls: cls.__name__)


def target(size: tuple[int, int], *objects: tuple[int, int, int, int, int]) -> DetectionTarget:
    """Rectangles x1, y1, x2, y2 and their label, filled."""
    masks = torch.zeros(len(objects), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2, _) in zip(masks, objects, strict=True):
        mask[y1:y2, x1:x2] = True
    table = torch.tensor(objects, dtype=torch.int64).reshape(-1, 5)
    return DetectionTarget(table[:, :4].float(), table[:, 4], masks)


def step(network: nn.Module, images: Tensor, targets: list[DetectionTarget]) -> dict[str, Tensor]:
    losses = network.train()(images, [tuple(images.shape[-2:])] * len(images), targets)
    torch.stack(list(losses.values())).sum().backward()
    return losses


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_rooms_are_complete() -> None:
    names = {"FasterRCNN", "MaskRCNN", "CascadeRCNN", "CascadeMaskRCNN", "FastRCNN", "RCNN"}
    assert {cls.__name__ for cls in CLASSES} == names | {"YOLOSeg", "YOLACT", "SOLOv2", "RFDETRSeg"}


@every_class
def test_every_parameter_gets_a_gradient_with_and_without_objects(cls: Any) -> None:
    network = cls(1, **small(cls))
    size = (70, 97)
    for targets in ([target(size, (5, 8, 40, 60, 0)), target(size)], [target(size), target(size)]):
        network.zero_grad()
        losses = step(network, torch.randn(2, 3, *size), targets)
        assert {"cls", "box" if has_boxes(cls) else "mask"} <= set(losses)
        assert all(loss.isfinite() for loss in losses.values())
        trained = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
        assert [name for name, grad in trained.items() if grad is None or not grad.isfinite().all()] == []
    assert losses["cls"] > 0
    assert all(losses[name] == 0 for name in losses if "box" in name or "mask" in name)  # nothing to be found


@every_one_stage
@pytest.mark.parametrize(
    "objects",
    [[[(5, 8, 40, 60, 0), (50, 10, 90, 30, 1)], [(20, 20, 80, 65, 1)]], [[(33, 22, 37, 26, 1)], []]],
    ids=["both", "one small"],
)
def test_losses_are_the_same_on_two_processes(cls: Any, objects: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they divide by is of all processes: the mean over two of an image each is the loss of both images."""
    network, size = cls(2, **cls.tiny).train(), (70, 97)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # its statistics are of a process
    images = torch.randn(2, 3, *size)
    targets = [target(size, *each) for each in objects]
    told: list[Tensor] = []
    drawn = 2 * torch.rand(1, 2000, 2) - 1  # points at which masks are compared, of each process the same
    monkeypatch.setattr(
        "segfolio.losses.set_detection.random_points",
        lambda sets, points, device: drawn[:, :points].expand(sets, -1, -1),
    )

    def alone(values: list[float], device: torch.device) -> tuple[Tensor, int]:
        told.append(torch.tensor(values))
        return told[-1], 1

    module = cls.__module__ if cls is SOLOv2 else "segfolio.losses.over_processes"
    monkeypatch.setattr(f"{module}.over_processes", alone)
    whole = network(images, [size] * 2, targets)
    halves = [(images[[place]], [size], [targets[place]]) for place in (0, 1)]
    for half in halves:
        network(*half)
    torch.testing.assert_close(told[0], told[1] + told[2])
    monkeypatch.setattr(f"{module}.over_processes", lambda values, device: (told[0], 2))
    first, second = (network(*half) for half in halves)
    for name, loss in whole.items():
        torch.testing.assert_close((first[name] + second[name]) / 2, loss, rtol=1e-4, atol=1e-5)


@every_one_stage
def test_thousands_of_objects_are_learned_in_little_memory(cls: Any) -> None:
    """5,000 of 4 x 4 pixels in 320 x 320: their masks at full size would be 2 GB as floats."""
    size, places = (320, 320), torch.arange(80)
    corners = 4 * torch.cartesian_prod(places, places)[:5000].flip(1)
    wanted = target(size, *((x, y, x + 4, y + 4, 0) for x, y in corners.tolist()))
    network, images, losses = cls(1, **cls.tiny).train(), torch.randn(1, 3, *size), dict[str, Tensor]()
    held = peak_bytes(lambda: losses.update(network(images, [size], [wanted])))
    assert held < 5e8
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


@every_class
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_trains_and_predicts_in_every_precision(cls: Any, dtype: torch.dtype) -> None:
    """As Lightning's `bf16-true`, `16-true` and `64-true`: weights and what is made are of that type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        network = cls(2, **small(cls)).to(dtype)
        losses = step(network, torch.randn(2, 3, 70, 97), [target((70, 97), (5, 8, 40, 60, 1)), target((70, 97))])
        with torch.no_grad():
            detections = lenient(network).eval()(torch.randn(2, 3, 70, 97), [(70, 97), (41, 50)])
    finally:
        torch.set_default_dtype(before)
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    assert all(found.scores.dtype == torch.float32 and len(found.scores) for found in detections)


@every_class
def test_detections_lie_in_the_valid_part_best_first(cls: Any) -> None:
    network = lenient(cls(3, **cls.tiny)).eval()
    sizes = [(128, 160), (41, 50), (20, 30)]
    images = torch.randn(3, 3, 128, 160)
    with torch.no_grad():
        detections = network(images, sizes)
    for found, (height, width) in zip(detections, sizes, strict=True):
        assert len(found.scores) > 0
        if has_boxes(cls):
            assert found.boxes.min() >= 0
            assert found.boxes[:, 2].max() <= width
            assert found.boxes[:, 3].max() <= height
            assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        else:
            assert found.boxes is None
            assert found.stride * (found.masks.shape[1] - 1) < height
            assert found.stride * (found.masks.shape[2] - 1) < width
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)
        assert set(found.labels.tolist()) <= {0, 1, 2}
        if found.masks is not None:
            assert len(found.masks) == len(found.scores)
            assert found.threshold == 0 or 0 <= found.masks.min() <= found.masks.max() <= 1


@every_class
def test_nothing_found_is_an_empty_result(cls: Any) -> None:
    network = cls(3, **cls.tiny).eval()
    if cls in REGION_BASED:
        heads = network.roi_heads.stages[-1] if hasattr(network.roi_heads, "stages") else network.roi_heads
        heads.score_thresh = 1.0
    else:
        network.recipe = replace(network.recipe, score_threshold=1.0)
    with torch.no_grad():
        (found,) = network(torch.randn(1, 3, 64, 64), [(64, 64)])
    assert found.boxes.shape == (0, 4) if has_boxes(cls) else found.boxes is None
    assert len(found.scores) == len(found.labels) == 0
    assert found.masks is None or len(found.masks) == 0


@every_class
def test_padding_changes_nothing(cls: Any) -> None:
    """The network pads to a multiple of 32 by itself."""
    network = lenient(cls(3, **cls.tiny)).eval()
    image = torch.randn(1, 3, 50, 70)
    padded = torch.zeros(1, 3, 64, 96)
    padded[..., :50, :70] = image
    with torch.no_grad():
        here, there = (network(x, [(50, 70)])[0] for x in (image, padded))
    assert len(here.scores) > 0
    torch.testing.assert_close(here.scores, there.scores)
    torch.testing.assert_close(*(each.boxes if has_boxes(cls) else each.masks for each in (here, there)))


def test_the_edge_of_a_warped_region_is_the_same_in_any_batch() -> None:
    """Also of an image that needs no padding by itself."""
    network = RCNN(3, **RCNN.tiny).eval()
    image = torch.randn(1, 3, 64, 96)
    boxes = [torch.tensor([[60.0, 30, 96, 64], [0, 50, 96, 64]])]
    with torch.no_grad():
        here, there = (
            network(x, [(64, 96)], proposals=boxes)[0] for x in (image, nn.functional.pad(image, (0, 32, 0, 32)))
        )
    torch.testing.assert_close(here.scores, there.scores, rtol=0, atol=1e-6)


def test_convolutions_of_the_heads_have_the_channels_that_were_asked_for() -> None:
    dc5: Any = MaskRCNN(3, **MaskRCNN.tiny, neck="dc5", box_convs=1, **SINGLE)
    c4: Any = MaskRCNN(3, **MaskRCNN.tiny, neck="c4", **SINGLE)
    assert dc5.roi_heads.box_head[0][0].out_channels == 16
    assert dc5.roi_heads.mask_head[0][0].out_channels == 16
    assert c4.roi_heads.mask_predictor.conv5_mask.out_channels == 16


@pytest.mark.parametrize("cls", [MaskRCNN, CascadeMaskRCNN], ids=lambda cls: cls.__name__)
def test_boxes_are_float32_under_mixed_precision(cls: Any) -> None:
    network = cls(3, **cls.tiny, roi=FEW)
    size = (64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        losses = step(network, torch.randn(1, 3, *size), [target(size, (5, 8, 40, 60, 0))])
        with torch.no_grad():
            (found,) = network.eval()(torch.randn(1, 3, *size), [size])
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {part.dtype for part in (found.boxes, found.scores, found.masks)} == {torch.float32}
    corners = found.boxes[(found.boxes > 32) & (found.boxes < 64)]
    assert not torch.equal(corners, corners.bfloat16().float())


def scene() -> tuple[Tensor, DetectionTarget]:
    """A noisy image of two rectangles, each bright in a channel of its own."""
    wanted = target((96, 128), (10, 12, 50, 60, 0), (70, 30, 110, 90, 1))
    images = 0.1 * torch.randn(1, 3, 96, 128)
    for mask, label in zip(wanted.masks, wanted.labels, strict=True):
        images[0, label, mask] += 2
    return images, wanted


def learned(network: nn.Module, images: Tensor, wanted: DetectionTarget, steps: int, rate: float) -> list[float]:
    """The sum of the losses of one image in each step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    course = []
    for _ in range(steps):
        optimizer.zero_grad()
        course.append(sum(loss.item() for loss in step(network, images, [wanted]).values()))
        optimizer.step()
        schedule.step()
    return course


def assert_found(found: Detections, wanted: DetectionTarget) -> None:
    """Both rectangles of `scene`, by masks of stride 4 that end at their boxes."""
    assert wanted.masks is not None
    assert found.boxes is not None
    for label in (0, 1):
        place = (found.labels == label).nonzero()[0, 0]  # the best of its class
        assert found.scores[place] > 0.5
        assert box_iou(found.boxes[place, None], wanted.boxes[label, None]) > 0.8
        mask, truth = found.masks[place] > 0, covered(wanted.masks, 24, 32)[label] > 8
        assert (mask & truth).sum() / truth.sum() > 0.95  # a rectangle fills its box


def trained(cls: Any, steps: int, **arguments: Any) -> tuple[nn.Module, list[float]]:
    images, wanted = scene()
    scratch = {"norm": "group", "frozen_stride": 0, "rpn": QUICK, "roi": FEW}
    network = cls(2, **{**cls.tiny, **scratch, **arguments})
    course = learned(network, images, wanted, steps, 0.002)
    return network.eval(), course


@pytest.mark.parametrize("cls", [MaskRCNN, CascadeMaskRCNN], ids=lambda cls: cls.__name__)
def test_overfits_one_image(cls: Any) -> None:
    network, _ = trained(cls, 120)
    images, wanted = scene()
    with torch.no_grad():
        (found,) = network(images, [(96, 128)])
    for label in (0, 1):
        place = (found.labels == label).nonzero()[0, 0]  # the best of its class
        assert found.scores[place] > 0.5
        assert box_iou(found.boxes[place, None], wanted.boxes[label, None]) > 0.8
        assert found.masks[place].mean() > 0.8  # a rectangle fills its box


@pytest.mark.parametrize("neck", ["c4", "dc5"])
def test_other_necks_learn(neck: str) -> None:
    _, course = trained(MaskRCNN, 10, neck=neck, **SINGLE)
    assert min(course[-3:]) < 0.6 * course[0]


def test_boxes_alone_do_not_make_masks() -> None:
    boxes_only = DetectionTarget(torch.tensor([[5.0, 8, 40, 60]]), torch.tensor([0]))
    assert step(FasterRCNN(1, **FasterRCNN.tiny), torch.randn(1, 3, 64, 64), [boxes_only])["box"] > 0
    for cls in (MaskRCNN, *ONE_STAGE):
        with pytest.raises(SegfolioError, match="boxes alone; take FasterRCNN"):
            step(cls(1, **cls.tiny), torch.randn(1, 3, 64, 64), [boxes_only])


@every_one_stage
def test_a_class_that_the_network_lacks_is_named(cls: Any) -> None:
    with pytest.raises(SegfolioError, match="an object is of class 3, but the network has the classes 0 to 1"):
        step(cls(2, **cls.tiny), torch.randn(1, 3, 64, 64), [target((64, 64), (5, 8, 40, 60, 3))])


@pytest.mark.parametrize("cls", [SOLOv2, YOLACT], ids=lambda cls: cls.__name__)
def test_weights_are_those_of_the_backbone_or_of_the_whole_network(cls: Any, tmp_path: Path) -> None:
    file, arguments = str(tmp_path / "weights.pth"), {**cls.tiny, "backbone": "resnet18"}
    torch.save((classifier := resnet18()).state_dict(), file)
    network = cls(2, **arguments, weights=file)
    assert torch.equal(network.backbone.body.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)
    torch.save(network.state_dict(), file)
    again = cls(2, **arguments, weights=file)
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), again.parameters(), strict=True))
    with pytest.raises(SegfolioError, match="some/where is not a file"):
        cls(2, **arguments, weights="some/where")


@pytest.mark.parametrize(
    ("cls", "arguments", "sentence"),
    [
        (MaskRCNN, {"backbone": "convnext_atto", "neck": "c4", **SINGLE}, "convnext_atto has no res5 stage"),
        (MaskRCNN, {"neck": "c4"}, "rpn.anchor_sizes has 5 rows; c4 has 1 feature maps"),
        (FasterRCNN, {"backbone": "test_vit"}, "test_vit has no features of strides"),
        (FasterRCNN, {"backbone": "resnet_50"}, "did you mean one of resnet50"),
        (FasterRCNN, {"weights": "some/repository"}, "some/repository is not a file"),
        (CascadeRCNN, {"neck": "c4", **SINGLE}, "no shared res5 head"),
    ],
)
def test_what_does_not_exist_is_said(cls: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SegfolioError, match=sentence):
        cls(2, **{**cls.tiny, **arguments})
