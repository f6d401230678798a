"""Inference of mask classification: against the formulas on whole maps, transformers where it is right, hand counts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import EomtImageProcessor, Mask2FormerImageProcessor, MaskFormerImageProcessor

from benchmarks.confusion_matrix import peak_bytes
from segfolio.data.formats import rle
from segfolio.data.sample import Instances
from segfolio.inference.mask_classification import instances, panoptic, semantic
from segfolio.inference.tiles import BUDGET, bands

CLASSES = 6
IS_THING = (True, True, True, False, False, False)
STUFF = {3, 4, 5}
SIZES = [(48, 48), (24, 24), (61, 37), (11, 90), (1, 1)]


def outputs(seed: int, queries: int = 12, classes: int = CLASSES, side: int = 24) -> tuple[Tensor, Tensor]:
    """Class and mask logits: blobs, of queries that are mostly sure of their class; every fourth is no object."""
    g = torch.Generator().manual_seed(seed)
    blobs = torch.randn(1, queries, 4, 4, generator=g).mul(6).sub(4)
    class_logits = torch.randn(queries, classes + 1, generator=g)
    sure = torch.randint(classes, (queries,), generator=g)
    sure[::4] = classes
    class_logits[torch.arange(queries), sure] += 6
    return class_logits, interpolate(blobs, (side, side), mode="bicubic")[0]


def certain(*labels: int, score: float = 0.99, classes: int = CLASSES) -> Tensor:
    """`[Q, classes + 1]` logits of queries that give their class `score`."""
    probabilities = torch.full((len(labels), classes + 1), (1 - score) / classes)
    probabilities[torch.arange(len(labels)), torch.tensor(labels)] = score
    return probabilities.log()


def columns(*masks: list[float]) -> Tensor:
    """Mask logits of which all 10 rows are alike, `[Q, 10, W]`."""
    return torch.tensor(masks)[:, None].expand(-1, 10, -1)


def batch(class_logits: Tensor, mask_logits: Tensor) -> SimpleNamespace:
    """As transformers takes it."""
    return SimpleNamespace(
        class_queries_logits=class_logits[None], masks_queries_logits=mask_logits[None], patch_offsets=None
    )


def resized(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(mask_logits[None], size, mode="bilinear", align_corners=False)[0]


def objects(found: Instances) -> list[tuple[int, float, bytes]]:
    """Label, score and mask of each, in order of the scores."""
    rows = zip(found.labels.tolist(), found.scores.tolist(), [mask["counts"] for mask in found.rles], strict=True)
    return sorted(rows, key=lambda row: -row[1])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("budget", [1, 30_000, BUDGET])
def test_bands_put_together_are_the_interpolation_of_the_whole(size: tuple[int, int], budget: int) -> None:
    _, mask_logits = outputs(0)
    parts = list(bands(mask_logits, size, budget, beside=1))
    assert len(parts) == 1 if budget == BUDGET else len(parts) >= min(size[0], 2)
    whole = torch.cat([band for _, band in parts], 1)
    torch.testing.assert_close(whole, resized(mask_logits, size), rtol=1e-6, atol=2e-5)
    assert torch.equal(whole, next(bands(mask_logits, size, BUDGET, beside=1))[1])


@pytest.mark.parametrize("size", SIZES)
def test_no_budget_changes_a_result(size: tuple[int, int]) -> None:
    logits = outputs(1)
    for budget in (1, 30_000):
        assert torch.equal(semantic(*logits, size, budget), semantic(*logits, size))
        ours, theirs = (panoptic(*logits, size, IS_THING, budget=b) for b in (budget, BUDGET))
        assert torch.equal(ours.id_map, theirs.id_map)
        assert torch.equal(ours.labels, theirs.labels)
        assert objects(instances(*logits, size, IS_THING, budget=budget)) == objects(instances(*logits, size, IS_THING))


def test_each_instance_has_the_box_of_its_query() -> None:
    class_logits, mask_logits = outputs(0)
    size, queries = SIZES[0], torch.arange(len(class_logits)) / 100
    boxes = torch.stack([torch.full_like(queries, 0.5), torch.full_like(queries, 0.5), queries, queries / 2], 1)
    found = instances(class_logits, mask_logits, size, IS_THING, boxes=boxes)
    masks = resized(mask_logits, size) > 0
    assert found.boxes is not None
    assert len({tuple(box) for box in found.boxes.tolist()}) > 1
    height, width = size
    for mask, (x, y, wide, high) in zip(rle.decode(found.rles, size), found.boxes.tolist(), strict=True):
        query = round(100 * wide / width)
        np.testing.assert_array_equal(mask, masks[query].numpy())
        expected = (1 - query / 100) * width / 2, (1 - query / 200) * height / 2, query / 200 * height
        assert (x, y, high) == pytest.approx(expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_semantic_is_the_best_class_of_the_product_over_queries(seed: int, size: tuple[int, int]) -> None:
    """Where two classes are equal to rounding, either may win."""
    class_logits, mask_logits = outputs(seed)
    masks = resized(mask_logits, size).sigmoid()
    scores = torch.einsum("qc,qhw->chw", class_logits.softmax(-1)[:, :-1], masks)
    best, second = scores.topk(2, dim=0).values
    found = semantic(class_logits, mask_logits, size)
    assert found.shape == size
    assert ((found == scores.argmax(0)) | (best - second < 1e-5)).all()
    assert (best - second < 1e-5).float().mean() < 0.01


@pytest.mark.parametrize(("processor", "side"), [(MaskFormerImageProcessor, 48), (Mask2FormerImageProcessor, 384)])
def test_semantic_equals_transformers_where_it_does_not_resize(processor: type, side: int) -> None:
    logits = outputs(2, side=side)
    (theirs,) = processor().post_process_semantic_segmentation(batch(*logits), target_sizes=[(side, side)])
    assert (semantic(*logits, (side, side)) == theirs).float().mean() > 0.9999


def test_semantic_resizes_logits_where_transformers_resizes_probabilities() -> None:
    """MaskFormer's section 3.4 and code: first the size, then the sigmoid. Two queries, one row of two pixels."""
    logits = certain(0, 1), torch.tensor([[[-20.0, 4.0]], [[-1.0, -1.0]]])
    (theirs,) = MaskFormerImageProcessor().post_process_semantic_segmentation(batch(*logits), target_sizes=[(1, 4)])
    assert semantic(*logits, (1, 4)).tolist() == [[1, 1, 1, 0]]  # logits -20, -14, -2, 4 against -1
    assert theirs.tolist() == [[1, 1, 0, 0]]  # probabilities 0, 0.25, 0.74, 0.98 against 0.27


