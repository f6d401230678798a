"""`PerPixel` with what is supervised beside the logits, labels at a stride, and frozen normalisation."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segfolio.data.datasets import Shapes
from segfolio.errors import SegfolioError
from segfolio.families.per_pixel import PerPixel
from segfolio.layers.outputs import PixelOutput
from segfolio.losses import ClassPresence, CrossEntropy
from tests.families.test_per_pixel import LABELS, Half, batch, family, shapes, trainer

CE = CrossEntropy()
AUXILIARY = {"auxiliary_losses": {"deep": CrossEntropy(), "presence": ClassPresence()}}


class Deep(Half):
    """Auxiliary logits at a quarter of the size, and of the image; in training alone."""

    def forward(self, images: Tensor) -> PixelOutput:
        logits = super().forward(images)
        deep = logits[..., ::2, ::2]
        return PixelOutput(logits, {"deep": deep, "presence": logits.mean((2, 3))} if self.training else {})


def deep(**arguments: Any) -> PerPixel:
    return family(Deep, **{"losses": {"ce": CE}, **AUXILIARY, **arguments})


def test_each_auxiliary_has_its_loss_and_weight() -> None:
    model, small = deep(loss_weights={"deep": 0.4, "presence": 0.2}), batch()
    target = small.semantic()
    logits, auxiliary = model(small.images)
    assert auxiliary["deep"].shape == (2, 3, 6, 8)
    torch.testing.assert_close(
        model.compute_losses(small),
        {
            "ce": CE(interpolate(logits, (24, 32), mode="bilinear"), target, LABELS.ignore_index),
            "deep": 0.4 * CE(interpolate(auxiliary["deep"], (24, 32), mode="bilinear"), target, LABELS.ignore_index),
            "presence": 0.2 * ClassPresence()(auxiliary["presence"], target, LABELS.ignore_index),
        },
    )


def test_any_name_without_a_slash_is_one_of_a_loss() -> None:
    """Also one with a dot, or of a method of torch's containers; and its buffers go where the network goes."""
    weighted = CrossEntropy([1.0, 2.0, 3.0])
    model = family(losses={"ce.1": weighted, "values": CE}).to("meta")
    assert weighted.weight is not None
    assert weighted.weight.is_meta
    assert family(losses={"ce.1": CE, "values": CE}).compute_losses(batch()).keys() == model.losses.keys()


def test_auxiliary_losses_are_logged_and_evaluation_needs_none() -> None:
    loops = trainer(max_steps=2)
    loops.fit(deep(labels=Shapes.labels), shapes())
    assert {"train/loss_ce", "train/loss_deep", "train/loss_presence", "val/mIoU"} <= loops.callback_metrics.keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"auxiliary_losses": {"deep": CE}}, "has the auxiliary logits deep, presence, but .* has deep; give each"),
        ({"auxiliary_losses": {**AUXILIARY["auxiliary_losses"], "aux": CE}}, "but .* has deep, presence, aux;"),
        ({"auxiliary_losses": {"ce": CE}}, "losses and model.auxiliary_losses both have 'ce'"),
        ({"loss_weights": {"dep": 0.4}}, "loss_weights names dep, but the losses are ce, deep, presence"),
        ({"label_stride": 0}, "label_stride is 0; give 1"),
        ({"label_stride": 2, "label_offset": 2}, "label_offset is 2; with a label_stride of 2 give 0 to 1"),
        ({"losses": {"ce/1": CE}}, "model.losses has the name 'ce/1'; .* give one without a slash"),
        ({"losses": {"": CE}}, "model.losses has the name ''"),
    ],
)
def test_names_that_do_not_fit_are_told(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SegfolioError, match=said):
        deep(**arguments).compute_losses(batch())


@pytest.mark.parametrize("offset", [0, 1])
def test_labels_are_subsampled_and_logits_meet_them_there(offset: int) -> None:
    """Logits of half the size, and every second label: no pixel is interpolated."""
    model, small = family(losses={"ce": CE}, label_stride=2, label_offset=offset), batch()
    for target in small.targets:
        target.weight = torch.rand(24, 32, generator=torch.Generator().manual_seed(0))  # type: ignore[assignment]
    weight = small.weight()
    assert weight is not None
    truth, weight = small.semantic()[:, offset::2, offset::2], weight[:, offset::2, offset::2]
    expected = CE(model(small.images), truth, LABELS.ignore_index, weight)
    torch.testing.assert_close(model.compute_losses(small)["ce"], expected)


def test_logits_of_another_stride_than_the_labels_are_refused() -> None:
    """Resized to every eighth label, each would be met 3.5 pixels off."""
    with pytest.raises(SegfolioError, match="label_stride is 8, which leaves 3x4 labels, but the logits of ce are 12x"):
        family(losses={"ce": CE}, label_stride=8).compute_losses(batch())
    with pytest.raises(SegfolioError, match="leaves 12x16 labels, but the logits of deep are 6x8; give the stride"):
        deep(label_stride=2).compute_losses(batch())


def test_frozen_normalisation_stays_and_the_rest_is_trained() -> None:
    model = family(labels=Shapes.labels, bn_mode="frozen")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    trainer(max_steps=4).fit(model, shapes())
    same = {name for name, value in model.network.state_dict().items() if torch.equal(value, before[name])}
    assert same == {name for name in before if name.startswith("1.")}
    model.train()
    assert [layer.training for layer in model.network.children()] == [True, False, True, True]  # type: ignore[union-attr]


def test_synchronised_normalisation_takes_the_place_of_every_layer() -> None:
    """As Lightning does with `trainer.sync_batchnorm: true`: its statistics and weights go on, frozen ones frozen."""
    model = family(Deep, losses={"ce": CE}, bn_mode="frozen")
    small = batch()
    expected = model.eval().predict(small)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(model.network[1], nn.SyncBatchNorm)
    for found, before in zip(model.eval().predict(small), expected, strict=True):
        assert torch.equal(found.semantic, before.semantic)
    assert not any(p.requires_grad for p in model.train().network[1].parameters())
