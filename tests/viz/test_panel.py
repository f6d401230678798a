from pathlib import Path

import numpy as np
import pytest

from segfolio.data.formats.images import read_id_map, read_image
from segfolio.data.labels import LabelSpace
from segfolio.viz.overlay import HATCH, VOID, WRONG, Pixels
from segfolio.viz.panel import panel as panel_of_view
from segfolio.viz.regions import Regions
from segfolio.viz.views import View, semantic_view

LABELS = LabelSpace(
    ("road", "tree", "sky", "never"),
    void_ids=(255,),
    palette=((9, 80, 7), (200, 3, 250), (4, 90, 200), (99, 9, 9)),
)


def panel(image, truth, prediction, labels, *arguments, **options):
    return panel_of_view(image, semantic_view(prediction, truth, labels), labels, *arguments, **options)


def count(pixels: Pixels, color: tuple[int, int, int]) -> int:
    return int((pixels == color).all(-1).sum())


def scene(height: int, width: int) -> tuple[Pixels, np.ndarray, np.ndarray]:
    """An image of one colour; the left half road, the right half tree, the truth void in its last row."""
    truth = np.zeros((height, width), np.uint8)
    truth[:, width // 2 :] = 1
    truth[-1] = 255
    prediction = np.where(truth == 255, 0, truth).astype(np.uint8)
    return np.full((height, width, 3), (1, 2, 3), np.uint8), truth, prediction


def legend(pixels: Pixels) -> Pixels:
    """The rows below the last row of tiles, where the image has its own colour."""
    return pixels[np.flatnonzero((pixels == (1, 2, 3)).all(-1).any(1)).max() + 1 :]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (360, 480), (1024, 2048), (3000, 200), (5, 3000)])
@pytest.mark.parametrize("max_width", [800, 2000])
def test_panel_is_no_wider_than_asked(height: int, width: int, max_width: int) -> None:
    image, truth, prediction = scene(height, width)
    assert panel(image, truth, prediction, LABELS, "a title" * 99, max_width).shape[1] <= max_width


def test_small_image_is_enlarged_by_a_whole_factor() -> None:
    image, truth, prediction = scene(64, 64)
    assert count(panel(image, truth, prediction, LABELS), (1, 2, 3)) == 25 * 64 * 64


def test_image_of_the_right_size_is_shown_as_it_is() -> None:
    image, truth, prediction = scene(360, 480)
    assert count(panel(image, truth, prediction, LABELS, max_width=2100), (1, 2, 3)) == 360 * 480
    assert count(panel(image, None, prediction, LABELS), (1, 2, 3)) == 360 * 480


def test_wide_images_stand_in_two_rows() -> None:
    image, truth, prediction = scene(200, 400)
    height, width = panel(image, truth, prediction, LABELS).shape[:2]
    assert 400 < height < 600
    assert 800 < width < 900


def test_legend_shows_the_classes_that_occur() -> None:
    image, truth, prediction = scene(90, 120)
    shown = legend(panel(image, truth, prediction, LABELS))
    road, tree, sky, never = (count(shown, c) for c in LABELS.palette)
    assert road == tree > 100
    assert sky == never == 0
    assert count(shown, WRONG) == 0  # every labelled pixel is right
    assert count(shown, VOID) > 50
    assert count(shown, HATCH) > 25


def test_legend_of_a_prediction_alone() -> None:
    image, _, prediction = scene(90, 120)
    prediction[0, 0] = 2
    shown = legend(panel(image, None, prediction, LABELS))
    assert all(count(shown, c) > 100 for c in LABELS.palette[:3])
    assert count(shown, VOID) == 0


def test_errors_are_red_over_the_image_and_in_the_legend() -> None:
    image, truth, prediction = scene(320, 320)
    prediction[:10, :10] = 2
    prediction[-1] = 2  # ignored in the truth
    drawn = panel(image, truth, prediction, LABELS)
    swatch = count(legend(drawn), WRONG)
    assert swatch > 100
    assert count(drawn, WRONG) - swatch == 100


