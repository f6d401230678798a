"""Figures of seeds, joined with what they come from."""

import json
import statistics

import pytest

from segfolio.errors import SegfolioError
from segfolio.figure import HOUSE, Figure
from segfolio.ledger.results import Results, Spread, finished_seed, results_path
from tests.ledger.conftest import write_experiment, write_run


def test_the_spread_is_that_of_a_sample():
    values = [0.40, 0.44, 0.47]
    spread = Spread.of(values)
    assert spread.std == pytest.approx(statistics.stdev(values))
    assert (spread.median, spread.n) == (0.44, 3)
    assert spread.mean == pytest.approx(0.43667, abs=1e-5)
    assert Spread.of([0.4]).std is None


def test_a_finished_run_joins_training_and_test(tmp_path):
    figures = {"test/mIoU": 0.4, "test/IoU/car": 0.1, "test/accuracy/car": 0.2, "test/slide/IoU/car": 0.3}
    trained = {"other_data": {"train": "60 of 367"}}
    run = write_run(tmp_path / "runs/net/row/seed0", figures, trained, other_data={"test": "20 of 233"})
    seed = finished_seed(run, tmp_path / "experiments/net")
    assert seed.figures == {"test/mIoU": 0.4}  # of the whole split
    assert seed.classes == {"test/IoU/car": 0.1}
    assert seed.record.data == {"train": "f0", "test": "f1"}
    assert seed.record.other_data == {"train": "60 of 367", "test": "20 of 233"}
    assert seed.record.protocol == "whole image"
    assert seed.run == "../../runs/net/row/seed0"


def test_figures_in_any_declared_unit_are_kept_with_what_they_are(tmp_path):
    noc = {"name": "NoC90", "unit": "clicks", "higher_is_better": False}
    found = {
        "test/NoC90": 2.5,
        "test/slide/HD95": 3.0,
        "test/evaluation_seconds": 0.2,
        "test/HD95/car": 1.0,
        "test/x": 1,
    }
    seed = finished_seed(write_run(tmp_path / "run", found, figures=[noc]), tmp_path)
    assert seed.figures == {"test/NoC90": 2.5, "test/slide/HD95": 3.0, "test/evaluation_seconds": 0.2}
    Results("net/row", "", (), {0: seed}).write(tmp_path / "row.results.json")
    assert Results.read(tmp_path / "row.results.json").declared["NoC90"] == Figure(**noc)


def test_results_that_declare_nothing_are_of_the_house(tmp_path, replicated):
    path = replicated(write_experiment(tmp_path), 0.4)
    content = json.loads(path.read_text())
    del content["seeds"]["0"]["record"]["figures"]  # as written before figures were declared
    path.write_text(json.dumps(content))
    assert Results.read(path).declared == HOUSE


@pytest.mark.parametrize(
    ("trained", "test"),
    [
        ({"state": "running"}, {}),
        ({}, {"state": "running"}),
        ({}, {"config": "c2"}),  # tested with other arguments
        ({}, {"started": "2030-01-01T09"}),  # tested, then trained on
        ({}, {"partial": "5 of 20 images"}),
    ],
)
def test_a_run_that_is_not_tested_to_the_end_is_not_finished(tmp_path, trained, test):
    assert finished_seed(write_run(tmp_path / "run", {"test/mIoU": 0.4}, trained, **test), tmp_path) is None


@pytest.mark.parametrize("content", [None, '{"test/mIoU": 0.'])
def test_a_run_without_whole_figures_is_not_finished(tmp_path, content):
    figures = write_run(tmp_path / "run", {}) / "test/figures.json"
    figures.unlink() if content is None else figures.write_text(content)
    assert finished_seed(tmp_path / "run", tmp_path) is None


def test_results_are_read_as_written_and_hold_their_summary(tmp_path, replicated):
    path = replicated(write_experiment(tmp_path), 0.4, 0.5)
    content = json.loads(path.read_text())
    assert content["summary"]["test/mIoU"] == {
        "mean": 0.45, "median": 0.45, "n": 2, "std": pytest.approx(0.0707, abs=1e-4)
    }  # fmt: skip
    results = Results.read(path)
    results.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert str(tmp_path) not in path.read_text()


def test_overrides_have_results_of_their_own(tmp_path):
    experiment = tmp_path / "row.yaml"
    assert results_path(experiment, "0123456789", []).name == "row.results.json"
    assert results_path(experiment, "0123456789", ["a=1"]).name == "row.01234567.results.json"


@pytest.mark.parametrize("content", ["{", "{}", '{"seeds": 3}'])
def test_a_file_that_holds_no_results_is_named(tmp_path, content):
    (tmp_path / "row.results.json").write_text(content)
    with pytest.raises(SegfolioError, match=r"row\.results\.json holds no results"):
        Results.read(tmp_path / "row.results.json")
