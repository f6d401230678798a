"""How a figure is read, shown and compared."""

import math

import pytest

from segfolio.figure import HOUSE, Figure, of_key

RATIO, CLICKS = HOUSE["mIoU"], Figure("NoC90", "clicks", higher_is_better=False)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("test/mIoU", "mIoU"),
        ("val/mIoU", "mIoU"),
        ("test/slide/mIoU", "mIoU"),
        ("test/IoU/car", "IoU/<class>"),
        ("val/IoU/traffic/light", "IoU/<class>"),
        ("test/iIoU", "iIoU"),
        ("test/iIoU/car", "iIoU/<class>"),
        ("train/mIoU", None),
        ("val/slide/mIoU", None),
        ("test/IoU", None),
        ("test/miou", None),
        ("mIoU", None),
    ],
)
def test_a_log_key_is_read(key, name):
    found = of_key(key, HOUSE)
    assert (found and found.name) == name


def test_a_ratio_is_shown_in_percent_and_others_in_their_unit():
    assert [RATIO.text(0.4639), RATIO.text(-0.0041, "+"), RATIO.text(None)] == ["46.4", "-0.4", "-"]
    assert [CLICKS.text(2.5), CLICKS.text(0.25, "+"), CLICKS.text(None)] == ["2.50", "+0.25", "-"]
    assert RATIO.label("slide/mIoU") == "slide/mIoU"
    assert CLICKS.label("NoC90") == "NoC90 (clicks) ↓"


@pytest.mark.parametrize(
    ("figure", "value", "best", "improves"),
    [
        (RATIO, 0.5, 0.4, True),
        (RATIO, 0.4, 0.4, False),
        (CLICKS, 2.5, 3.0, True),
        (CLICKS, 3.0, 2.5, False),
        (CLICKS, 9.0, None, True),
        (CLICKS, math.nan, 3.0, False),
        (RATIO, math.nan, None, False),
    ],
)
def test_a_figure_improves_in_its_direction(figure, value, best, improves):
    assert figure.improves(value, best) == improves


@pytest.mark.parametrize("name", ["mIoU_1click", "mIoU_3clicks", "mIoU_5clicks", "J", "F", "J_and_F", "AR_1000"])
def test_figures_of_prompts_and_clips_are_ratios(name):
    assert HOUSE[name] == Figure(name, "", higher_is_better=True)


@pytest.mark.parametrize("name", ["NoC85", "NoC90"])
def test_fewer_clicks_are_better(name):
    assert HOUSE[name] == Figure(name, "clicks", higher_is_better=False)
