"""Outlines of masks: exact on the way to polygons and back, by our rasteriser and by pycocotools'."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from segfolio.data.formats import coco, polygons, rle

few = settings(max_examples=300, deadline=None, derandomize=True)
masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


SHAPES = {
    "hole": drawn("###", "#.#", "###"),
    "corner": drawn("#.", ".#"),
    "other corner": drawn(".#", "#."),
    "hole that touches the outside in a corner": drawn("####", "#.##", "##.#", "###."),
    "island in a hole": drawn("#####", "#...#", "#.#.#", "#...#", "#####"),
    "two holes, one above the other": drawn("###", "#.#", "###", "#.#", "###"),
    "stairs of holes": drawn("#####", "#.###", "##.##", "###.#", "#####"),
    "full": np.ones((4, 3), np.bool_),
    "empty": np.zeros((4, 3), np.bool_),
    "row": drawn("##.#"),
    "column": drawn("#", ".", "#"),
}


def rings_of(found: list[polygons.Polygon]) -> list[polygons.Ring]:
    return [ring for polygon in found for ring in (polygon.outer, *polygon.holes)]


def check(mask: np.ndarray) -> None:
    found = polygons.from_mask(mask)
    assert np.array_equal(polygons.to_mask(rings_of(found), mask.shape), mask)
    if mask.any():
        official = rle.from_segmentation(polygons.to_coco(found), mask.shape)
        assert np.array_equal(rle.decode([official], mask.shape)[0], mask)


@few
@given(masks)
def test_round_trips_are_exact_by_even_odd_and_by_pycocotools(mask: np.ndarray) -> None:
    check(mask)


@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES)
def test_shapes_that_are_hard_come_back(mask: np.ndarray) -> None:
    check(mask)


def area(ring: polygons.Ring) -> float:
    """Positive where the ring runs clockwise on screen."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


@few
@given(masks)
def test_rings_turn_at_each_vertex_and_enclose_the_pixels_of_their_region(mask: np.ndarray) -> None:
    found = polygons.from_mask(mask)
    regions, ids = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    assert sorted(sum(map(area, (p.outer, *p.holes))) for p in found) == sorted(np.bincount(ids[mask])[1:])
    assert len(found) == regions - 1
    for polygon in found:
        assert area(polygon.outer) > 0
        assert all(area(hole) < 0 for hole in polygon.holes)
    for ring in rings_of(found):
        steps = np.roll(ring, -1, 0) - ring
        across = steps[:, 0] != 0
        assert np.array_equal(across, steps[:, 1] == 0)
        assert (across != np.roll(across, 1)).all()


@few
@given(masks)
def test_polygons_joined_to_their_holes_have_no_slanted_edge(mask: np.ndarray) -> None:
    for flat in polygons.to_coco(polygons.from_mask(mask)):
        ring = np.array(flat).reshape(-1, 2)
        steps = np.roll(ring, -1, 0) - ring
        assert ((steps != 0).sum(1) == 1).all()
        assert area(ring) > 0


def test_a_hole_by_hand() -> None:
    (polygon,) = polygons.from_mask(SHAPES["hole"])
    assert polygon.outer.tolist() == [[0, 0], [3, 0], [3, 3], [0, 3]]
    assert sorted(polygon.holes[0].tolist()) == [[1, 1], [1, 2], [2, 1], [2, 2]]
    (flat,) = polygons.to_coco([polygon])
    assert flat == [0, 0, 1, 0, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 0, 3, 0, 3, 3, 0, 3]


def test_pixels_that_touch_in_a_corner_are_two_polygons_but_one_hole() -> None:
    assert len(polygons.from_mask(SHAPES["corner"])) == 2
    (polygon,) = polygons.from_mask(SHAPES["stairs of holes"])
    assert len(polygon.holes) == 1


def test_a_triangle_between_pixels_takes_those_whose_centres_it_encloses() -> None:
    triangle = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    centres = np.arange(4) + 0.5
    expected = centres[None] + centres[:, None] < 4
    assert np.array_equal(polygons.to_mask([triangle], (4, 4)), expected)


def test_rings_are_cut_at_the_border() -> None:
    assert polygons.to_mask([np.array([[-5.0, -5], [9, -5], [9, 2], [-5, 2]])], (3, 4)).sum(1).tolist() == [4, 4, 0]
    assert not polygons.to_mask([np.array([[9.0, 9], [12, 9], [12, 12]])], (3, 4)).any()


@pytest.mark.parametrize("tolerance", [1.0, 2.0])
def test_simplified_outlines_have_fewer_vertices_and_stay_near(tolerance: float) -> None:
    """A ring with a hole of 100 and 40 pixels radius: pixels that change lie near its edges."""
    y, x = np.mgrid[:240, :240] - 120
    radius = np.hypot(x, y)
    mask = (radius < 100) & (radius > 40)
    exact, simpler = polygons.from_mask(mask), polygons.from_mask(mask, tolerance)
    assert sum(map(len, rings_of(simpler))) < sum(map(len, rings_of(exact))) / 4
    official = rle.from_segmentation(polygons.to_coco(simpler), mask.shape)
    for found in (polygons.to_mask(rings_of(simpler), mask.shape), rle.decode([official], mask.shape)[0]):
        changed = radius[found != mask]
        assert np.minimum(abs(changed - 40), abs(changed - 100)).max() < tolerance + 1.5


def test_nuclei_of_microscopy_come_back(real_data) -> None:
    file = coco.load(real_data / "dsb2018" / "instances_val.json")
    for image in file.images:
        for mask in rle.decode([coco.mask(file, a, image.size) for a in file.annotations[image.id]], image.size):
            check(mask)
