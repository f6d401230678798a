"""`PerPixel`: from logits of any size to losses and predictions, and batch normalisation in evaluation."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.tv_tensors import Mask

from segfolio.callbacks.checkpoints import Checkpoints
from segfolio.data.datasets import Shapes
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.data.sample import Batch, Target
from segfolio.errors import SegfolioError
from segfolio.families import PerPixel
from segfolio.losses import CrossEntropy, Dice, Focal
from segfolio.metrics import BoundaryF1, BoundaryIoU

LABELS = LabelSpace(("sky", "road", "car"))


class Half(nn.Sequential):
    """Logits of half the image's size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Conv2d(3, 8, 2, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, num_classes, 1))


def family(architecture: Callable[[int], nn.Module] = Half, labels: LabelSpace = LABELS, **arguments: Any) -> PerPixel:
    torch.manual_seed(0)
    losses = {"ce": CrossEntropy(), "dice": Dice(), "focal": Focal()}
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return PerPixel(labels, architecture, **{"losses": losses, "optimizer": optimizer, **arguments})


def batch(size: tuple[int, int] = (24, 32), original: tuple[int, int] | None = None, count: int = 2) -> Batch:
    """Noise; the truth is of the original size."""
    generator = torch.Generator().manual_seed(1)
    original = original or size
    images = torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)
    truth = torch.randint(0, 3, (count, *original), generator=generator, dtype=torch.uint8)
    return Batch(images, list("abcdef"[:count]), [original] * count, [Target(Mask(t)) for t in truth])


def indices(model: PerPixel, of: Batch) -> Tensor:
    """`[B, H, W]`, the classes predicted in evaluation."""
    with torch.no_grad():
        return torch.stack([p.semantic for p in model.eval().predict(of) if p.semantic is not None])


def test_in_training_logits_are_resized_to_the_truth() -> None:
    model, small = family(losses={"ce": CrossEntropy()}).eval(), batch()
    logits = model(small.images)
    assert logits.shape == (2, 3, 12, 16)
    expected = nn.CrossEntropyLoss()(interpolate(logits, (24, 32), mode="bilinear"), small.semantic())
    torch.testing.assert_close(model.compute_losses(small), {"ce": expected})


def test_predictions_have_the_original_size_resized_once() -> None:
    model, small = family().eval(), batch((24, 32), original=(50, 61))
    predictions = model.predict(small)
    expected = interpolate(model(small.images), (50, 61), mode="bilinear").argmax(1)
    assert [(p.image_id, p.size) for p in predictions] == [("a", (50, 61)), ("b", (50, 61))]
    assert torch.equal(indices(model, small), expected)
    assert len(expected.unique()) == 3
    at_the_input_size = interpolate(model(small.images), (24, 32), mode="bilinear")
    assert not torch.equal(expected, interpolate(at_the_input_size, (50, 61), mode="bilinear").argmax(1))


@pytest.mark.parametrize(("classes", "dtype"), [(256, torch.uint8), (300, torch.int16)])
def test_predictions_hold_every_class(classes: int, dtype: torch.dtype) -> None:
    """A network that always says the last class."""
    labels = LabelSpace(tuple(map(str, range(classes))), ignore_index=classes)
    model = family(lambda n: nn.Conv2d(3, n, 1), labels)
    nn.init.zeros_(model.network.weight)  # type: ignore[arg-type]
    model.network.bias.data = torch.arange(classes).float()
    prediction = indices(model, batch())
    assert prediction.dtype == dtype
    assert prediction.unique().tolist() == [classes - 1]


def test_loss_weights_multiply_and_the_sum_is_minimised() -> None:
    small = batch()
    plain = family().compute_losses(small)
    model = family(loss_weights={"dice": 0.5, "focal": 20.0})
    weighted = model.compute_losses(small)
    torch.testing.assert_close(
        weighted, {"ce": plain["ce"], "dice": plain["dice"] * 0.5, "focal": plain["focal"] * 20.0}
    )
    with pytest.warns(UserWarning, match="trainer"):  # which would log it
        loss = model.training_step(small, 0)
    torch.testing.assert_close(loss, weighted["ce"] + weighted["dice"] + weighted["focal"])


def test_the_weight_of_a_pixel_reaches_the_losses() -> None:
    small = batch()
    plain = family().compute_losses(small)["ce"]
    for target in small.targets:
        target.weight = Mask(torch.full((24, 32), 3.0))
    torch.testing.assert_close(family().compute_losses(small)["ce"], 3 * plain)


def test_a_weight_without_its_loss_is_refused() -> None:
    with pytest.raises(SegfolioError, match=r"model.loss_weights names dcie, but the losses are ce, dice, focal$"):
        family(loss_weights={"dcie": 0.5})


