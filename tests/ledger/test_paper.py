import pytest

from segfolio.errors import SegfolioError
from segfolio.ledger.compare import paper_and_ours, state
from segfolio.ledger.paper import Paper


def paper(**expected: float) -> Paper:
    return Paper("T", "1511.00561", "a row", {k.replace("__", "/"): v for k, v in expected.items()}, tolerance=0.02)


def test_a_figure_in_percent_is_refused():
    with pytest.raises(SegfolioError, match=r"test/mIoU: 46.4; figures are ratios, such as 0.464"):
        paper(test__mIoU=46.4)


@pytest.mark.parametrize("key", ["test/miou", "mIoU", "train/mIoU", "test/AP_tiny"])
def test_an_unknown_figure_is_refused(key):
    with pytest.raises(SegfolioError, match=key):
        Paper("T", "", "row", {key: 0.5})


@pytest.mark.parametrize(
    ("ours", "expected"),
    [(0.464, "within"), (0.484, "within"), (0.4436, "within"), (0.4860, "outside"), (0.40, "outside")],
)
def test_state_is_the_distance_against_the_tolerance(ours, expected):
    assert state(0.464, ours, 0.02) == expected


def test_the_table_shows_percent_and_never_a_figure_that_was_not_run():
    text = paper_and_ours("segnet/x", paper(test__mIoU=0.464, test__fwIoU=0.6), {"test/mIoU": 0.3, "test/dice": 0.5})
    rows = {line.split()[0]: line.split() for line in text.splitlines()[3:]}
    assert rows["test/mIoU"][1:5] == ["46.4", "30.0", "-16.4", "outside"]
    assert rows["test/fwIoU"][1:] == ["60.0", "-"]
    assert rows["test/dice"][1:] == ["-", "50.0"]
