"""The record of a run: while it runs, where it is resumed, where it fails."""

import signal
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import segfolio.callbacks.record
from segfolio.ledger.record import Record
from segfolio.ledger.results import finished_seed
from tests.conftest import REPOSITORY
from tests.fake import camvid

SMALL = [
    *("fit", "-c", REPOSITORY / "experiments/unet/shapes_small.yaml", "--output=run"),
    *("--data.dataset.init_args.size=[48, 64]", "--data.dataset.init_args.train=4", "--data.num_workers=0"),
    *("--data.dataset.init_args.val=2", "--data.batch_size=2", "--trainer.accelerator=cpu"),
    *("--model.init_args.architecture.init_args.width=4", "--trainer.val_check_interval=2"),
]


@pytest.fixture
def warned(monkeypatch) -> list[str]:
    said: list[str] = []
    warnings = SimpleNamespace(warn=lambda sentence, stacklevel: said.append(sentence))
    monkeypatch.setattr(segfolio.callbacks.record, "warnings", warnings)
    return said


def read(folder: str = "run") -> Record:
    record = Record.read(Path(folder))
    assert record is not None
    return record


def test_a_resumed_run_goes_on_with_its_record(segfolio):
    assert segfolio(*SMALL, "--trainer.max_steps=2") == 0
    first = read()
    assert (first.state, first.sessions, first.steps) == ("finished", 1, 2)
    assert first.data.keys() == {"train", "val"}
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    counted = {key: value for key, value in saved.items() if not key.endswith(("_mean", "_var", "_tracked"))}
    assert first.parameters == sum(value.numel() for value in counted.values())
    assert datetime.fromisoformat(first.started) < datetime.fromisoformat(first.finished)
    assert first.samples_per_second > 0
    assert segfolio(*SMALL, "--trainer.max_steps=4", "--ckpt_path=run/checkpoints/last.ckpt") == 0
    second = read()
    assert (second.state, second.sessions, second.steps) == ("finished", 2, 4)
    assert second.started == first.started
    assert second.wall_time > first.wall_time
    assert second.processor_time > first.processor_time > 0
    assert second.data == first.data
    assert second.config != first.config  # another number of steps


def test_a_run_that_fails_says_so(segfolio):
    arguments = ("--model.init_args.optimizer.init_args.lr=1e30", "--trainer.max_steps=20")
    assert segfolio(*SMALL, *arguments) == 2
    assert read().state == "failed"
    assert read().finished == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_run_that_is_stopped_says_so_and_is_finished_once_it_went_on(segfolio, number):
    before = signal.getsignal(signal.SIGINT)
    stop = ("--trainer.callbacks+=tests.killer.StopAt", "--trainer.callbacks.step=1")
    try:
        assert segfolio(*SMALL, *stop, f"--trainer.callbacks.number={int(number)}", "--trainer.max_steps=4") == 1
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored
    stopped = read()
    assert (stopped.state, stopped.finished, stopped.steps) == ("interrupted", "", 2)
    assert finished_seed(Path("run"), Path()) is None
    assert segfolio(*SMALL, "--trainer.max_steps=4", "--ckpt_path=last") == 0
    assert (read().state, read().sessions) == ("finished", 2)


def test_a_run_that_is_stopped_before_its_first_step_leaves_nothing(segfolio, monkeypatch):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segfolio.callbacks.randomness.StepSeed.on_train_batch_start", stopped)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert segfolio(*SMALL, "--trainer.max_steps=4", "--trainer.num_sanity_val_steps=0") == 1
    finally:
        signal.signal(signal.SIGINT, before)
    assert not Path("run").exists()


def test_a_test_of_a_part_is_recorded_as_that(segfolio, warned, capsys):
    sizes = ("--data.dataset.init_args.test=5", "--data.eval_batch_size=2")
    assert segfolio(*SMALL, *sizes, "--trainer.max_steps=1", "--trainer.limit_val_batches=0") == 0
    test = ("test", "--ckpt_path=run/checkpoints/last.ckpt")
    assert segfolio(*test, "--trainer.limit_test_batches=1") == 0
    assert capsys.readouterr().out.count("\npartial: 2 of 5 images\n") == 1
    part = "run/test-limit_test_batches=1"
    assert read(part).partial == "2 of 5 images"
    assert read(part).protocol.startswith("2 of 5 images of test, last.ckpt; whole image")
    assert segfolio(*test) == 0  # the last batch holds one
    assert "partial" not in capsys.readouterr().out
    assert read("run/test").partial == ""
    assert read("run/test").protocol.startswith("5 images of test, last.ckpt; whole image")
    assert warned == []  # Shapes has as many images as it is told to


def test_batch_statistics_of_a_part_of_the_batch_are_recorded_and_not_compared(segfolio, capsys):
    passes = ("--trainer.accumulate_grad_batches=2", "--trainer.max_steps=1", "--trainer.limit_val_batches=0")
    assert segfolio(*SMALL, *passes, "--paper.expected={test/mIoU: 0.5}") == 0
    assert read().batch_statistics == "batch normalisation over 1 of the 2 images of a step"
    assert segfolio("test", "--ckpt_path=run/checkpoints/last.ckpt") == 0
    assert "\ndeviation: batch normalisation over 1 of the 2 images of a step\n" in capsys.readouterr().out
    network = "--model.init_args.architecture.init_args.batch_norm=false"
    assert segfolio(*SMALL, *passes, network, "--output=plain") == 0
    assert read("plain").batch_statistics == ""


def test_data_of_another_size_than_published_is_told_and_not_compared(segfolio, warned, tmp_path, capsys):
    camvid.write(tmp_path / "data", train=2, val=1, test=2)
    config = yaml.safe_load((REPOSITORY / "experiments/unet/camvid_sample60.yaml").read_text())
    config["paper"]["expected"] = {"test/mIoU": 0.464}
    Path("row.yaml").write_text(yaml.safe_dump(config))
    small = ("--model.init_args.architecture.init_args.width=4", "--trainer.max_steps=1", "--data.num_workers=0")
    limits = ("--data.root", tmp_path / "data", "--data.batch_size=1", "--output=run")
    assert segfolio("fit", "-c", "row.yaml", *small, *limits) == 0
    train, val = "CamVid train has 2 images here, 367 as published", "CamVid val has 1 image here, 101 as published"
    unlike = "figures are not comparable with the paper's"
    assert warned == [f"{train}; {val}: {unlike}"]
    assert read().other_data == {"train": train, "val": val}
    assert segfolio("test", "--ckpt_path=run/checkpoints/last.ckpt") == 0
    test = "CamVid test has 2 images here, 233 as published"
    assert warned[1:] == [f"{train}; {val}; {test}: {unlike}"]
    out = capsys.readouterr().out
    assert out.count("other data\n") == 1  # where a verdict would stand
    assert f"\nother data: {train}; {val}; {test}\n" in out
    assert "outside" not in out
