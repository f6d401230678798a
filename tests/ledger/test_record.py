"""What is kept of a run, and what counts as the same recipe."""

import subprocess
from pathlib import Path

import pytest

import segfolio
from segfolio.errors import SegfolioError
from segfolio.ledger import record
from segfolio.ledger.record import Record, changes_recipe, recipe_hash, throughput

CONFIG = {"seed_everything": 0, "model": {"lr": 0.1}, "data": {"root": "here", "batch_size": 2}, "trainer": {}}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed_everything": 1}, True),
        ({"paper": {"tolerance": 0.5}}, True),
        ({"data": {"root": "there", "batch_size": 2, "num_workers": 7}}, True),
        ({"trainer": {"accelerator": "gpu"}}, True),
        ({"trainer": {"devices": 8, "num_nodes": 2, "strategy": "ddp", "accumulate_grad_batches": 4}}, True),
        ({"trainer": {"sync_batchnorm": True}}, True),
        ({"trainer": None}, True),
        ({"data": {"root": "here", "batch_size": 4}}, False),
        ({"model": {"lr": 0.2}}, False),
        ({"trainer": {"max_steps": 5}}, False),
    ],
)
def test_the_recipe_is_what_is_computed_not_where(change, same):
    assert (recipe_hash({**CONFIG, **change}) == recipe_hash(CONFIG)) == same


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("trainer.max_steps", True),
        ("data", True),
        ("data.dataset.init_args.root", True),
        ("data.root", False),
        ("trainer.accelerator", False),
        ("trainer.devices", False),
        ("trainer.accumulate_grad_batches", False),
        ("trainer.precision", True),
        ("output", False),
    ],
)
def test_an_override_is_named_where_it_changes_the_recipe(key, changes):
    assert changes_recipe(key) == changes


def test_throughput_weights_every_row_by_its_time(tmp_path):
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(
        "step,val/mIoU,train/data_wait,train/samples_per_second\n"
        "9,,0.5,10\n"  # ten steps, one unit of time
        "9,0.1,,\n"
        "19,,0.2,20\n"  # ten steps, half a unit
    )
    wait, speed = throughput(metrics)
    assert wait == pytest.approx((0.5 * 1 + 0.2 * 0.5) / 1.5)
    assert speed == pytest.approx(20 / 1.5)
    assert throughput(tmp_path / "none.csv") is None


def test_a_record_is_read_as_it_was_written(tmp_path):
    written = Record("net/row", "c1", 3, data={"train": "f"}, data_wait=0.25)
    written.write(tmp_path)
    assert Record.read(tmp_path) == written
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]
    assert Record.read(tmp_path / "elsewhere") is None


def test_the_caveat_is_what_forbids_a_comparison():
    other = {"train": "T train has 60 images here, 367 as published", "val": "T val has 1 image here, 2 as published"}
    assert Record("net/row", "c1", 3).caveat == ""
    assert Record("net/row", "c1", 3, other_data=other).caveat == f"other data: {other['train']}; {other['val']}"
    part = "batch normalisation over 2 of the 16 images of a step"
    assert Record("net/row", "c1", 3, batch_statistics=part).caveat == f"deviation: {part}"
    assert Record("net/row", "c1", 3, partial="5 of 20 images", other_data=other).caveat == "partial: 5 of 20 images"


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_file_that_is_no_record_is_named(tmp_path, content):
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(SegfolioError, match=r"record\.json is no record of a run"):
        Record.read(tmp_path)


def test_code_is_named_by_its_commit_and_whether_it_differs(tmp_path, monkeypatch):
    package = tmp_path / "src/pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(segfolio, "__file__", str(package / "__init__.py"))
    assert record.code() == {"commit": None, "dirty": None, "lock": None}  # not a checkout

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    assert record.code()["commit"] is None  # in a repository, and not of it
    git("add", ".")
    git("commit", "--quiet", "--message=x")
    (tmp_path / "results.json").write_text("")  # beside the code
    assert record.code() == {"commit": git("rev-parse", "HEAD"), "dirty": False, "lock": None}
    (package / "new.py").write_text("")
    (tmp_path / "requirements.lock").write_text("")
    assert record.code()["dirty"] is True
    assert record.code()["lock"].startswith("e3b0c44298fc1c14")  # of nothing


def test_the_machine_has_memory_and_cores():
    found = record.machine()
    assert found["cores"] >= 1
    assert found["memory"] >= 1
    assert found["cpu"]


def test_git_need_not_be_there(monkeypatch):
    monkeypatch.setenv("PATH", str(Path("nowhere")))
    assert record.code()["commit"] is None


def test_a_copy_without_its_history_knows_its_commit_until_it_is_changed(tmp_path, monkeypatch):
    package = tmp_path / "src/segfolio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    monkeypatch.setattr(segfolio, "__file__", str(package / "__init__.py"))
    known = {"commit": "0123", "dirty": False, "lock": "45"}
    with monkeypatch.context() as at_home:
        at_home.setattr(record, "code", lambda: known)
        assert record.carry_code() == tmp_path / "build/gpu/code.json"
    assert record.code() == known
    (package / "__init__.py").write_text("x = 2\n")
    assert record.code() == {"commit": None, "dirty": None, "lock": None}