@pytest.mark.parametrize(("classes", "dtype"), [(256, torch.uint8), (257, torch.int16)])
def test_semantic_holds_the_last_class(classes: int, dtype: torch.dtype) -> None:
    found = semantic(certain(classes - 1, classes=classes), torch.ones(1, 2, 2), (4, 4))
    assert found.dtype == dtype
    assert found.unique().tolist() == [classes - 1]


@pytest.mark.parametrize("target", [24, 60])
@pytest.mark.parametrize("seed", range(4))
def test_panoptic_equals_transformers_eomt(seed: int, target: int) -> None:
    logits = outputs(seed)
    (theirs,) = EomtImageProcessor().post_process_panoptic_segmentation(
        batch(*logits),
        target_sizes=[(target, target)],
        stuff_classes=list(STUFF),
        overlap_mask_area_threshold=0.3,
        size={"shortest_edge": target, "longest_edge": target},
    )
    found = panoptic(*logits, (target, target), IS_THING, overlap_threshold=0.3)
    assert found.labels.tolist() == [segment["label_id"] for segment in theirs["segments_info"]]
    assert len(found) >= 2
    assert (found.id_map == theirs["segmentation"] + 1).float().mean() > 0.999


def test_panoptic_leaves_faint_pixels_without_a_segment() -> None:
    """Transformers' MaskFormer and Mask2Former processors give them to whoever is least faint."""
    logits = certain(0), columns([5, 5, -1, -1])
    (theirs,) = MaskFormerImageProcessor().post_process_panoptic_segmentation(batch(*logits), label_ids_to_fuse=STUFF)
    assert panoptic(*logits, (10, 4), IS_THING).id_map[0].tolist() == [1, 1, 0, 0]
    assert theirs["segmentation"][0].tolist() == [1, 1, 1, 1]


