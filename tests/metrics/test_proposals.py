"""Recall of masks without classes, against pycocotools and counts by hand."""

import math

import numpy as np
import pytest
import torch

from segfolio.data.labels import LabelSpace
from segfolio.figure import HOUSE
from segfolio.metrics import ProposalMetric
from segfolio.metrics.average_precision import Kind
from segfolio.metrics.instance import SUFFIX
from tests.metrics.test_average_precision import by_pycocotools, of_kind, random_case
from tests.metrics.test_instance import LABELS, computed, from_json, predicted, truth

NAMES = ("AR_10", "AR_100", "AR_1000", "AR_small", "AR_medium", "AR_large")


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_random_cases_equal_pycocotools_without_categories_to_the_last_bit(kind: Kind) -> None:
    defined = np.zeros(6, np.int64)
    for seed in range(100):
        annotations, results = random_case(seed)
        labels, pairs = from_json(annotations, results)
        expected, _ = by_pycocotools(annotations, of_kind(results, kind), kind, (10, 100, 1000), classes=False)
        found = computed(ProposalMetric(labels, kind=kind), pairs)
        assert tuple(found) == tuple(name + SUFFIX[kind] for name in NAMES)
        assert [-1 if math.isnan(value) else value for value in found.values()] == expected[6:], seed
        defined += np.array(expected[6:]) > 0
    assert (defined > 5).all(), "cases in which nothing is found test nothing"


def test_a_mask_of_another_class_finds_an_object_and_what_is_no_object_need_not_be_found() -> None:
    metric = ProposalMetric(LABELS)
    seen = truth((0, 1), (20, 2), (40, 0))  # a cat, a dog, and what is background
    found = predicted("one", (0, 0, 0.9), (20, 0, 0.8), (60, 0, 0.7))
    assert computed(metric, [(found, seen)])["AR_10"] == 1


@pytest.mark.parametrize(("limit", "recall"), [(1, 0.0), (2, 0.5), (3, 1.0)])
def test_only_the_best_of_an_image_count_whatever_their_order(limit: int, recall: float) -> None:
    metric = ProposalMetric(LABELS, max_dets=(limit,))
    found = predicted("one", (0, 0, 0.7), (60, 0, 0.9), (20, 0, 0.8))
    assert computed(metric, [(found, truth((0, 1), (20, 1)))])[f"AR_{limit}"] == recall


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_figures_are_declared_as_the_house_has_them(kind: Kind) -> None:
    figures = ProposalMetric(LABELS, kind=kind).figures
    assert [figure.name for figure in figures] == [name + SUFFIX[kind] for name in NAMES]
    assert all(HOUSE[figure.name] == figure for figure in figures)


def test_a_dataset_of_stuff_and_things_is_asked_for_its_things() -> None:
    labels = LabelSpace(("sky", "cat", "dog"), things=("cat", "dog"))
    found = computed(ProposalMetric(labels), [(predicted("one", (0, 0, 0.5)), truth((0, 1), (20, 2), (40, 0)))])
    assert found["AR_10"] == 0.5
    assert torch.tensor(found["AR_large"]).isnan()
