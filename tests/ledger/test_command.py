"""`segfolio results`."""

import os
import subprocess
import sys

import pytest

from segfolio.ledger.markdown import markdown
from segfolio.ledger.rows import ledger
from tests.conftest import REPOSITORY
from tests.ledger.conftest import write_claims, write_experiment

CLAIM = {"expected": {"test/mIoU": 0.464}, "tolerance": 0.02, "row": "a | b"}


@pytest.fixture
def three(tmp_path, replicated):
    """One that was run, one that was not, one that cannot be."""
    write_experiment(tmp_path, "new/row", expected={"test/HD95": 12.5}, tolerance={"test/HD95": 1.0}, title="New Net")
    replicated(write_experiment(tmp_path, **CLAIM), 0.45, 0.46)
    write_claims(tmp_path, {"row": "CamVid test", "expected": {"test/mIoU": 0.3}}, name="old")


def lines(text: str) -> list[list[str]]:
    """Words of the lines of a table."""
    return [line.split() for line in text.splitlines()[2:]]


def test_it_prints_each_figure_in_its_unit_and_what_was_run_first(three, segfolio, capsys):
    assert segfolio("results") == 0
    assert lines(capsys.readouterr().out) == [
        ["net/row", "mIoU", "46.4", "45.5", "±", "0.7", "(2)", "-0.9", "within"],
        ["new/row", "HD95", "(pixels)", "↓", "12.50", "-", "-", "unrun"],
        ["old:", "CamVid", "test", "mIoU", "30.0", "-", "-", "record-only"],
    ]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["camvid", "OLD"], ["old:"]),
        (["new net"], ["new/row"]),
        (["1511.00561"], ["net/row", "new/row", "old:"]),
        (["--state", "within"], ["net/row"]),
        (["--state", "record-only,unrun"], ["new/row", "old:"]),
        (["--state=unrun", "new", "--state=within"], ["new/row"]),
    ],
)
def test_words_and_states_choose_rows(three, segfolio, capsys, asked, found):
    assert segfolio("results", *asked) == 0
    assert [words[0] for words in lines(capsys.readouterr().out)] == found


def test_a_state_chooses_figures_within_a_row(tmp_path, replicated, segfolio, capsys):
    replicated(write_experiment(tmp_path, expected={"test/mIoU": 0.4, "test/dice": 0.7}), 0.4)
    assert segfolio("results", "--state=unrun") == 0
    assert lines(capsys.readouterr().out) == [["net/row", "dice", "70.0", "-", "-", "unrun"]]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["camvid", "new"], "no row of the ledger has 'camvid' and 'new'; `segfolio results` shows all\n"),
        (["net", "--state=outside"], "no row of the ledger has 'net' and a figure that is outside; "),
    ],
)
def test_nothing_found_is_one_sentence(three, segfolio, capsys, asked, says):
    assert segfolio("results", *asked) == 0
    said = capsys.readouterr().out
    assert said.startswith(says)
    assert said.count("\n") == 1