def test_panoptic_merges_stuff_and_keeps_things_apart() -> None:
    """Transformers' MaskFormer and Mask2Former processors count on from the merged id: both things become one."""
    logits = certain(4, 0, 4, 0), 9 - 18 * torch.eye(4)[:, None].expand(-1, 10, -1).neg().add(1)
    (theirs,) = MaskFormerImageProcessor().post_process_panoptic_segmentation(
        batch(*logits), threshold=0.8, label_ids_to_fuse=STUFF
    )
    found = panoptic(*logits, (10, 4), IS_THING)
    assert found.labels.tolist() == [4, 0, 0]
    assert found.id_map[0].tolist() == [1, 2, 1, 3]
    assert found.crowd.tolist() == [False] * 3
    assert theirs["segmentation"][0].tolist() == [1, 2, 1, 2]


def test_panoptic_measures_a_mask_by_its_own_probability() -> None:
    """Transformers' MaskFormer and Mask2Former processors measure score x probability: 0.85 x 0.55 is nothing."""
    logits = certain(0, score=0.85), columns([0.2] * 4)
    (theirs,) = MaskFormerImageProcessor().post_process_panoptic_segmentation(batch(*logits), label_ids_to_fuse=STUFF)
    assert panoptic(*logits, (10, 4), IS_THING).id_map.unique().tolist() == [1]
    assert theirs["segments_info"] == []


@pytest.mark.parametrize(("covered", "kept"), [(5, True), (6, False)])
def test_panoptic_drops_what_is_largely_covered(covered: int, kept: bool) -> None:
    """Half of 10 columns is enough for a threshold of 0.5, as in the papers' code; transformers wants more."""
    logits = certain(0, 1), columns([2.0] * 10, [5.0] * covered + [-9.0] * (10 - covered))
    (theirs,) = EomtImageProcessor().post_process_panoptic_segmentation(
        batch(*logits),
        target_sizes=[(10, 10)],
        overlap_mask_area_threshold=0.5,
        size={"shortest_edge": 10, "longest_edge": 10},
    )
    found = panoptic(*logits, (10, 10), IS_THING, overlap_threshold=0.5)
    assert found.labels.tolist() == ([0, 1] if kept else [1])
    assert found.id_map[0].tolist() == [2 if kept else 1] * covered + [int(kept)] * (10 - covered)
    assert [segment["label_id"] for segment in theirs["segments_info"]] == [1]


def test_panoptic_counts_faint_pixels_among_those_won() -> None:
    """As the official code does: 6 of 10 columns and 4 faint ones make 10, though the segment has 6."""
    masks = columns([2.0] * 10 + [-1.0] * 4, [5.0] * 4 + [-9.0] * 10)
    found = panoptic(certain(0, 1), masks, (10, 14), IS_THING)
    assert found.labels.tolist() == [0, 1]
    assert found.id_map[0].tolist() == [2] * 4 + [1] * 6 + [0] * 4


def test_panoptic_takes_queries_above_the_threshold_alone() -> None:
    class_logits = torch.cat([certain(0, score=0.79), certain(1, score=0.81), certain(CLASSES, score=0.99)])
    masks = torch.full((3, 4, 4), 5.0)
    found = panoptic(class_logits, masks, (4, 4), IS_THING)
    assert found.labels.tolist() == [1]
    assert found.id_map.unique().tolist() == [1]
    assert panoptic(class_logits, masks, (4, 4), IS_THING, object_threshold=0.7, overlap_threshold=0).labels[0] == 1


@pytest.mark.parametrize("mask_logit", [5.0, -5.0])
def test_panoptic_of_no_object_or_no_mask_is_an_empty_map(mask_logit: float) -> None:
    class_logits = certain(CLASSES if mask_logit > 0 else 0)
    found = panoptic(class_logits, torch.full((1, 4, 4), mask_logit), (8, 6), IS_THING)
    assert len(found) == 0
    assert found.rles == []
    assert torch.equal(found.id_map, torch.zeros(8, 6, dtype=torch.int32))


