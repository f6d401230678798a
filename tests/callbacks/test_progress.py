import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from segfolio.callbacks import progress
from segfolio.callbacks.data_wait import DataWait
from segfolio.callbacks.progress import ProgressBar
from segfolio.figure import Figure
from tests.tiny import Tiny, loader, trainer


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"(sanity|epoch|training|test|prediction)", line)]


def test_log_file_gets_a_line_per_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    t = trainer(tmp_path, DataWait(), ProgressBar(seconds=3600))
    t.fit(Tiny(), loader(), loader())
    t.test(Tiny(), loader(), verbose=False)
    t.predict(Tiny(), loader())
    said = capsys.readouterr().out
    assert "\r" not in said
    assert "\x1b" not in said
    assert "v_num" not in said
    figures = r"epoch {}/2  4/4  \S+<00:00  \S+it/s  loss 1.000  data wait \d+%  mIoU 0.{}00$"
    patterns = ["sanity check  1/2", "epoch 1/2  1/4"]  # the run has begun
    patterns += [figures.format(1, 5), figures.format(2, 6), "test  4/4", "prediction  4/4"]
    for line, pattern in zip(lines(said), patterns, strict=True):
        assert re.match(pattern, line), line


def test_a_figure_that_is_no_ratio_has_its_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Tiny()
    model.main_figure = Figure("mIoU", "clicks", higher_is_better=False)
    trainer(tmp_path, ProgressBar(seconds=3600)).fit(model, loader(), loader())
    assert lines(capsys.readouterr().out)[-1].endswith("mIoU 0.600 clicks")


def test_progress_by_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(seconds=0)
    trainer(tmp_path, bar, max_epochs=-1, max_steps=6, num_sanity_val_steps=0).fit(Tiny(), loader())
    counts = [re.match(r"training  (\d)/6  .*loss 1.000", line) for line in lines(capsys.readouterr().out)]
    assert [m and m[1] for m in counts] == ["1", "2", "3", "4", "5", "6", "6"]


@pytest.mark.parametrize(
    ("of", "shown"), [({"max_epochs": -1, "max_steps": 3}, "training  3/3"), ({}, "epoch 2/2  4/4")]
)
def test_passes_that_make_a_step_count_as_one_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], of: dict[str, int], shown: str
) -> None:
    """Of a number of steps; an epoch is told in passes."""
    options = {"accumulate_grad_batches": 2, "num_sanity_val_steps": 0, **of}
    trainer(tmp_path, ProgressBar(seconds=0), **options).fit(Tiny(), loader())
    assert lines(capsys.readouterr().out)[-1].startswith(shown)


def test_terminal_line_is_redrawn_in_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 0.15 s, a line each 0.2 s: one of two is drawn, and each validation's stays."""
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    trainer(tmp_path, ProgressBar()).fit(Tiny(lambda: now.append(now.pop() + 0.15)), loader(), loader())
    said = capsys.readouterr().out
    drawn = [re.sub(r"  .*  (\d/\d)  .*", r" \1", line) for line in re.findall(r"\r([^\r\n]*)\x1b\[K\n?", said)]
    assert drawn == ["sanity check 1/2"] + [f"epoch {e}/2 {n}/4" for e, n in (
        (1, 1), (1, 3), (1, 4), (2, 2), (2, 4), (2, 4)
    )]  # fmt: skip
    assert [line.rpartition("\r")[2][:9] for line in said.split("\n")[-3:-1]] == ["epoch 1/2", "epoch 2/2"]
    assert max(len(line) for line in re.findall(r"\r([^\r\n]*)\x1b", said)) == 59


def test_other_processes_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(seconds=0)
    t = trainer(tmp_path, bar)
    bar.disable()
    t.fit(Tiny(), loader(), loader())
    bar.print("hello")
    assert lines(capsys.readouterr().out) == []
    bar.enable()
    bar.print("hello", 1)
    assert capsys.readouterr().out == "hello 1\n"
