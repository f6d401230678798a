"""What the ledger shows, and what it does not."""

from dataclasses import asdict

import pytest
import yaml

from segfolio.figure import Figure
from segfolio.ledger.rows import ledger
from tests.ledger.conftest import write_claims, write_experiment

CLAIM = {"expected": {"test/mIoU": 0.464, "test/dice": 0.7}, "tolerance": 0.02}
NOC = Figure("NoC90", "clicks", higher_is_better=False)


def test_an_unrun_experiment_shows_the_claim_alone(tmp_path):
    write_experiment(tmp_path, **CLAIM)
    (row,), said = ledger(tmp_path / "experiments")
    assert [(c.key, c.expected, c.ours, c.state) for c in row.cells] == [
        ("test/mIoU", 0.464, None, "unrun"),
        ("test/dice", 0.7, None, "unrun"),
    ]
    assert said == []


def test_an_experiment_without_a_claim_is_a_row_all_the_same(tmp_path):
    write_experiment(tmp_path)
    (row,), _ = ledger(tmp_path / "experiments")
    assert (row.cells, row.states, row.ran) == ((), ("unrun",), False)


@pytest.mark.parametrize(("miou", "state"), [((0.45, 0.46), "within"), ((0.40, 0.41), "outside")])
def test_a_claim_is_compared_with_the_mean(tmp_path, replicated, miou, state):
    replicated(write_experiment(tmp_path, **CLAIM), *miou)
    (row,), _ = ledger(tmp_path / "experiments")
    assert row.states == (state, "unrun")  # Dice was not measured
    assert row.cells[0].difference == pytest.approx(sum(miou) / 2 - 0.464)
    assert (row.seeds, row.commit, row.hardware) == ((0, 1), "0123456", "1 x a GPU")
    assert row.protocol == "whole image"


@pytest.mark.parametrize(("ours", "state"), [(2.69, "within"), (2.8, "outside")])
def test_a_figure_that_a_run_declares_is_compared_in_its_unit(tmp_path, replicated, ours, state):
    claim = {"expected": {"test/NoC90": 2.5}, "tolerance": {"test/NoC90": 0.2}}
    replicated(write_experiment(tmp_path, **claim), 0.4, others={"test/NoC90": ours}, figures=[asdict(NOC)])
    (row,), said = ledger(tmp_path / "experiments")
    assert [(c.figure, c.expected, c.ours.mean, c.state) for c in row.cells] == [(NOC, 2.5, ours, state)]
    assert row.cells[0].difference == pytest.approx(ours - 2.5)
    assert said == []


def test_a_figure_that_nothing_declares_is_not_shown(tmp_path):
    write_experiment(tmp_path, expected={"test/mIoU": 0.4, "test/delay": 2.5})
    (row,), said = ledger(tmp_path / "experiments")
    assert [c.key for c in row.cells] == ["test/mIoU"]
    (sentence,) = said
    assert "row.yaml claims test/delay, which is not shown: it is no figure of segfolio.figure" in sentence


def test_a_claim_is_not_compared_with_figures_on_other_data(tmp_path, replicated):
    other = {"test": "T test has 20 images here, 233 as published"}
    replicated(write_experiment(tmp_path, "net/row", **CLAIM), 0.464, other_data=other)
    replicated(write_experiment(tmp_path, "net/sample"), 0.4, other_data=other)
    rows, _ = ledger(tmp_path / "experiments")
    assert [(c.state, c.expected, c.difference) for r in rows for c in r.cells] == [
        ("other data", 0.464, None),
        ("unrun", 0.7, None),
        ("no claim", None, None),
    ]
    assert [c.ours.mean for r in rows for c in r.cells if c.ours] == [0.464, 0.4]


def test_statistics_of_a_part_of_the_batch_are_a_deviation_that_is_named(tmp_path, replicated):
    part = "batch normalisation over 2 of the 16 images of a step"
    replicated(write_experiment(tmp_path, **CLAIM), 0.464, batch_statistics=part, steps=300, wall_time=630.0)
    rows, _ = ledger(tmp_path / "experiments")
    cell = rows[0].cells[0]
    assert (cell.state, cell.ours.mean, cell.difference) == ("deviation", 0.464, None)
    assert rows[0].hardware == f"1 x a GPU, 300 steps in 10 min, {part}"


def test_the_processor_tells_what_a_run_took_beside_other_work(tmp_path, replicated):
    machine = {"cores": 2, "cpu": "a CPU"}
    replicated(write_experiment(tmp_path), 0.4, steps=300, wall_time=9000.0, processor_time=3600.0, hardware=machine)
    (row,), _ = ledger(tmp_path / "experiments")
    assert row.hardware == "2 cores of a CPU, 300 steps in 150 min, 60 min of one core"