def test_a_table_fits_the_terminal(tmp_path, segfolio, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    write_claims(tmp_path, {"row": "a row of a hundred characters and more, " * 3})
    assert segfolio("results") == 0
    said = capsys.readouterr().out.splitlines()
    assert max(map(len, said)) == 100
    assert "net: a row of a hundred" in said[2]
    assert "…  mIoU" in said[2]


def test_what_was_run_opens_the_file_and_a_figure_is_within_once(three, tmp_path, segfolio, capsys):
    assert segfolio("results", "--write") == 0
    assert capsys.readouterr().out == "written: experiments/RESULTS.md\n"
    text = (tmp_path / "experiments/RESULTS.md").read_text()
    ran, systems, every = (text.index(heading) for heading in ("## What was run", "## All systems", "## Every row"))
    assert ran < systems < every
    assert "| [net/row](net/row.yaml) | 45.5 ± 0.7 (2) ✓ | seeds 0, 1; 1 x a GPU; 0123456 [^1] |" in text[ran:systems]
    assert "| system | ✓ | unrun | record-only |" in text[systems:every]
    assert "| [net](net) | 1 |  |  |" in text[systems:every]
    assert "| **all** | **1** | **1** | **1** |" in text[systems:every]
    assert "### A Net ([arXiv 1511.00561](https://arxiv.org/abs/1511.00561))" in text[every:]
    assert r"| [net/row](net/row.yaml) | a \| b | 46.4, **45.5 ± 0.7 (2)** within | [^1] |" in text[every:]
    assert "| experiment | row | HD95 (pixels) ↓ | how |" in text[every:]
    assert "| [new/row](new/row.yaml) | a row | 12.50 | unrun |" in text[every:]
    assert "| [claims](old/claims.yaml) | CamVid test | 30.0 | record-only |" in text[every:]
    assert text.endswith("\n[^1]: whole image\n")
    assert sum(line.count("within") for line in text.splitlines() if line.startswith("|")) == 1
    assert segfolio("results", "--write") == 0
    assert (tmp_path / "experiments/RESULTS.md").read_text() == text


def test_the_results_of_the_folio_are_as_written_last_and_what_is_counted_otherwise_says_why():
    """Otherwise: `make results`. One test, for the folio takes half a minute to count."""
    rows, _ = ledger(REPOSITORY / "experiments")
    assert (REPOSITORY / "experiments/RESULTS.md").read_text() == markdown(rows)
    said = {
        (row.file, row.paper.row, counting.key(name)): counting.note
        for row in rows
        for counting in row.paper.countings
        for name in counting.printed
    }
    states = {(row.file, row.paper.row, cell.key): cell.state for row in rows for cell in row.cells if cell.counted}
    assert list(states.values()).count("within") >= 80
    assert [place for place, state in states.items() if state == "outside" and not said[place]] == []


def test_overrides_are_said_beside_the_name(tmp_path, replicated, segfolio):
    replicated(write_experiment(tmp_path, **CLAIM), 0.45, overrides=("trainer.max_steps=1",))
    assert segfolio("results", "--write") == 0
    text = (tmp_path / "experiments/RESULTS.md").read_text()
    assert r"| [net/row](net/row.yaml) with trainer.max_steps=1 | a \| b | **45.0 (1)** overridden | [^1] |" in text
    assert "46.4, **45.0" not in text


def test_experiments_on_the_same_data_stand_side_by_side(tmp_path, replicated, segfolio, capsys):
    replicated(write_experiment(tmp_path, "a/small"), 0.4, slide=True)
    replicated(write_experiment(tmp_path, "b/small"), 0.3)
    replicated(write_experiment(tmp_path, "c/other"), 0.2, slide=True, data={"test": "f2"})
    assert segfolio("results") == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert said[-4] == ["experiment", "mIoU", "slide/mIoU"]
    assert said[-2:] == [["a/small", "40.0", "(1)", "45.0", "(1)"], ["b/small", "30.0", "(1)", "-"]]
    assert segfolio("results", "--write") == 0
    ran = (tmp_path / "experiments/RESULTS.md").read_text().partition("## All systems")[0]
    assert (
        "| experiment | mIoU | slide/mIoU | how |\n|---|--:|--:|---|\n| [a/small](a/small.yaml) | 40.0 (1) | 45.0"
        in ran
    )
    assert ran.count("| experiment |") == 2


def test_what_is_withheld_is_said_on_the_side(tmp_path, replicated, segfolio, capsys):
    replicated(write_experiment(tmp_path, **CLAIM), 0.45, commit=None)
    assert segfolio("results") == 0
    said = capsys.readouterr()
    assert "45.0" not in said.out
    assert "comes without commit" in said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--experiments", "nowhere"], "there is no folder nowhere"),
        (["--wrte"], "unrecognized arguments: --wrte; see `segfolio results --help`"),
        (
            ["--state", "won"],
            "--state is 'won', expected one of within, outside, other data, deviation, no claim, overridden, ratio",
        ),
        (["--write", "camvid"], "--write writes the whole ledger; leave out words and --state"),
    ],
)
def test_a_mistake_is_answered_by_a_sentence(segfolio, capsys, arguments, says):
    assert segfolio("results", *arguments) == 2
    assert says in capsys.readouterr().err


def test_it_imports_no_torch():
    code = "import sys, segfolio.cli, segfolio.ledger.command as c; sys.exit(bool({'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", ["results", "datasets", "--help"])
def test_a_pipe_that_is_closed_ends_it_without_a_word(three, tmp_path, command):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "segfolio.cli", command], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