def test_a_batch_of_ignored_pixels_gives_zero_losses_and_gradients() -> None:
    model, small = family(), batch()
    for target in small.targets:
        target.semantic = Mask(torch.full((24, 32), LABELS.ignore_index, dtype=torch.uint8))
    losses = model.compute_losses(small)
    assert {name: value.item() for name, value in losses.items()} == {"ce": 0, "dice": 0, "focal": 0}
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in model.network.parameters())


def brighter(of: Batch) -> Batch:
    images = (of.images // 2 + 100).to(torch.uint8)
    return Batch(images, of.image_ids, of.original_sizes, of.targets)


def test_running_statistics_see_each_image_alone_and_its_brightness() -> None:
    model, small = family(), batch()
    alone = torch.cat([indices(model, Batch(i[None], ["a"], [(24, 32)])) for i in small.images])
    assert torch.equal(indices(model, small), alone)
    assert (indices(model, small) != indices(model, brighter(small))).float().mean() > 0.1


def test_statistics_of_the_batch_see_its_other_images_and_no_common_brightness() -> None:
    model, small = family(bn_mode="batch"), batch()
    stored = {name: value.clone() for name, value in model.network.state_dict().items()}
    dark = Batch(torch.cat([small.images[:1], small.images[1:] // 8]), small.image_ids, small.original_sizes)
    assert (indices(model, small)[0] != indices(model, dark)[0]).float().mean() > 0.1
    assert (indices(model, small) != indices(model, brighter(small))).float().mean() < 0.01  # of rounding to uint8
    assert all(torch.equal(value, stored[name]) for name, value in model.network.state_dict().items())


SHAPES = partial(Shapes, size=(32, 40), train=5, val=2, test=2)


def shapes() -> DataModule:
    return DataModule(SHAPES, batch_size=2, num_workers=0)


def trainer(**arguments: Any) -> Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**{"accelerator": "cpu", "logger": False, "max_steps": 4, **quiet, **arguments})


@pytest.mark.parametrize(("bn_mode", "recomputed"), [("recompute", True), ("running", False)])
def test_statistics_are_recomputed_over_the_training_set_at_its_end_and_before_evaluation(
    bn_mode: Literal["recompute", "running"], recomputed: bool, tmp_path: Path
) -> None:
    model, data = family(labels=Shapes.labels, bn_mode=bn_mode), shapes()
    loops = trainer(callbacks=[Checkpoints()], enable_checkpointing=True, default_root_dir=tmp_path, max_steps=3)

    def is_plain_mean(found: Tensor) -> bool:
        with torch.no_grad():
            features = (model.network[0](model.normalize(b.images)) for b in data.statistics_dataloader())  # type: ignore[index]
            return torch.allclose(found, torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0), atol=1e-5)

    loops.fit(model, data)  # the last validation is after two of the three steps
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert is_plain_mean(last["state_dict"]["network.1.running_mean"]) == recomputed
    for evaluate in (loops.validate, loops.test):
        model.network[1].reset_running_stats()  # type: ignore[index]
        evaluate(model, data)
        assert is_plain_mean(model.network[1].running_mean) == recomputed, evaluate.__name__  # type: ignore[index]


def test_bf16_trains_and_evaluates_as_float32_does() -> None:
    def train(precision: Literal["32-true", "bf16-mixed"]) -> tuple[set[torch.dtype], Tensor]:
        model, loops, types = family(labels=Shapes.labels), trainer(precision=precision), set()
        model.network.register_forward_hook(lambda module, args, logits: types.add(logits.dtype))
        before = [p.clone() for p in model.network.parameters()]
        loops.fit(model, shapes())
        assert all(not torch.equal(p, b) for p, b in zip(model.network.parameters(), before, strict=True))
        return types, torch.stack([loops.callback_metrics[name] for name in ("train/loss", "val/pixel_accuracy")])

    (types, exact), (half_types, half) = train("32-true"), train("bf16-mixed")
    assert (types, half_types) == ({torch.float32}, {torch.bfloat16})
    torch.testing.assert_close(half, exact, rtol=0.02, atol=0)
    assert 0.02 < exact[1] < 1


def test_metrics_of_the_config_are_logged_beside_those_of_the_family() -> None:
    model = family(labels=Shapes.labels, metrics=[BoundaryF1, partial(BoundaryIoU, dilation=0.05)])
    (found,) = trainer().test(model, shapes(), verbose=False)
    assert {"test/mIoU", "test/boundary_f1", "test/boundary_mIoU", "test/boundary_IoU/sky"} <= found.keys()
    assert 0 < found["test/boundary_f1"] < 1
    assert 0 < found["test/evaluation_seconds"] < 60
