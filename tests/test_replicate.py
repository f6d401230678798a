"""`segfolio replicate`: seeds are run once, continued, and kept apart from one another's mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import segfolio.replicate
import segfolio.resolved
from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.datasets import SA1B
from segfolio.errors import SegfolioError
from segfolio.ledger.record import Record, recipe_hash
from segfolio.replicate import Replication, as_pairs, divided
from tests.conftest import REPOSITORY
from tests.fake import sa1b
from tests.ledger.conftest import write_experiment, write_run

SMALL = [
    *("--data.dataset.init_args.size=[48, 64]", "--data.dataset.init_args.train=8", "--data.num_workers=0"),
    *("--data.dataset.init_args.val=4", "--data.dataset.init_args.test=4", "--trainer.accelerator=cpu"),
    *("--model.init_args.architecture.init_args.width=4", "--trainer.max_steps", "2"),
    *("--trainer.val_check_interval=null", "--trainer.enable_progress_bar=false"),
]


@pytest.mark.slow
def test_two_seeds_are_run_once(segfolio, capfd):
    experiment = Path("experiments/unet/shapes_small.yaml")
    experiment.parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / experiment, experiment)
    command = ("replicate", experiment, "--seeds", 0, 1, *SMALL)
    assert segfolio(*command) == 0
    (results,) = experiment.parent.glob("shapes_small.*.results.json")
    content = json.loads(results.read_text())
    values = [content["seeds"][seed]["figures"]["test/mIoU"] for seed in ("0", "1")]
    assert content["summary"]["test/mIoU"]["mean"] == pytest.approx(sum(values) / 2)
    assert values[0] != values[1]
    assert "trainer.max_steps=2" in content["overrides"]
    assert not any("accelerator" in override for override in content["overrides"])
    record = content["seeds"]["1"]["record"]
    assert (record["seed"], record["steps"], record["state"], record["world_size"]) == (1, 2, "finished", 1)
    assert record["data"].keys() == {"train", "val", "test"}
    assert record["protocol"].startswith("4 images of test, last.ckpt; whole image")
    assert record["wall_time"] > 0
    assert 0 < record["data_wait"] < 1
    assert record["peak_memory"] > 0.1
    assert record["versions"]["lightning"]
    assert str(Path.cwd()) not in results.read_text()

    assert capfd.readouterr().out.count("seed 0: fit in") == 1
    assert segfolio(*command) == 0
    again = capfd.readouterr().out
    assert "seed 0 is finished" in again
    assert "seed 1 is finished" in again
    assert ": fit in" not in again
    assert json.loads(results.read_text()) == content

    assert segfolio("results") == 0
    assert "overridden" in capfd.readouterr().out


class Commands:
    """Stands in for the processes: leaves the files that they leave."""

    def __init__(self, config: dict) -> None:
        self.config, self.said, self.crashing = config, [], set[str]()

    def run(self, command: list[str], **_: object) -> SimpleNamespace:
        assert "--print_config" in command
        return SimpleNamespace(returncode=0, stdout=yaml.safe_dump(self.config))

    @contextmanager
    def start(self, command: list[str]) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(wait=lambda: self.done(*command[3:]))

    def done(self, loop: str, *rest: str) -> int:
        given = dict(pairwise(rest))
        output, seed = Path(given["--output"]), given["--seed_everything"]
        self.said.append((loop, seed, given.get("--ckpt_path")))
        if seed in self.crashing:
            return -9
        run = output.parent if loop == "test" else output
        write_run(
            run,
            {"test/mIoU": 0.4 + int(seed) / 100},
            {"config": recipe_hash(self.config)},
            config=recipe_hash(self.config),
        )
        if loop == "fit":
            shutil.rmtree(run / "test")
        return 0


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Commands:
    experiment = write_experiment(tmp_path)
    commands = Commands(yaml.safe_load(experiment.read_text()))
    stand_in = SimpleNamespace(run=commands.run, Popen=commands.start, PIPE=subprocess.PIPE)
    for module in (segfolio.replicate, segfolio.resolved):
        monkeypatch.setattr(module, "subprocess", stand_in)
    monkeypatch.setattr(Replication, "fingerprint", lambda _, split: {"train": "f0", "test": "f1"}[split])
    monkeypatch.setattr(Replication, "expect_test", lambda _: None)
    return commands


def summary(name: str = "row") -> dict:
    return json.loads(Path(f"experiments/net/{name}.results.json").read_text())["summary"]["test/mIoU"]


def test_the_seed_of_the_yaml_is_the_default_and_others_join_it(commands, segfolio):
    assert segfolio("replicate", "experiments/net/row.yaml") == 0
    assert summary()["n"] == 1
    assert segfolio("replicate", "experiments/net/row.yaml", "--seeds", 1, 2) == 0
    assert [seed for loop, seed, _ in commands.said if loop == "fit"] == ["0", "1", "2"]
    assert (summary()["n"], summary()["median"]) == (3, pytest.approx(0.41))


def test_a_seed_that_crashes_is_told_and_the_others_go_on(commands, segfolio, capsys):
    commands.crashing = {"0"}
    assert segfolio("replicate", "experiments/net/row.yaml", "--seeds", 0, 1) == 1
    assert "seed 0 failed: fit ended with status -9" in capsys.readouterr().err
    assert summary()["n"] == 1


def test_an_unfinished_seed_goes_on_from_its_last_checkpoint(commands, segfolio):
    run = Path("runs/net/row/seed0")
    last = run / "checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    Record("net/row", recipe_hash(commands.config), 0).write(run)
    assert segfolio("replicate", "experiments/net/row.yaml") == 0
    assert commands.said == [("fit", "0", str(last)), ("test", "0", str(last))]


def test_a_seed_that_stopped_before_its_first_checkpoint_starts_again(commands, segfolio):
    run = Path("runs/net/row/seed0")
    run.mkdir(parents=True)
    Record("net/row", recipe_hash(commands.config), 0).write(run)
    (run / "metrics.csv").write_text("of the first attempt")
    assert segfolio("replicate", "experiments/net/row.yaml") == 0
    assert commands.said[0] == ("fit", "0", None)
    assert not (run / "metrics.csv").exists()


def test_a_seed_that_was_trained_is_tested_alone(commands, segfolio):
    write_run(Path("runs/net/row/seed0"), {}, {"config": recipe_hash(commands.config)}, state="running")
    assert segfolio("replicate", "experiments/net/row.yaml") == 0
    assert [loop for loop, *_ in commands.said] == ["test"]


@pytest.mark.parametrize("other", ["config", "data"])
def test_a_folder_that_holds_another_run_is_left_alone(commands, segfolio, capsys, other):
    different = (
        {"config": "c2"} if other == "config" else {"config": recipe_hash(commands.config), "data": {"train": "x"}}
    )
    write_run(Path("runs/net/row/seed0"), {"test/mIoU": 0.9}, different)
    assert segfolio("replicate", "experiments/net/row.yaml") == 1
    assert f"seed0 holds a run of another {other}; move it away" in capsys.readouterr().err
    assert commands.said == []
    assert segfolio("replicate", "experiments/net/row.yaml", "--output", "elsewhere") == 0
    assert summary()["mean"] == 0.4


def test_overrides_have_a_folder_and_results_of_their_own(commands, segfolio):
    assert segfolio("replicate", "experiments/net/row.yaml", "--data.root", "here") == 0
    assert Path("runs/net/row/seed0").is_dir()  # where the data lies is no change of the recipe
    commands.config["trainer"]["max_steps"] = 1
    assert segfolio("replicate", "experiments/net/row.yaml", "--trainer.max_steps", 1) == 0
    name = recipe_hash(commands.config)[:8]
    assert Path(f"runs/net/row/{name}/seed0").is_dir()
    assert summary(f"row.{name}")["n"] == 1
    assert json.loads(Path("experiments/net/row.results.json").read_text())["overrides"] == []


def test_a_record_only_experiment_is_refused(tmp_path, segfolio, capsys):
    write_experiment(tmp_path, status="record-only", deviations=["another optimiser"])
    assert segfolio("replicate", "experiments/net/row.yaml") == 2
    said = capsys.readouterr().err
    assert said.endswith("row.yaml is record-only: it holds the paper's figures and cannot be run here\n")


def test_a_test_of_a_part_is_refused_before_the_training(commands, segfolio, capsys):
    commands.config["trainer"]["limit_test_batches"] = 5
    assert segfolio("replicate", "experiments/net/row.yaml", "--trainer.limit_test_batches", 5) == 2
    assert "replicate tests the whole split; leave out trainer.limit_test_batches" in capsys.readouterr().err
    assert commands.said == []


@pytest.mark.parametrize(
    ("model", "dataset", "says"),
    [
        (
            "segfolio.families.trained.Trained",
            "Shapes",
            "but Trained has no test_step; train it by",
        ),
        ("segfolio.families.Distillation", "SA1B", "there is nothing to test on: SA-1B has no split 'test'; it has"),
        ("segfolio.families.PerPixel", "MaskFolder", "there is nothing to test on: .*classes.yaml"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_the_training(tmp_path, monkeypatch, model, dataset, says):
    dataset = {"class_path": f"segfolio.data.datasets.{dataset}"}
    resolved = {"model": {"class_path": model}, "data": {"dataset": dataset, "root": str(tmp_path)}, "trainer": {}}
    monkeypatch.setattr(Replication, "resolved", resolved)
    monkeypatch.setattr(Replication, "_loop", None)
    with pytest.raises(SegfolioError, match=says):
        Replication(write_experiment(tmp_path), [], tmp_path / "runs").run(0)


def test_what_was_trained_without_a_validation_is_compared_by_what_it_was_trained_on(tmp_path, monkeypatch):
    """Of a distillation there may be no split of the name `val`."""
    sa1b.write(tmp_path / "images")
    data = {"dataset": {"class_path": "segfolio.data.datasets.SA1B", "init_args": {"val_every": 3}}}
    data |= {"root": str(tmp_path / "images"), "val_split": "nowhere", "test_split": "val"}
    model = {"class_path": "segfolio.families.Distillation"}
    monkeypatch.setattr(Replication, "resolved", {"model": model, "data": data, "trainer": {}})
    replication = Replication(write_experiment(tmp_path), [], tmp_path / "runs")
    replication.expect_test()
    record = Record(
        "net/row", replication.recipe, 0, data={"train": fingerprint(SA1B(tmp_path / "images", "train", 3))}
    )
    record.write(run := tmp_path / "runs/seed0")
    said: list[str] = []
    monkeypatch.setattr(Replication, "_loop", lambda _, loop, *rest: said.append(loop))
    with pytest.raises(SegfolioError, match="was tested but holds no figures"):
        replication.run(0)
    assert said == ["fit", "test"]
    replace(record, data={"train": "others"}).write(run)
    with pytest.raises(SegfolioError, match="holds a run of another data"):
        replication.run(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_who_is_told_to_stop_lets_the_training_end_its_step(segfolio, commands, capsys, monkeypatch, tmp_path, number):
    """Ctrl-C reaches it by itself, SIGTERM is handed on."""
    child = f"""