def test_where_nothing_is_claimed_the_main_figure_is_shown(tmp_path, replicated):
    replicated(write_experiment(tmp_path), 0.4, dirty=True)
    (row,), _ = ledger(tmp_path / "experiments")
    assert [(c.key, c.expected, c.ours.mean, c.state) for c in row.cells] == [("test/mIoU", None, 0.4, "no claim")]
    assert row.commit == "0123456+"


def test_every_task_shows_its_main_figure_and_training_its_length(tmp_path, replicated):
    replicated(
        write_experiment(tmp_path), 0.4, steps=300, wall_time=630.0, others={"test/PQ": 0.3, "test/AP_small": 0.1}
    )
    (row,), _ = ledger(tmp_path / "experiments")
    assert [c.key for c in row.cells] == ["test/mIoU", "test/PQ"]
    assert row.hardware == "1 x a GPU, 300 steps in 10 min"


def test_further_protocols_stand_beside_the_first(tmp_path, replicated):
    replicated(write_experiment(tmp_path), 0.4, slide=True)
    claim = {"expected": {"test/mIoU": 0.4, "test/slide/mIoU": 0.5}, "tolerance": 0.02}
    replicated(write_experiment(tmp_path, "net/with_claim", **claim), 0.4, slide=True)
    rows, _ = ledger(tmp_path / "experiments")
    assert [(c.key, c.expected, round(c.ours.mean, 3), c.state) for r in rows for c in r.cells] == [
        ("test/mIoU", None, 0.4, "no claim"),
        ("test/slide/mIoU", None, 0.45, "no claim"),
        ("test/mIoU", 0.4, 0.4, "within"),
        ("test/slide/mIoU", 0.5, 0.45, "outside"),
    ]


def test_overridden_results_never_stand_in_for_the_row(tmp_path, replicated):
    replicated(write_experiment(tmp_path, **CLAIM), 0.464, overrides=("trainer.max_steps=1",))
    rows, _ = ledger(tmp_path / "experiments")
    assert [(c.state, c.expected) for r in rows for c in r.cells] == [
        ("overridden", None),
        ("unrun", 0.464),
        ("unrun", 0.7),
    ]
    assert rows[0].overrides == ("trainer.max_steps=1",)


@pytest.mark.parametrize("lacks", ["protocol", "commit", "data", "hardware"])
def test_a_figure_without_its_origin_is_not_shown(tmp_path, replicated, lacks):
    replicated(write_experiment(tmp_path, **CLAIM), 0.464, **{lacks: {} if lacks in ("data", "hardware") else ""})
    (row,), said = ledger(tmp_path / "experiments")
    assert set(row.states) == {"unrun"}
    assert f"seed 0 is not shown, it comes without {lacks}" in said[0]


def test_results_of_a_recipe_that_was_edited_are_not_shown(tmp_path, replicated):
    experiment = write_experiment(tmp_path, **CLAIM)
    replicated(experiment, 0.464)
    content = yaml.safe_load(experiment.read_text())
    experiment.write_text(yaml.safe_dump({**content, "trainer": {"max_steps": 10}}))
    (row,), said = ledger(tmp_path / "experiments")
    assert set(row.states) == {"unrun"}
    assert "row.yaml has another recipe since" in said[0]
    experiment.write_text(yaml.safe_dump({**content, "paper": {**content["paper"], "tolerance": 0.0}}))
    assert "within" in ledger(tmp_path / "experiments")[0][0].states  # the claim is no part of the recipe


def test_a_record_only_experiment_never_shows_ours(tmp_path, replicated):
    replicated(write_experiment(tmp_path, status="record-only", **CLAIM), 0.464)
    (row,), said = ledger(tmp_path / "experiments")
    assert {(c.state, c.ours) for c in row.cells} == {("record-only", None)}
    assert "record-only" in said[0]


def test_results_belong_to_the_experiment_of_their_whole_name(tmp_path, replicated):
    write_experiment(tmp_path, "net/row")
    replicated(write_experiment(tmp_path, "net/row_large"), 0.4)
    rows, _ = ledger(tmp_path / "experiments")
    assert [(r.experiment, *r.states) for r in rows] == [("net/row_large", "no claim"), ("net/row", "unrun")]


def test_what_was_run_comes_first_and_claims_after_the_experiments_of_their_paper(tmp_path, replicated):
    write_experiment(tmp_path, "a/x")
    write_claims(tmp_path, {}, {"expected": {"test/mIoU": 0.6, "test/dice": 0.7}}, name="a")
    write_experiment(tmp_path, "a/z")
    replicated(write_experiment(tmp_path, "b/y"), 0.4)
    rows, _ = ledger(tmp_path / "experiments")
    assert [row.name for row in rows] == ["b/y", "a/x", "a/z", "a: a test server's row", "a: a test server's row"]
    assert rows[-1].states == ("record-only", "record-only")
    assert rows[-1].paper.deviations == ["no truth"]
