"""Times of papers, and the ratios that the ledger shows of them."""

from pathlib import Path
from typing import Any

import pytest

from segfolio.errors import SegfolioError
from segfolio.ledger.markdown import markdown
from segfolio.ledger.page import page
from segfolio.ledger.paper import checked_paper
from segfolio.ledger.rows import Row, ledger
from segfolio.ledger.speed import Measurement, Speed, Timed, network_hash
from segfolio.yaml_file import read_yaml
from tests.ledger.conftest import write_claims, write_experiment

HARDWARE = {"cpu": "a CPU", "cores": 2, "memory": 8, "gpu": "a GPU"}


@pytest.mark.parametrize(
    ("given", "seconds"), [({"milliseconds": 16}, 0.016), ({"seconds": 40}, 40.0), ({"fps": 24.5}, 1 / 24.5)]
)
def test_a_time_is_of_one_image_in_any_unit(given, seconds):
    assert Speed("t", **given).seconds_per_image == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ([], "paper.speed is empty; leave it out, or state a time"),
        ({"table": "t", "fps": 1, "prompts": 0}, "prompts is 0; give 1 or more points, or everything"),
        ({"table": "t", "fps": 1, "prompts": "all"}, "prompts is 'all'; give 1 or more points, or everything"),
        ([{"table": "t", "fps": 1, "prompts": 3}] * 2, "states two times of prompts: 3; several differ in prompts"),
        ({"table": "t", "fps": 2, "seconds": 1}, "has seconds and fps; it takes one of"),
        ({"table": "t", "fps": 0}, "is of {'fps': 0} and a batch of 1; both are above 0"),
        ({"table": "t", "fps": 1, "size": [512]}, r"size is \[512\]; it is height and width in pixels"),
        ({"table": "t", "fps": 1, "size": [512, "x"]}, r"size is \[512, 'x'\], expected \[height, width\]"),
        ({"table": 1, "fps": 1}, "table is 1, expected a text"),
        ({"table": "t", "fps": "fast"}, "fps is 'fast', expected a number"),
        ({"table": "t", "ms": 3}, "paper.speed has no 'ms'; it takes table, hardware, milliseconds"),
        ({"fps": 1}, "expected the keys table, hardware, .* table among them"),
    ],
)
def test_a_mistake_names_file_and_key(block, says):
    paper = {"title": "T", "arxiv": "", "row": "r", "speed": block}
    with pytest.raises(SegfolioError, match=f"^here: .*{says}"):
        checked_paper(paper, "here")


def timed(folder: Path, name: str, **speed: Any) -> Path:
    return write_experiment(folder, name, speed={"table": "Table 1", "size": [64, 64], **speed})


def measure(
    folder: Path, device: str = "a GPU", mode: str = "float32", commit: str | None = "0123456789", **rounds: list[float]
) -> Path:
    """What was measured of `net/<name>`, as its experiment is written now."""
    networks = {}
    for name, seconds in rounds.items():
        content = read_yaml(folder / f"experiments/net/{name}.yaml", "")
        networks[f"net/{name}"] = Timed(network_hash(content, Speed(**content["paper"]["speed"])), seconds, 9.0, 10)
    found = Measurement("Table 1", mode, 1, {**HARDWARE, "gpu": device}, "2030", commit, networks=networks)
    path = found.path(folder / "experiments")
    found.write(path)
    return path


def shown(rows: list[Row]) -> list[tuple[str, str, float, float | None, str]]:
    return sorted(
        (row.experiment, cell.figure.label(cell.name), cell.expected, cell.ours and cell.ours.mean, cell.state)
        for row in rows
        for cell in row.cells
    )


def test_before_a_measurement_the_paper_s_ratio_to_the_fastest_is_shown(tmp_path):
    timed(tmp_path, "net/slow", milliseconds=100)
    timed(tmp_path, "net/fast", milliseconds=16)
    timed(tmp_path, "more/slower", seconds=0.32)
    rows, said = ledger(tmp_path / "experiments")
    assert shown(rows) == [
        ("more/slower", "time (x net/fast) ↓", 20.0, None, "unrun"),
        ("net/slow", "time (x fast) ↓", 6.25, None, "unrun"),
    ]
    assert said == []


