"""The record of a run: while it runs, where it is resumed, where it fails."""

from datetime import datetime
from pathlib import Path

from segfolio.ledger.record import Record
from tests.conftest import REPOSITORY

SMALL = [
    *("fit", "-c", REPOSITORY / "experiments/unet/shapes_small.yaml", "--output=run"),
    *("--data.dataset.init_args.size=[48, 64]", "--data.dataset.init_args.train=4", "--data.num_workers=0"),
    *("--data.dataset.init_args.val=2", "--data.batch_size=2", "--trainer.accelerator=cpu"),
    *("--model.init_args.architecture.init_args.width=4", "--trainer.val_check_interval=2"),
]


def read() -> Record:
    record = Record.read(Path("run"))
    assert record is not None
    return record


def test_a_resumed_run_goes_on_with_its_record(segfolio):
    assert segfolio(*SMALL, "--trainer.max_steps=2") == 0
    first = read()
    assert (first.state, first.sessions, first.steps) == ("finished", 1, 2)
    assert first.data.keys() == {"train", "val"}
    assert datetime.fromisoformat(first.started) < datetime.fromisoformat(first.finished)
    assert first.samples_per_second > 0
    assert segfolio(*SMALL, "--trainer.max_steps=4", "--ckpt_path=run/checkpoints/last.ckpt") == 0
    second = read()
    assert (second.state, second.sessions, second.steps) == ("finished", 2, 4)
    assert second.started == first.started
    assert second.wall_time > first.wall_time
    assert second.data == first.data
    assert second.config != first.config  # another number of steps


def test_a_run_that_fails_stays_unfinished(segfolio):
    arguments = ("--model.init_args.optimizer.init_args.lr=1e30", "--trainer.max_steps=20")
    assert segfolio(*SMALL, *arguments) == 2
    assert read().state == "running"
    assert read().finished == ""