def test_truth_and_prediction_are_drawn_in_their_own_places() -> None:
    image, truth, prediction = scene(320, 320)
    drawn = panel(image, truth * 0, prediction * 0 + 1, LABELS)
    tile = drawn[np.flatnonzero((drawn == (1, 2, 3)).all(-1).any(1))]
    road, tree = (np.rint(np.add(c, (1, 2, 3)) / 2).astype(np.uint8) for c in LABELS.palette[:2])
    columns = [np.flatnonzero((tile == c).all(-1).all(0)) for c in ((1, 2, 3), road, tree, WRONG)]
    assert [len(c) for c in columns] == [320] * 4
    assert (
        columns[0].max() < columns[1].min() < columns[1].max() < columns[2].min() < columns[2].max() < columns[3].min()
    )


def test_a_long_legend_takes_more_rows_and_shows_every_class() -> None:
    image, truth, prediction = scene(90, 120)
    many = LabelSpace(tuple(f"a class with a long name {i}" for i in range(60)))
    all_classes = np.arange(90 * 120).reshape(90, 120) % 60
    drawn = panel(image, all_classes, all_classes, many)
    assert drawn.shape[0] > panel(image, truth, prediction, LABELS).shape[0] + 10 * 20  # ten more lines
    below = legend(drawn)
    assert all(count(below, c) > 100 for c in many.palette)


def objects(numbers: list[int]) -> View:
    """Two cars side by side in a strip of sky, of which those with the numbers are found."""
    truth = np.zeros((40, 60), np.int32)
    truth[10:30, 5:25], truth[10:30, 35:55] = 1, 2
    found = np.where(np.isin(truth, numbers), truth, 0)
    colors = np.array([(250, 10, 10), (10, 10, 250)], np.uint8)
    captions = {1: ("car",), 2: ("car",)}
    return View("instances", Regions(found, captions), Regions(truth, captions), [0, 0], colors, "a note")


def test_the_legend_shows_a_class_in_the_colours_of_its_objects() -> None:
    image = np.full((40, 60, 3), (1, 2, 3), np.uint8)
    for numbers in ([], [1, 2]):
        shown = legend(panel_of_view(image, objects(numbers), LABELS))
        red, blue = count(shown, (250, 10, 10)), count(shown, (10, 10, 250))
        assert red > 50
        assert blue > 50
        assert count(shown, LABELS.palette[0]) == 0
        assert (count(shown, WRONG) > 100) == (not numbers)


def test_objects_are_shown_large_in_two_rows_with_a_border_in_their_colour() -> None:
    image = np.full((40, 60, 3), (1, 2, 3), np.uint8)
    drawn = panel_of_view(image, objects([1]), LABELS, max_width=1600)
    scale = 1600 // 2 // 60 - 1  # what the margins leave
    border = 2 * 4 * (20 * scale - 2)  # two pixels wide
    below = legend(drawn)
    assert count(drawn, (250, 10, 10)) - count(below, (250, 10, 10)) == 2 * border  # truth and prediction
    assert count(drawn, (10, 10, 250)) - count(below, (10, 10, 250)) == border
    assert drawn.shape[0] > 2 * 40 * scale


def test_real_street_scene(real_data: Path) -> None:
    file = sorted((real_data / "CamVid" / "test").glob("*.png"))[0]
    labels = LabelSpace(tuple(f"class {i}" for i in range(11)), void_ids=(11,))
    truth = labels.encode(read_id_map(real_data / "CamVid" / "testannot" / file.name), file)
    drawn = panel(read_image(file), truth, np.where(truth == 255, 0, truth), labels, file.stem)
    present = set(np.unique(truth).tolist()) - {255}
    below = drawn[-60:]
    swatches = [count(below, c) > 100 for c in labels.palette]
    assert swatches == [i in present for i in range(11)]
    assert drawn.shape[1] == pytest.approx(2000, abs=8)