def test_ours_is_the_median_of_the_rounds_ratios_and_never_a_verdict(tmp_path):
    """A second round in which the machine was busy: both took ten times as long."""
    timed(tmp_path, "net/slow", milliseconds=40)
    timed(tmp_path, "net/fast", milliseconds=10)
    measure(tmp_path, slow=[3.0, 30.0, 9.0], fast=[1.0, 10.0, 1.0])
    measure(tmp_path, "another GPU", "TF32", slow=[2.0], fast=[1.0])
    rows, said = ledger(tmp_path / "experiments")
    assert shown(rows) == [
        ("net/slow", "time on a GPU (x fast) ↓", 4.0, 3.0, "ratio"),
        ("net/slow", "time on another GPU in TF32 (x fast) ↓", 4.0, 2.0, "ratio"),
    ]
    cell = next(cell for row in rows for cell in row.cells)
    assert (cell.ours.n, cell.ours.std, cell.difference, cell.factor) == (3, None, None, 0.75)
    assert said == []
    text = markdown(rows)
    assert "4.00, **3.00 (3)** ratio (x 0.75)[^1]" in text
    assert "[^1]: Table 1: networks with random weights in turns on a GPU, float32, median of 3 rounds;" in text
    html = page(rows)
    assert '<span class="ratio">ratio</span>' in html
    assert "<p>x 0.75</p>" in html
    assert "in turns on another GPU, TF32, median of 1 round;" in html


def test_networks_that_were_measured_without_the_fastest_are_compared_with_the_fastest_of_them(tmp_path):
    for name, fps in {"a": 40, "b": 20, "c": 10}.items():
        timed(tmp_path, f"net/{name}", fps=fps)
    measure(tmp_path, b=[2.0], c=[5.0])
    assert shown(ledger(tmp_path / "experiments")[0]) == [
        ("net/b", "time (x a) ↓", 2.0, None, "unrun"),
        ("net/c", "time on a GPU (x b) ↓", 2.0, 2.5, "ratio"),
    ]


def test_two_tables_are_not_compared(tmp_path):
    timed(tmp_path, "net/a", fps=40)
    write_experiment(tmp_path, "net/b", speed={"table": "Table 2", "fps": 10})
    assert shown(ledger(tmp_path / "experiments")[0]) == []


def test_the_time_of_a_network_that_was_edited_is_not_shown(tmp_path):
    timed(tmp_path, "net/a", fps=40)
    timed(tmp_path, "net/b", fps=10)
    measure(tmp_path, a=[1.0], b=[2.0])
    timed(tmp_path, "net/b", fps=10, size=[32, 32])
    rows, said = ledger(tmp_path / "experiments")
    assert shown(rows) == [("net/b", "time (x a) ↓", 4.0, None, "unrun")]
    assert said == [
        "the time of net/b on a GPU is not shown: it is another network or row since; run `segfolio speed` with all "
        "of its table"
    ]


def test_times_without_a_commit_are_not_shown(tmp_path):
    timed(tmp_path, "net/a", fps=40)
    timed(tmp_path, "net/b", fps=10)
    measure(tmp_path, commit=None, a=[1.0], b=[2.0])
    rows, said = ledger(tmp_path / "experiments")
    assert shown(rows) == [("net/b", "time (x a) ↓", 4.0, None, "unrun")]
    assert said == ["the times of Table 1 on a GPU are not shown: they come without commit"]


def test_a_row_that_cannot_be_run_states_its_time(tmp_path):
    write_experiment(tmp_path, "net/fcn", speed={"table": "Table 3", "milliseconds": 100})
    write_claims(tmp_path, {"row": "SDS", "expected": {}, "speed": {"table": "Table 3", "seconds": 50}})
    rows, _ = ledger(tmp_path / "experiments")
    assert [(row.name, *shown([row])) for row in rows if row.cells] == [
        ("net: SDS", ("", "time (x net/fcn) ↓", 500.0, None, "record-only"))
    ]


def test_a_trained_row_keeps_its_figures_beside_the_ratio(tmp_path, replicated):
    timed(tmp_path, "net/a", fps=40)
    replicated(timed(tmp_path, "net/b", fps=10), 0.4)
    replicated(tmp_path / "experiments/net/b.yaml", 0.5, overrides=("trainer.max_steps=1",))
    rows, _ = ledger(tmp_path / "experiments")
    assert [(row.name, row.states) for row in rows] == [
        ("net/b", ("no claim", "unrun")),
        ("net/b with trainer.max_steps=1", ("overridden",)),
        ("net/a", ("unrun",)),
    ]


def test_a_file_that_is_no_measurement_is_named(tmp_path):
    timed(tmp_path, "net/a", fps=40)
    path = measure(tmp_path, a=[1.0])
    assert path.name == "table_1-a_gpu.json"
    path.write_text('{"networks": 3}')
    with pytest.raises(SegfolioError, match=r"table_1-a_gpu\.json holds no measurement .* `segfolio speed`"):
        ledger(tmp_path / "experiments")
