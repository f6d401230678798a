from pathlib import Path

import pytest

from segfolio.errors import SegfolioError
from segfolio.ledger.compare import paper_and_ours, state
from segfolio.ledger.paper import Paper, paper_of, read_experiment


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


@pytest.mark.parametrize("caveat", ["partial: 5 of 20 images", "other data: T has 20 images here, 233 as published"])
def test_what_is_not_comparable_gets_no_verdict(caveat):
    text = paper_and_ours("segnet/x", paper(test__mIoU=0.464), {"test/mIoU": 0.464, "test/dice": 0.5}, caveat)
    rows = {line.split()[0]: line.split() for line in text.splitlines()[3:5]}
    assert rows["test/mIoU"] == ["test/mIoU", "46.4", "46.4", *caveat.partition(":")[0].split()]
    assert rows["test/dice"] == ["test/dice", "-", "50.0"]
    assert text.endswith(f"\n\n{caveat}")
    assert "within" not in text


BLOCK = {"title": "T", "arxiv": "1511.00561", "row": "a row"}


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ([], r"paper is \[\], expected the keys title, arxiv, row"),
        ({"title": "T"}, "paper lacks arxiv, row"),
        ({**BLOCK, "arxiv": 1511.00561}, r"paper\.arxiv is 1511\.00561, expected a text"),
        ({**BLOCK, "expectd": {}}, "paper has no 'expectd'; it takes title"),
        ({**BLOCK, "expected": {"test/mIoU": "46 %"}}, r"paper\.expected is .* expected figures by log key"),
        ({**BLOCK, "expected": {"test/mIoU": 46.4}}, r"test/mIoU: 46\.4; figures are ratios"),
        ({**BLOCK, "tolerance": 2}, r"paper\.tolerance is 2; it is a ratio"),
        ({**BLOCK, "status": "todo"}, r"paper\.status is 'todo', expected one of trainable"),
        ({**BLOCK, "deviations": "none"}, "expected a list of texts"),
    ],
)
def test_a_mistake_in_the_block_names_file_and_key(block, says):
    with pytest.raises(SegfolioError, match=rf"^net/row\.yaml: .*{says}"):
        paper_of({"paper": block}, Path("net/row.yaml"))


def test_an_experiment_need_not_be_of_a_paper():
    assert paper_of({"model": {}}, Path("mine.yaml")) is None


@pytest.mark.parametrize("content", ["paper: [", "- a list", ""])
def test_a_file_that_is_no_experiment_is_named(tmp_path, content):
    (tmp_path / "row.yaml").write_text(content)
    with pytest.raises(SegfolioError, match=r"row\.yaml (cannot be read as YAML|holds .* expected the keys)"):
        read_experiment(tmp_path / "row.yaml")
