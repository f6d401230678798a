"""`segfolio results`."""

import subprocess
import sys

import pytest

from tests.ledger.conftest import write_experiment

CLAIM = {"expected": {"test/mIoU": 0.464}, "tolerance": 0.02, "row": "a | b"}


def test_it_prints_and_writes_percent(tmp_path, replicated, segfolio, capsys):
    replicated(write_experiment(tmp_path, **CLAIM), 0.45, 0.46)
    write_experiment(tmp_path, "old/row", expected={"test/mIoU": 0.3}, status="record-only", title="Old", arxiv="")
    assert segfolio("results", "--write") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == ["net/row", "test/mIoU", "46.4", "45.5", "±", "0.7", "(2)", "-0.9", "within"]
    assert lines[3] == ["old/row", "test/mIoU", "30.0", "-", "-", "record-only"]
    text = (tmp_path / "experiments/RESULTS.md").read_text()
    assert "## A Net ([arXiv 1511.00561](https://arxiv.org/abs/1511.00561))" in text
    assert (
        r"| [row](net/row.yaml) | a \| b | test/mIoU | 46.4 | 45.5 ± 0.7 (2) | -0.9 | within (± 2.0) | whole image "
        "| 0123456 | 1 x a GPU |"
    ) in text
    assert "| [row](old/row.yaml) | a row | test/mIoU | 30.0 | - | - | record-only |  |  |  |" in text
    assert segfolio("results", "--write") == 0
    assert (tmp_path / "experiments/RESULTS.md").read_text() == text


def test_overrides_are_said_beside_the_name(tmp_path, replicated, segfolio):
    replicated(write_experiment(tmp_path, **CLAIM), 0.45, overrides=("trainer.max_steps=1",))
    assert segfolio("results", "--write") == 0
    text = (tmp_path / "experiments/RESULTS.md").read_text()
    assert "| [row](net/row.yaml) with trainer.max_steps=1 |" in text
    assert "| 46.4 | 45.0" not in text


def test_experiments_on_the_same_data_stand_side_by_side(tmp_path, replicated, segfolio, capsys):
    replicated(write_experiment(tmp_path, "a/small"), 0.4, slide=True)
    replicated(write_experiment(tmp_path, "b/small"), 0.3)
    replicated(write_experiment(tmp_path, "c/other"), 0.2, slide=True, data={"test": "f2"})
    assert segfolio("results", "--write") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[-4] == ["experiment", "test/mIoU", "test/slide/mIoU"]
    assert lines[-2:] == [["a/small", "40.0", "(1)", "45.0", "(1)"], ["b/small", "30.0", "(1)", "-"]]
    text = (tmp_path / "experiments/RESULTS.md").read_text()
    assert "|---|--:|--:|\n| a/small | 40.0 (1) | 45.0 (1) |\n| b/small | 30.0 (1) | - |" in text


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
    ],
)
def test_a_mistake_is_answered_by_a_sentence(segfolio, capsys, arguments, says):
    assert segfolio("results", *arguments) == 2
    assert says in capsys.readouterr().err


def test_it_imports_no_torch():
    code = "import sys, segfolio.cli, segfolio.ledger.command as c; sys.exit(bool({'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
