"""What the ledger shows, and what it does not."""

import pytest
import yaml

from segfolio.ledger.rows import ledger
from tests.ledger.conftest import write_experiment

CLAIM = {"expected": {"test/mIoU": 0.464, "test/dice": 0.7}, "tolerance": 0.02}


def test_an_unrun_experiment_shows_the_claim_alone(tmp_path):
    write_experiment(tmp_path, **CLAIM)
    rows, said = ledger(tmp_path / "experiments")
    assert [(r.figure, r.expected, r.ours, r.state) for r in rows] == [
        ("test/mIoU", 0.464, None, "unrun"),
        ("test/dice", 0.7, None, "unrun"),
    ]
    assert said == []


@pytest.mark.parametrize(("miou", "state"), [((0.45, 0.46), "within"), ((0.40, 0.41), "outside")])
def test_a_claim_is_compared_with_the_mean(tmp_path, replicated, miou, state):
    replicated(write_experiment(tmp_path, **CLAIM), *miou)
    rows, _ = ledger(tmp_path / "experiments")
    assert [row.state for row in rows] == [state, "unrun"]  # Dice was not measured
    assert rows[0].difference == pytest.approx(sum(miou) / 2 - 0.464)
    assert (rows[0].seeds, rows[0].commit, rows[0].hardware) == ((0, 1), "0123456", "1 x a GPU")
    assert rows[0].protocol == "whole image"


def test_a_claim_is_not_compared_with_figures_on_other_data(tmp_path, replicated):
    other = {"test": "T test has 20 images here, 233 as published"}
    replicated(write_experiment(tmp_path, "net/row", **CLAIM), 0.464, other_data=other)
    replicated(write_experiment(tmp_path, "net/sample"), 0.4, other_data=other)
    rows, _ = ledger(tmp_path / "experiments")
    assert [(r.state, r.expected, r.difference) for r in rows] == [
        ("other data", 0.464, None),
        ("unrun", 0.7, None),
        ("no claim", None, None),
    ]
    assert [r.ours.mean for r in rows if r.ours] == [0.464, 0.4]


def test_statistics_of_a_part_of_the_batch_are_a_deviation_that_is_named(tmp_path, replicated):
    part = "batch normalisation over 2 of the 16 images of a step"
    replicated(write_experiment(tmp_path, **CLAIM), 0.464, batch_statistics=part, steps=300, wall_time=630.0)
    rows, _ = ledger(tmp_path / "experiments")
    assert (rows[0].state, rows[0].ours.mean) == ("deviation", 0.464)
    assert rows[0].hardware == f"1 x a GPU, 300 steps in 10 min, {part}"


def test_where_nothing_is_claimed_the_main_figure_is_shown(tmp_path, replicated):
    replicated(write_experiment(tmp_path), 0.4, dirty=True)
    (row,), _ = ledger(tmp_path / "experiments")
    assert (row.figure, row.expected, row.ours.mean, row.state) == ("test/mIoU", None, 0.4, "no claim")
    assert row.commit == "0123456+"


def test_every_task_shows_its_main_figure_and_training_its_length(tmp_path, replicated):
    replicated(
        write_experiment(tmp_path), 0.4, steps=300, wall_time=630.0, others={"test/PQ": 0.3, "test/AP_small": 0.1}
    )
    rows, _ = ledger(tmp_path / "experiments")
    assert [r.figure for r in rows] == ["test/mIoU", "test/PQ"]
    assert rows[0].hardware == "1 x a GPU, 300 steps in 10 min"


def test_further_protocols_are_rows_beside_the_first(tmp_path, replicated):
    replicated(write_experiment(tmp_path), 0.4, slide=True)
    claim = {"expected": {"test/mIoU": 0.4, "test/slide/mIoU": 0.5}, "tolerance": 0.02}
    replicated(write_experiment(tmp_path, "net/with_claim", **claim), 0.4, slide=True)
    rows, _ = ledger(tmp_path / "experiments")
    assert [(r.figure, r.expected, round(r.ours.mean, 3), r.state) for r in rows] == [
        ("test/mIoU", None, 0.4, "no claim"),
        ("test/slide/mIoU", None, 0.45, "no claim"),
        ("test/mIoU", 0.4, 0.4, "within"),
        ("test/slide/mIoU", 0.5, 0.45, "outside"),
    ]


def test_overridden_results_never_stand_in_for_the_row(tmp_path, replicated):
    replicated(write_experiment(tmp_path, **CLAIM), 0.464, overrides=("trainer.max_steps=1",))
    rows, _ = ledger(tmp_path / "experiments")
    assert [(r.state, r.expected) for r in rows] == [("unrun", 0.464), ("unrun", 0.7), ("overridden", None)]
    assert rows[2].overrides == ("trainer.max_steps=1",)


@pytest.mark.parametrize("lacks", ["protocol", "commit", "data", "hardware"])
def test_a_figure_without_its_origin_is_not_shown(tmp_path, replicated, lacks):
    replicated(write_experiment(tmp_path, **CLAIM), 0.464, **{lacks: {} if lacks in ("data", "hardware") else ""})
    rows, said = ledger(tmp_path / "experiments")
    assert {row.state for row in rows} == {"unrun"}
    assert f"seed 0 is not shown, it comes without {lacks}" in said[0]


def test_results_of_a_recipe_that_was_edited_are_not_shown(tmp_path, replicated):
    experiment = write_experiment(tmp_path, **CLAIM)
    replicated(experiment, 0.464)
    content = yaml.safe_load(experiment.read_text())
    experiment.write_text(yaml.safe_dump({**content, "trainer": {"max_steps": 10}}))
    rows, said = ledger(tmp_path / "experiments")
    assert {row.state for row in rows} == {"unrun"}
    assert "row.yaml has another recipe since" in said[0]
    experiment.write_text(yaml.safe_dump({**content, "paper": {**content["paper"], "tolerance": 0.0}}))
    assert ledger(tmp_path / "experiments")[0][-1].state == "within"  # the claim is no part of the recipe


def test_a_record_only_experiment_never_shows_ours(tmp_path, replicated):
    replicated(write_experiment(tmp_path, status="record-only", **CLAIM), 0.464)
    rows, said = ledger(tmp_path / "experiments")
    assert {(row.state, row.ours) for row in rows} == {("record-only", None)}
    assert "record-only" in said[0]


def test_results_belong_to_the_experiment_of_their_whole_name(tmp_path, replicated):
    write_experiment(tmp_path, "net/row")
    replicated(write_experiment(tmp_path, "net/row_large"), 0.4)
    rows, _ = ledger(tmp_path / "experiments")
    assert [(r.experiment, r.state) for r in rows] == [("net/row", "unrun"), ("net/row_large", "no claim")]