@pytest.mark.parametrize(("processor", "side"), [(MaskFormerImageProcessor, 48), (Mask2FormerImageProcessor, 384)])
def test_instances_equal_transformers_where_it_does_not_resize(processor: type, side: int) -> None:
    """It takes as many as there are queries, of all classes."""
    logits = outputs(3, side=side)
    (theirs,) = processor().post_process_instance_segmentation(batch(*logits), threshold=0, return_binary_maps=True)
    expected = Instances(
        rle.encode(theirs["segmentation"].bool().numpy()),
        torch.tensor([segment["label_id"] for segment in theirs["segments_info"]]),
        torch.tensor([segment["score"] for segment in theirs["segments_info"]]),
    )
    found = instances(*logits, (side, side), [True] * CLASSES, top_k=12)
    assert len(found.rles) == 12
    for ours, reference in zip(objects(found), objects(expected), strict=True):
        assert (ours[0], ours[2]) == (reference[0], reference[2])
        assert ours[1] == pytest.approx(reference[1], abs=2e-6)


def test_instances_resize_logits_where_transformers_repeats_pixels() -> None:
    logits = certain(0), columns([-3.0, 1.0])
    (theirs,) = MaskFormerImageProcessor().post_process_instance_segmentation(batch(*logits), target_sizes=[(10, 8)])
    assert (
        rle.decode(instances(*logits, (10, 8), IS_THING).rles[:1], (10, 8))[0, 0].tolist() == [False] * 5 + [True] * 3
    )
    assert theirs["segmentation"][0].tolist() == [-1] * 4 + [0] * 4


def test_an_instance_scores_class_times_mean_mask_probability() -> None:
    """Two classes of one query are two objects; EoMT's processor in transformers takes the better one alone."""
    probabilities = torch.tensor([[0.6, 0.3, 0.0, 0.0, 0.0, 0.0, 0.1]])
    masks = columns([4.0, 2.0, -1.0, -5.0])
    found = instances(probabilities.log(), masks, (10, 4), IS_THING, top_k=2)
    mean = torch.tensor([4.0, 2.0]).sigmoid().mean().item()
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.6 * mean, 0.3 * mean])
    assert rle.decode(found.rles, (10, 4)).all(1).tolist() == [[True, True, False, False]] * 2


def test_instances_are_chosen_before_stuff_and_empty_masks_are_dropped() -> None:
    class_logits = torch.cat([certain(4, score=0.95), certain(0, score=0.9), certain(1, score=0.85)])
    masks = columns([5.0] * 4, [-5.0] * 4, [5.0] * 4)
    labels = [instances(class_logits, masks, (10, 4), IS_THING, top_k=k).labels.tolist() for k in (1, 2, 3)]
    assert labels == [[], [], [1]]
    assert instances(class_logits, masks, (10, 4), IS_THING, top_k=1).rles == []


def test_fewer_pairs_than_top_k_are_all_there() -> None:
    found = instances(certain(0, 1), torch.ones(2, 4, 4), (4, 4), [True] * CLASSES, top_k=100)
    assert len(found.rles) == len(found.labels) == len(found.scores) == 2 * CLASSES


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_and_autocast_compute_in_float32(dtype: torch.dtype) -> None:
    reduced = tuple(x.to(dtype) for x in outputs(4))
    wide = tuple(x.float() for x in reduced)
    size = (50, 50)
    for logits in (reduced, wide):
        with torch.autocast("cpu", torch.bfloat16, enabled=logits is wide):
            assert torch.equal(semantic(*logits, size), semantic(*wide, size))
            assert torch.equal(panoptic(*logits, size, IS_THING).id_map, panoptic(*wide, size, IS_THING).id_map)
            assert objects(instances(*logits, size, IS_THING)) == objects(instances(*wide, size, IS_THING))


def test_no_gradient_is_kept() -> None:
    class_logits, mask_logits = (x.requires_grad_() for x in outputs(5))
    assert not instances(class_logits, mask_logits, (24, 24), IS_THING).scores.requires_grad


def test_memory_stays_within_the_budget() -> None:
    """`[Q, H, W]` is 100 MiB here and `[C, H, W]` 150; the budget is for what is neither input nor result."""
    logits = outputs(6, queries=100, classes=150, side=128)
    size, is_thing, budget, pixels = (512, 512), [True] * 80 + [False] * 70, 4 * 2**20, 512 * 512
    assert peak_bytes(lambda: semantic(*logits, size, budget)) < 1.1 * budget + pixels
    assert peak_bytes(lambda: instances(*logits, size, is_thing, budget=budget)) < 1.1 * budget
    rest = 8 * pixels + logits[1].nbytes  # two maps of int32, the masks of the queries that count
    assert peak_bytes(lambda: panoptic(*logits, size, is_thing, budget=budget)) < 1.1 * budget + rest
