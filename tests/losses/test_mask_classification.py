"""The criterion of mask classification, against transformers, and where that has no answer."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.functional import cross_entropy

from segfolio.errors import SegfolioError
from segfolio.losses import mask_classification
from segfolio.losses.mask_classification import MaskClassificationLoss
from segfolio.losses.mask_matching import MaskLoss, MaskTarget, assign
from tests.conftest import REPOSITORY

QUERIES, CLASSES, LAYERS = 8, 5, 3
Layers = list[tuple[Tensor, Tensor]]
MASK2FORMER = {"points": 300}
MASKFORMER = {"class_weight": 1.0, "mask_weight": 20.0, "dice_weight": 1.0, "mask_loss": "focal", "points": None}
BOTH = pytest.mark.parametrize("arguments", [MASK2FORMER, MASKFORMER], ids=["Mask2Former", "MaskFormer"])


def outputs(images: int, scale: float = 2.0, queries: int = QUERIES, seed: int = 0) -> Layers:
    """Logits of masks of 12 x 10."""
    g = torch.Generator().manual_seed(seed)
    shapes = (images, queries, CLASSES + 1), (images, queries, 12, 10)
    return [tuple((scale * torch.randn(s, generator=g)).requires_grad_() for s in shapes) for _ in range(LAYERS)]


def truths(*counts: int, seed: int = 0) -> list[MaskTarget]:
    """Masks of 24 x 20 with so many segments per image."""
    g = torch.Generator().manual_seed(seed)
    return [
        MaskTarget(torch.randint(CLASSES, (n,), generator=g), torch.randint(5, (n, 24, 20), generator=g) < 2)
        for n in counts
    ]


def gradients(losses: dict[str, Tensor], layers: Layers) -> list[Tensor]:
    return list(torch.autograd.grad(sum(losses.values()), [x for layer in layers for x in layer]))


@pytest.fixture
def same_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever draws points gets the first ones of one list, in any row."""
    drawn = torch.rand(4096, 2, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(torch, "rand", lambda rows, n, _, device=None: drawn[:n].repeat(rows, 1, 1))


def mask2former() -> tuple[torch.nn.Module, dict[str, float]]:
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    config = Mask2FormerConfig(num_labels=CLASSES, train_num_points=300)
    return Mask2FormerLoss(config, {}), {"cross_entropy": 2.0, "mask": 5.0, "dice": 5.0}


def maskformer() -> tuple[torch.nn.Module, dict[str, float]]:
    from transformers.models.maskformer.modeling_maskformer import MaskFormerHungarianMatcher, MaskFormerLoss

    matcher = MaskFormerHungarianMatcher(1.0, 20.0, 1.0)
    return MaskFormerLoss(CLASSES, matcher, {}, eos_coef=0.1), {"cross_entropy": 1.0, "mask": 20.0, "dice": 1.0}


@pytest.mark.usefixtures("same_points")
@pytest.mark.parametrize("counts", [(3, 6), (0, 4, 1), (11, 2)])
@pytest.mark.parametrize(("arguments", "peer"), [(MASK2FORMER, mask2former), (MASKFORMER, maskformer)])
def test_losses_and_gradients_equal_transformers(
    counts: tuple[int, ...], arguments: dict, peer: Callable[[], tuple[torch.nn.Module, dict[str, float]]]
) -> None:
    layers, targets = outputs(len(counts)), truths(*counts)
    ours = MaskClassificationLoss(**arguments)(layers, targets)

    criterion, weights = peer()
    keys = ("class_queries_logits", "masks_queries_logits")
    *auxiliary, last = (dict(zip(keys, layer, strict=True)) for layer in layers)
    found = criterion(
        **last,
        mask_labels=[t.masks.float() for t in targets],
        class_labels=[t.labels for t in targets],
        auxiliary_predictions=auxiliary,
    )
    theirs = {
        name: factor * sum(loss for key, loss in found.items() if key.startswith(f"loss_{name}"))
        for name, factor in weights.items()
    }
    for one, other in zip(ours.values(), theirs.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    for one, other in zip(gradients(ours, layers), gradients(theirs, layers), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@BOTH
def test_what_void_pixels_hold_does_not_matter(arguments: dict) -> None:
    layers, targets, others = outputs(2), truths(3, 4), truths(3, 4)
    g = torch.Generator().manual_seed(2)
    for target, other in zip(targets, others, strict=True):
        target.valid = other.valid = torch.rand(24, 20, generator=g) < 0.9
        other.masks ^= ~target.valid
    found = []
    for truth in (targets, others):
        torch.manual_seed(0)
        found.append(MaskClassificationLoss(**arguments)(layers, truth))
    assert found[0] == found[1]
    torch.manual_seed(0)
    assert found[0]["mask"] != MaskClassificationLoss(**arguments)(layers, truths(3, 4))["mask"]


@pytest.mark.parametrize("mask_loss", ["bce", "focal"])
def test_a_void_half_equals_an_image_without_it(mask_loss: MaskLoss) -> None:
    (target,), layers = truths(4), outputs(1)
    half = MaskTarget(target.labels, target.masks[:, :12, :10])
    target = MaskTarget(target.labels, target.masks[:, :12], torch.arange(20).expand(12, -1) < 10)
    wide = [(classes, torch.cat([masks, masks.flip(1)], 3)) for classes, masks in layers]
    criterion = MaskClassificationLoss(points=None, mask_loss=mask_loss)
    one, other = criterion(layers, [half]), criterion(wide, [target])
    assert {name: loss.item() for name, loss in one.items()} == pytest.approx(
        {name: loss.item() for name, loss in other.items()}
    )


@BOTH
def test_no_gradient_where_all_is_void(arguments: dict) -> None:
    """The right half, of which the first column of logits is read by pixels and points left of it."""
    layers, (target,) = outputs(1), truths(3)
    target.valid = torch.arange(20).expand(24, -1) < 10
    _, of_masks = gradients(MaskClassificationLoss(**arguments)(layers, [target]), layers)[:2]
    assert of_masks[..., 6:].count_nonzero() == 0
    assert (of_masks[..., :6].abs().sum((0, 1, 2)) > 0).all()


def test_uncertain_points_are_sought_outside_of_void() -> None:
    """The left half is void and undecided: without looking at void, all of the three quarters would fall there."""
    maps = torch.cat([torch.zeros(2, LAYERS, 12, 5), torch.full((2, LAYERS, 12, 5), 9.0)], 3)
    void = (torch.arange(20).expand(24, -1) < 10).float()[None, None]
    criterion = MaskClassificationLoss(points=300)
    torch.manual_seed(0)
    points = criterion._draw(maps, void)
    assert points.shape == (2, LAYERS, 300, 2)
    assert (points[..., :225, 0] > 0.05 - 1e-6).all()  # the centre of the first column that counts
    assert (criterion._draw(maps, None)[..., :225, 0] < 0).all()


@pytest.mark.parametrize("mask_loss", ["bce", "focal"])
def test_perfect_queries_cost_nothing(mask_loss: MaskLoss) -> None:
    (target,) = truths(4)
    labels = torch.cat([target.labels, torch.full((QUERIES - 4,), CLASSES)])
    classes = 50.0 * torch.nn.functional.one_hot(labels, CLASSES + 1)[None]
    masks = 100.0 * torch.cat([target.masks, ~target.masks])[None] - 50.0
    criterion = MaskClassificationLoss(points=None, mask_loss=mask_loss)
    losses = criterion([(classes.flip(1), masks.flip(1))], [target])
    assert [float(loss) for loss in losses.values()] == pytest.approx([0, 0, 0], abs=1e-5)


@BOTH
@pytest.mark.parametrize("void", [False, True])
def test_without_segments_masks_cost_nothing_and_stay_in_the_graph(arguments: dict, void: bool) -> None:
    layers, targets = outputs(2), truths(0, 0)
    if void:
        targets[0].valid = torch.zeros(24, 20, dtype=torch.bool)
    losses = MaskClassificationLoss(**arguments)(layers, targets)
    assert losses["mask"] == losses["dice"] == 0
    no_object = sum(-c.log_softmax(-1)[..., -1].mean() for c, _ in layers)
    torch.testing.assert_close(losses["class"], arguments.get("class_weight", 2.0) * no_object)
    for of_classes, of_masks in zip(*[iter(gradients(losses, layers))] * 2, strict=True):
        assert of_masks.count_nonzero() == 0
        assert of_classes.count_nonzero() > 0


@BOTH
@pytest.mark.parametrize("scale", [1e4, 1e-4])
def test_finite_for_extreme_logits(arguments: dict, scale: float) -> None:
    layers = outputs(2, scale)
    losses = MaskClassificationLoss(**arguments)(layers, truths(3, 5))
    assert all(x.isfinite().all() for x in [*losses.values(), *gradients(losses, layers)])


@pytest.mark.parametrize(
    ("argument", "value", "bound"),
    [("mask_weight", -1.0, 0), ("no_object_weight", -0.1, 0), ("points", 0, 1), ("oversample", 0.5, 1)],
)
def test_numbers_out_of_range_are_refused(argument: str, value: float, bound: int) -> None:
    with pytest.raises(
        SegfolioError, match=f"^{argument} of MaskClassificationLoss is {value}, expected {bound} or more"
    ):
        MaskClassificationLoss(**{argument: value})


@BOTH
def test_finite_where_nothing_has_weight(arguments: dict) -> None:
    losses = MaskClassificationLoss(**arguments, no_object_weight=0.0)(outputs(2), truths(0, 0))
    assert [x.item() for x in losses.values()] == [0, 0, 0]


@pytest.mark.parametrize("layers", [2, 10])
def test_one_copy_to_the_host_whatever_the_layers(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a GPU: a number read out, positions of what is not zero, the assignment's copy."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Waits(TorchDispatchMode):
        found: ClassVar[list[str]] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func._schema.name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"):
                self.found.append(func._schema.name)
            return func(*args, **(kwargs or {}))

    copies = []
    monkeypatch.setattr(mask_classification, "assign", lambda *x: copies.append(1) or assign(*x))
    with Waits():
        losses = MaskClassificationLoss(points=64)(outputs(2)[:1] * layers, truths(3, 5))
        torch.stack(list(losses.values())).sum().backward()
    assert not Waits.found
    assert len(copies) == 1


@BOTH
def test_segments_beyond_the_queries_are_counted_and_cost_nothing(arguments: dict) -> None:
    """Their share of the divisor stays: two pairs of 200 segments."""
    layers = outputs(2, queries=2)
    criterion = MaskClassificationLoss(**arguments)
    losses = criterion(layers, truths(200, 1))
    assert criterion.left_out == 198
    assert losses["dice"] < arguments.get("dice_weight", 5.0) * LAYERS * 3 / 201
    assert all(x.isfinite().all() for x in gradients(losses, layers))
    criterion(layers, truths(2, 0))
    assert criterion.left_out == 0


@BOTH
def test_the_same_in_small_chunks(arguments: dict, monkeypatch: pytest.MonkeyPatch, same_points: None) -> None:
    layers, targets = outputs(2), truths(3, 4)
    whole = MaskClassificationLoss(**arguments)(layers, targets)
    monkeypatch.setattr(mask_classification, "_CHUNK", 1)
    parts = MaskClassificationLoss(**arguments)(layers, targets)
    for one, other in zip(gradients(whole, layers), gradients(parts, layers), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@BOTH
def test_float32_inside_under_mixed_precision(arguments: dict) -> None:
    halves = [(c.detach().bfloat16(), m.detach().bfloat16()) for c, m in outputs(4, scale=0.1)]
    criterion, targets = MaskClassificationLoss(**arguments), truths(8, 8, 8, 8)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = criterion(halves, targets)
    torch.manual_seed(0)
    assert mixed == criterion([(c.float(), m.float()) for c, m in halves], targets)
    assert all(loss.dtype == torch.float32 for loss in mixed.values())


def test_fixed_matching_supervises_the_queries_of_the_classes() -> None:
    layers, (target,) = outputs(1, queries=CLASSES), truths(2)
    target.labels = torch.tensor([3, 1])
    losses = MaskClassificationLoss(**MASKFORMER, matching="fixed")(layers, [target])
    expected = torch.tensor([CLASSES, 1, CLASSES, 3, CLASSES])
    weight = torch.tensor([1.0] * CLASSES + [0.1])
    torch.testing.assert_close(losses["class"], sum(cross_entropy(c[0], expected, weight) for c, _ in layers))
    for of_masks in gradients(losses, layers)[1::2]:
        assert of_masks[0].flatten(1).any(1).tolist() == [False, True, False, True, False]


def test_fixed_matching_says_what_it_wants() -> None:
    criterion = MaskClassificationLoss(matching="fixed")
    with pytest.raises(SegfolioError, match="give it 5 queries"):
        criterion(outputs(1), truths(2))


def train_step(rank: int, images: list[slice], folder: str) -> None:
    """Losses and gradients of this process's images, as its DDP would average them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(images))
    layers = [tuple(x[images[rank]].detach().requires_grad_() for x in layer) for layer in outputs(4)]
    losses = MaskClassificationLoss(**MASKFORMER)(layers, truths(3, 0, 1, 11)[images[rank]])
    found = {name: loss.item() for name, loss in losses.items()}
    found["gradients"] = [x.abs().sum().item() / len(images) for x in gradients(losses, layers)]
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_the_mean_of_two_processes_is_the_loss_of_the_whole_batch(tmp_path: Path) -> None:
    """Though they have 3 and 12 segments, 3 and 9 of them with a query."""
    command = [sys.executable, "-m", "tests.losses.test_mask_classification", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, timeout=300, check=True)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    layers = outputs(4)
    whole = MaskClassificationLoss(**MASKFORMER)(layers, truths(3, 0, 1, 11))
    for name, loss in whole.items():
        assert (first[name] + second[name]) / 2 == pytest.approx(loss.item(), rel=1e-5)
    sums = [x.abs().sum().item() for x in gradients(whole, layers)]
    assert [a + b for a, b in zip(first["gradients"], second["gradients"], strict=True)] == pytest.approx(
        sums, rel=1e-4
    )


if __name__ == "__main__":
    mp.start_processes(train_step, ([slice(0, 2), slice(2, 4)], sys.argv[1]), 2, start_method="fork")


@pytest.mark.parametrize("points", [None, 64])
def test_void_is_left_out_or_learned_as_outside(points) -> None:
    """A query that claims all void pixels and nothing else wrong: free where they are ignored, wrong where not."""
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, :, :8] = True
    valid = torch.ones(16, 16, dtype=torch.bool)
    valid[:, 8:] = False
    logits = torch.full((1, 1, 16, 16), 20.0)
    layers = [(torch.tensor([[[20.0, 0.0, -20.0]]]), logits)]
    targets = [MaskTarget(torch.tensor([0]), masks, valid)]
    ignored = MaskClassificationLoss(points=points, void="ignored")(layers, targets)
    negative = MaskClassificationLoss(points=points, void="negative")(layers, targets)
    assert negative["mask"] > 2 * ignored["mask"] + 1  # points on the border are read half from outside
    assert negative["dice"] > ignored["dice"] + 0.5
    if points is None:
        assert ignored["mask"] + ignored["dice"] < 1e-3
    all_valid = [MaskTarget(torch.tensor([0]), masks)]
    torch.manual_seed(0)
    expected = MaskClassificationLoss(points=points)(layers, all_valid)
    torch.manual_seed(0)
    assert MaskClassificationLoss(points=points, void="negative")(layers, targets) == expected
