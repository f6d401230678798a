"""MaX-DeepLab's losses, by hand and by what they teach."""

import math

import pytest
import torch
from torch import Tensor

from segfolio.architectures.mask_classification.max_deeplab import MaXDeepLab, exclusive
from segfolio.errors import SegfolioError
from segfolio.losses import MaXDeepLabLoss
from segfolio.losses.mask_matching import MaskTarget
from tests.architectures.test_contract import shapes


def halves(void: bool = False) -> MaskTarget:
    """Class 2 on the left, class 0 on the right; the lower half void if so."""
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :, :4], masks[1, :, 4:] = True, True
    valid = torch.ones(8, 8, dtype=torch.bool)
    valid[4:] = not void
    return MaskTarget(torch.tensor([2, 0]), masks, valid)


def said(shares: Tensor, probabilities: Tensor) -> list[tuple[Tensor, Tensor]]:
    """A layer of class probabilities `[N, C + 1]` and shares of pixels `[N, h, w]`."""
    return [(probabilities.log()[None], exclusive(shares.log()[None]))]


def dense(classes: int = 3) -> dict[str, Tensor]:
    return {"semantic": torch.zeros(1, classes, 8, 8), "features": torch.ones(1, 4, 8, 8) / 2}


SHARES = torch.cat([torch.full((1, 8, 8), 0.2), torch.full((1, 8, 8), 0.3), torch.full((1, 8, 8), 0.5)])
PROBABILITIES = torch.tensor([[0.1, 0.1, 0.7, 0.1], [0.2, 0.2, 0.2, 0.4], [0.6, 0.1, 0.1, 0.2]])


def test_losses_by_hand() -> None:
    """Slot 0 is the left's and slot 2 the right's: 0.7 and 0.6 of their classes; slot 1 has no segment, nor void."""
    found = MaXDeepLabLoss()(said(SHARES, PROBABILITIES), [halves()], **dense())
    dice = {slot: 2 * 32 * share / (32 + 64 * share) for slot, share in ((0, 0.2), (2, 0.5))}
    assert found["dice"].item() == pytest.approx(3 * 0.75 / 3 * ((1 - dice[0]) * 0.7 + (1 - dice[2]) * 0.6), rel=1e-4)
    classes = 0.75 * (dice[0] * -math.log(0.7) + dice[2] * -math.log(0.6)) + 0.25 * 1e-5 * -math.log(0.4)
    assert found["class"].item() == pytest.approx(3 * classes / 3, rel=1e-4)
    assert found["mask_id"].item() == pytest.approx(0.3 * (-math.log(0.2) - math.log(0.5)) / 2, rel=1e-4)
    assert found["instance"].item() == pytest.approx(math.log(2), rel=1e-4)
    assert found["semantic"].item() == pytest.approx(math.log(3), rel=1e-4)


def test_a_slot_on_void_is_taught_that_it_has_no_object() -> None:
    weights = MaXDeepLabLoss()(said(SHARES, PROBABILITIES), [halves(void=True)], **dense())["class"]
    dice = {slot: 2 * 16 * share / (16 + 32 * share) for slot, share in ((0, 0.2), (2, 0.5))}
    classes = 0.75 * (dice[0] * -math.log(0.7) + dice[2] * -math.log(0.6)) + 0.25 * 0.5 * -math.log(0.4)
    assert weights.item() == pytest.approx(classes, rel=1e-4)


def test_void_is_left_out() -> None:
    """What is said there changes the class loss of slots alone, by how much of them is void."""
    other = SHARES.clone()
    other[:, 4:] = torch.tensor([0.8, 0.1, 0.1])[:, None, None]
    one, two = (MaXDeepLabLoss()(said(s, PROBABILITIES), [halves(void=True)], **dense()) for s in (SHARES, other))
    for name in ("dice", "mask_id", "instance", "semantic"):
        assert one[name].item() == pytest.approx(two[name].item(), rel=1e-5), name


def test_the_weights_of_a_term_are_held() -> None:
    """Class probabilities do not learn from masks, nor masks from classes."""
    classes = PROBABILITIES.log()[None].requires_grad_()
    masks = exclusive(SHARES.log()[None]).requires_grad_()
    found = MaXDeepLabLoss()([(classes, masks)], [halves()], **dense())
    assert not torch.autograd.grad(found["dice"], classes, retain_graph=True)[0].any()
    assert not torch.autograd.grad(found["class"], masks)[0].any()


def test_images_without_segments_and_more_segments_than_slots() -> None:
    none = MaskTarget(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 8, 8, dtype=torch.bool))
    layers = [(torch.zeros(1, 1, 4, requires_grad=True), torch.zeros(1, 1, 8, 8, requires_grad=True))]
    for target, left_out in ((none, 0), (halves(), 1)):
        criterion = MaXDeepLabLoss()
        losses = criterion(layers, [target], **dense())
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        assert all(x.grad is not None and x.grad.isfinite().all() for x in layers[0])
        assert criterion.left_out == left_out


def test_a_segment_that_vanishes_at_the_size_of_the_prediction_is_no_fault() -> None:
    target = halves()
    target.masks[0] = False
    features = torch.nn.functional.normalize(torch.randn(1, 4, 8, 8), dim=1).requires_grad_()
    losses = MaXDeepLabLoss()(
        said(SHARES, PROBABILITIES), [target], semantic=torch.zeros(1, 3, 8, 8), features=features
    )
    losses["instance"].backward()
    assert losses["instance"].item() == pytest.approx(0, abs=1e-4)
    assert features.grad.isfinite().all()


def test_a_network_learns_by_them() -> None:
    torch.manual_seed(0)
    images, target = shapes()
    truth = [MaskTarget(torch.arange(4), torch.stack([of == label for label in range(4)])) for of in target]
    network, criterion = MaXDeepLab(4, **MaXDeepLab.tiny), MaXDeepLabLoss()
    optimizer, values = torch.optim.Adam(network.parameters(), lr=0.003), []
    for _ in range(60):
        output = network(images)
        losses = criterion(output.layers, truth, **output.dense)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        values.append({name: loss.item() for name, loss in losses.items()})
    assert tuple(values[0]) == criterion.names
    for name in ("dice", "mask_id", "instance", "semantic"):
        assert values[-1][name] < 0.6 * values[0][name], name


def test_a_network_without_pixels_outputs_is_refused() -> None:
    with pytest.raises(SegfolioError, match="needs a network with semantic logits and embeddings of pixels"):
        MaXDeepLabLoss()(said(SHARES, PROBABILITIES), [halves()])


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(SegfolioError, match=r"alpha 2, temperature 0\.3; give weights of 0 or more"):
        MaXDeepLabLoss(alpha=2.0)
