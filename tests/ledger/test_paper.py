from pathlib import Path

import pytest

from segfolio.errors import SegfolioError
from segfolio.figure import HOUSE, Figure, by_name, ratios
from segfolio.ledger.compare import paper_and_ours, state
from segfolio.ledger.paper import Paper, paper_of, read_experiment


def paper(**expected: float) -> Paper:
    return Paper("T", "1511.00561", "a row", {k.replace("__", "/"): v for k, v in expected.items()}, tolerance=0.02)


def test_a_figure_in_percent_is_refused():
    with pytest.raises(SegfolioError, match=r"test/mIoU: 46.4; figures of mIoU are ratios, such as 0.464"):
        paper(test__mIoU=46.4)


@pytest.mark.parametrize("key", ["mIoU", "train/mIoU", "val/slide/mIoU", "test/a/b/mIoU", "test/IoU/car"])
def test_a_key_that_is_none_of_a_whole_split_is_refused(key):
    with pytest.raises(SegfolioError, match=f"paper.expected names '{key}'.* whole split"):
        Paper("T", "", "row", {key: 0.5})


DELAY = Figure("delay", "frames", higher_is_better=False)


def test_a_claim_is_checked_against_what_the_metrics_declare():
    claim = Paper("T", "", "row", {"test/delay": 2.5, "test/mIoU": 0.9}, {"test/delay": 0.2})
    claim.check_declared({**HOUSE, "delay": DELAY})
    with pytest.raises(SegfolioError, match=r"'test/delay', whose unit and direction no metric .* add one .*metrics"):
        claim.check_declared(HOUSE)
    with pytest.raises(SegfolioError, match=r"'test/miou'.* take one of mIoU, AP$"):
        Paper("T", "", "row", {"test/miou": 0.5}).check_declared(by_name(ratios("mIoU", "AP", "IoU/<class>")))


@pytest.mark.parametrize(
    ("expected", "tolerance", "says"),
    [
        ({"test/HD95": 12.5}, 0.01, r"tolerance lacks test/HD95; .* in pixels .* as \{test/HD95: 0\.5\}"),
        ({"test/HD95": -1.0}, {"test/HD95": 2.0}, "gives test/HD95: -1.0; figures of HD95 are in pixels"),
        ({"test/HD95": 12.5}, {"test/HD95": -2.0}, "paper.tolerance is -2.0; that of test/HD95 is in pixels"),
    ],
)
def test_a_figure_that_is_no_ratio_has_figure_and_tolerance_in_its_unit(expected, tolerance, says):
    with pytest.raises(SegfolioError, match=says):
        Paper("T", "", "row", expected, tolerance)


def test_a_tolerance_of_all_is_that_of_the_ratios():
    claim = Paper("T", "", "row", {"test/HD95": 12.5, "test/mIoU": 0.9}, {"test/HD95": 2.0})
    assert claim.tolerance_of("test/HD95", HOUSE["HD95"]) == 2.0
    assert claim.tolerance_of("test/mIoU", HOUSE["mIoU"]) == 0.01
    assert Paper("T", "", "row", {"test/mIoU": 0.9}, 0.03).tolerance_of("test/mIoU", HOUSE["mIoU"]) == 0.03


@pytest.mark.parametrize(
    ("ours", "expected"),
    [(0.464, "within"), (0.484, "within"), (0.4436, "within"), (0.4860, "outside"), (0.40, "outside")],
)
def test_state_is_the_distance_against_the_tolerance(ours, expected):
    assert state(HOUSE["mIoU"], 0.464, ours, 0.02) == expected


@pytest.mark.parametrize(("ours", "expected"), [(2.2, "within"), (2.702, "within"), (2.71, "outside")])
def test_the_tolerance_is_in_the_unit_of_the_figure(ours, expected):
    assert state(DELAY, 2.5, ours, 0.2 if ours > 2.5 else 0.3) == expected


def test_the_table_shows_percent_and_never_a_figure_that_was_not_run():
    text = paper_and_ours(
        "segnet/x", paper(test__mIoU=0.464, test__fwIoU=0.6), {"test/mIoU": 0.3, "test/dice": 0.5}, HOUSE
    )
    rows = {line.split()[0]: line.split() for line in text.splitlines()[3:]}
    assert rows["test/mIoU"][1:5] == ["46.4", "30.0", "-16.4", "outside"]
    assert rows["test/fwIoU"][1:] == ["60.0", "-"]
    assert rows["test/dice"][1:] == ["-", "50.0"]


def test_the_table_shows_other_units_as_they_are():
    claim = Paper("T", "", "a row", {"test/NoC90": 2.5}, {"test/NoC90": 0.2})
    text = paper_and_ours("sam/x", claim, {"test/NoC90": 2.75, "test/HD95": 12.346}, {**HOUSE, "delay": DELAY})
    rows = [line.split() for line in text.splitlines()[3:]]
    assert rows[0] == [*["test/NoC90", "(clicks)", "↓", "2.50", "2.75", "+0.25", "outside", "(±", "0.20)"]]
    assert rows[1] == [*["test/HD95", "(pixels)", "↓", "-", "12.35"]]


@pytest.mark.parametrize("caveat", ["partial: 5 of 20 images", "other data: T has 20 images here, 233 as published"])
def test_what_is_not_comparable_gets_no_verdict(caveat):
    text = paper_and_ours("segnet/x", paper(test__mIoU=0.464), {"test/mIoU": 0.464, "test/dice": 0.5}, HOUSE, caveat)
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
        ({**BLOCK, "expected": {"test/mIoU": 46.4}}, r"test/mIoU: 46\.4; figures of mIoU are ratios"),
        (
            {**BLOCK, "expected": {"test/mIoU": 0.4}, "tolerance": 2},
            r"paper\.tolerance is 2; that of test/mIoU is a ratio",
        ),
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