import signal, sys, time
def stop(*_):
    time.sleep(1)  # the step
    open("saved", "w").close()
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
open("started", "w").close()
time.sleep({2 if number == signal.SIGINT else 60})
stop()
"""

    def signal_once_it_runs() -> None:
        while not Path("started").exists():
            threading.Event().wait(0.05)
        os.kill(os.getpid(), number)

    monkeypatch.setattr("segfolio.replicate.subprocess", subprocess)
    monkeypatch.setattr(Replication, "resolved", commands.config)
    monkeypatch.setattr(Replication, "_command", lambda *_: [sys.executable, "-c", child])
    threading.Thread(target=signal_once_it_runs).start()
    assert segfolio("replicate", "experiments/net/row.yaml", "--seeds", 0, 1) == 130
    assert Path("saved").exists()
    assert "stopped; the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: config"),
        (["nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["experiments/net/row.yaml", "--seed_everything=3"], "replicate sets --seed_everything itself"),
        (["experiments/net/row.yaml", "--seeds", "one"], "invalid int value: 'one'"),
        (["experiments/net/row.yaml", "stray"], "unrecognized arguments: stray"),
    ],
)
def test_a_mistake_is_answered_by_a_sentence(commands, segfolio, capsys, arguments, says):
    assert segfolio("replicate", *arguments) == 2
    assert says in capsys.readouterr().err


def test_overrides_are_read_in_pairs():
    assert as_pairs(["--a.b", "1", "--c=2", "--d", "-1"]) == [("a.b", "1"), ("c", "2"), ("d", "-1")]
    with pytest.raises(SegfolioError, match="'2'"):
        as_pairs(["--a", "1", "2"])


def test_values_with_spaces_and_signs_are_handed_on():
    arguments = ["x.yaml", "--a=[1, 2]", "--b", "-1", "--seeds", "0", "1", "--c", "3"]
    assert divided(arguments) == (["x.yaml", "--seeds", "0", "1"], ["--a=[1, 2]", "--b", "-1", "--c", "3"])
