"""Costs of pairs, against their definition and transformers' matchers, and the assignment, against all others."""

from itertools import permutations

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from torchvision.ops import sigmoid_focal_loss
from transformers.models.mask2former.modeling_mask2former import Mask2FormerHungarianMatcher
from transformers.models.maskformer.modeling_maskformer import MaskFormerHungarianMatcher

from segfolio.errors import SegfolioError
from segfolio.losses.mask_matching import (
    MaskLoss,
    MaskTarget,
    Weights,
    assign,
    at_points,
    one_query_per_class,
    pair_costs,
    random_points,
)

QUERIES, CLASSES, SEGMENTS, POINTS = 7, 4, 3, 50
WEIGHTS = Weights(2.0, 5.0, 3.0)


@pytest.fixture
def pair(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Class logits, mask logits at points, labels, masks at points."""
    return (
        torch.randn(QUERIES, CLASSES + 1, generator=generator),
        3 * torch.randn(QUERIES, POINTS, generator=generator),
        torch.randint(CLASSES, (SEGMENTS,), generator=generator),
        (torch.rand(SEGMENTS, POINTS, generator=generator) < 0.4).float(),
    )


def test_points_read_pixels_at_their_centres_and_the_mean_between_them() -> None:
    maps = torch.arange(6.0).view(1, 1, 2, 3)  # 3 wide, 2 high
    points = torch.tensor([[[-2 / 3, -0.5], [2 / 3, 0.5], [0.0, -0.5], [0.0, 0.0]]])
    torch.testing.assert_close(at_points(maps, points)[0, 0], torch.tensor([0.0, 5.0, 1.0, 2.5]))


@pytest.mark.parametrize("some_void", [False, True])
@pytest.mark.parametrize("kind", ["bce", "focal"])
def test_costs_equal_the_definition_pair_by_pair(kind: MaskLoss, some_void: bool, pair, generator: Generator) -> None:
    classes, logits, labels, masks = pair
    valid = (torch.rand(POINTS, generator=generator) < 0.7).float() if some_void else None
    costs = pair_costs(classes, logits, labels, masks, valid, WEIGHTS, kind)
    seen = torch.ones(POINTS, dtype=torch.bool) if valid is None else valid.bool()
    for q in range(QUERIES):
        for n in range(SEGMENTS):
            x, t = logits[q, seen], masks[n, seen]
            mask = binary_cross_entropy_with_logits(x, t) if kind == "bce" else sigmoid_focal_loss(x, t).mean()
            dice = 1 - (2 * (x.sigmoid() * t).sum() + 1) / (x.sigmoid().sum() + t.sum() + 1)
            expected = -2 * classes[q].softmax(0)[labels[n]] + 5 * mask + 3 * dice
            torch.testing.assert_close(costs[q, n], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [1e4, -1e4])
@pytest.mark.parametrize("kind", ["bce", "focal"])
def test_costs_of_extreme_logits_are_finite(kind: MaskLoss, value: float, pair) -> None:
    classes, logits, labels, masks = pair
    costs = pair_costs(value * classes, torch.full_like(logits, value), labels, masks, None, WEIGHTS, kind)
    assert costs.isfinite().all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("segments", [1, 5, 12])
def test_matches_are_those_of_mask2former_and_maskformer(
    seed: int, segments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(seed)
    classes, logits = torch.randn(1, 10, CLASSES + 1), 2 * torch.randn(1, 10, 16, 20)
    labels, masks = torch.randint(CLASSES, (segments,)), (torch.rand(segments, 32, 40) < 0.5).float()
    drawn = torch.rand(1, 200, 2)
    monkeypatch.setattr(torch, "rand", lambda *size, device=None: drawn.clone())
    points = random_points(1, 200, torch.device("cpu"))
    read = [at_points(maps[None], points)[0] for maps in (logits[0], masks)]
    whole = [logits[0].flatten(1), interpolate(masks[None], (16, 20))[0].flatten(1)]
    peers = {
        "bce": (read, Mask2FormerHungarianMatcher(2.0, 5.0, 3.0, 200)),
        "focal": (whole, MaskFormerHungarianMatcher(2.0, 5.0, 3.0)),
    }
    for kind, ((x, truth), matcher) in peers.items():
        ((queries, found),) = matcher(logits, classes, [masks], [labels])
        costs = pair_costs(classes[0], x, labels, truth, None, WEIGHTS, kind)
        match = assign(costs[None], [segments])[0]
        assert {(int(match[n]), n) for n in range(segments) if match[n] >= 0} == set(
            zip(queries.tolist(), found.tolist(), strict=True)
        )


def test_no_other_assignment_costs_less_in_any_image_or_layer(generator: Generator) -> None:
    costs = torch.randn(2, 5, 3 + 0 + 2, generator=generator)
    match = assign(costs, [3, 0, 2])
    assert match.dtype == torch.int64
    for layer, row in zip(costs, match, strict=True):
        for cost, queries in zip(layer.split([3, 0, 2], 1), row.split([3, 0, 2]), strict=True):
            columns = torch.arange(len(queries))
            best = min(cost[list(q), columns].sum() for q in permutations(range(5), len(queries)))
            assert len(set(queries.tolist())) == len(queries)
            torch.testing.assert_close(cost[queries, columns].sum(), best)


def test_segments_beyond_the_queries_are_left_out(generator: Generator) -> None:
    match = assign(torch.randn(2, 3, 7, generator=generator), [5, 2])
    for row in match[:, :5]:
        assert sorted(row.tolist()) == [-1, -1, 0, 1, 2]
    assert (match[:, 5:] >= 0).all()


def test_a_query_that_is_not_finite_is_matched_last() -> None:
    costs = torch.ones(1, 3, 2)
    costs[0, 0], costs[0, 1, 1] = torch.nan, torch.inf
    assert assign(costs, [2]).tolist() == [[1, 2]]


def target(labels: list[int]) -> MaskTarget:
    return MaskTarget(torch.tensor(labels, dtype=torch.int64), torch.zeros(len(labels), 2, 2, dtype=torch.bool))


def test_fixed_matching_takes_the_query_of_the_class() -> None:
    assert one_query_per_class([target([3, 0]), target([]), target([0])], 4, 4).tolist() == [3, 0, 0]


def test_fixed_matching_wants_as_many_queries_as_classes() -> None:
    with pytest.raises(SegfolioError, match="the network has 100 queries for 4 classes; give it 4 queries"):
        one_query_per_class([target([1])], 100, 4)


def test_fixed_matching_wants_one_segment_per_class() -> None:
    with pytest.raises(SegfolioError, match="image 1 of the batch has 2 segments of class 3"):
        one_query_per_class([target([0, 3]), target([3, 1, 3])], 4, 4)
