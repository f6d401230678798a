"""A run goes on where it stopped only as what it was, unless the user insists."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from segfolio.data.datasets import CamVid
from segfolio.data.formats.images import read_id_map, write_id_map
from segfolio.errors import SegfolioError
from segfolio.resume import check_resumable, of_whole_steps
from tests.conftest import REPOSITORY
from tests.fake import camvid

RUN = {"trainer": {"max_steps": 2, "precision": "32-true"}, "data": {"batch_size": 2}, "processes": 1}
LAST = Path("run/checkpoints/last.ckpt")
LR = "model.init_args.optimizer.init_args.lr"


def test_every_difference_is_told_with_both_values_and_how_to_insist():
    now = {"trainer": {"max_steps": 9, "precision": "bf16-mixed"}, "data": {"batch_size": 1}, "processes": 2}
    with pytest.raises(SegfolioError) as refusal:
        check_resumable(RUN, now, [])
    told, _, insist = str(refusal.value).rpartition("--resume.allow=")
    assert "trainer.precision was 32-true and is bf16-mixed" in told
    assert "data.batch_size was 2 and is 1" in told
    assert "processes was 1 and is 2" in told
    assert "max_steps" not in told
    assert insist == "trainer.precision,data.batch_size,processes"
    check_resumable(RUN, now, insist.split(","))


@pytest.mark.parametrize("now", [{**RUN, "data": {}}, {**RUN, "data": {"batch_size": 2, "new": 1}}])
def test_a_key_that_is_gone_or_new_is_a_difference(now):
    with pytest.raises(SegfolioError, match=r"was (2 and is None|None and is 1)"):
        check_resumable(RUN, now, [])


def test_what_is_allowed_is_a_whole_key_or_the_branch_below_it():
    now = {**RUN, "data": {"batch_size": 1}}
    check_resumable(RUN, now, ["data"])
    with pytest.raises(SegfolioError, match=r"'data\.batch', which is no key; did you mean 'data\.batch_size'"):
        check_resumable(RUN, now, ["data.batch"])


def test_a_checkpoint_that_does_not_say_what_it_is_of_takes_insisting():
    with pytest.raises(SegfolioError, match="nothing can be compared"):
        check_resumable({}, RUN, [])
    check_resumable({}, RUN, ["all"])


PARTS = {"trainer": {"accumulate_grad_batches": 2}, "data": {"batch_size": 3, "root": "d"}, "processes": 4}


def test_a_batch_of_a_part_of_a_step_is_refused_with_the_batch_of_the_step():
    says = r"of segfolio 0\.1\.0, where data\.batch_size 3 was of one process .* go on with --data\.batch_size 24$"
    with pytest.raises(SegfolioError, match=says):
        of_whole_steps(PARTS, "0.1.0", PARTS)
    now = {**PARTS, "data": {"batch_size": 24, "root": "d"}}
    check_resumable(of_whole_steps(PARTS, "0.1.0", now), now, [])
    with pytest.raises(SegfolioError, match="batch_size was 24 and is 12"):
        check_resumable(of_whole_steps(PARTS, "0.1.0", {"data": {"batch_size": 12}}), {"data": {"batch_size": 12}}, [])


def test_all_is_allowed_of_a_batch_of_a_part_too():
    allowed = ["all"]
    check_resumable(of_whole_steps(PARTS, "0.1.0", PARTS, allowed), PARTS, allowed)


@pytest.mark.parametrize(
    ("then", "version"),
    [
        (PARTS, "0.2.0"),
        (PARTS, "0.10.0"),
        (PARTS, "0.2rc1"),
        ({**PARTS, "processes": 1, "trainer": {"accumulate_grad_batches": 1}}, "0.1.0"),
        ({**PARTS, "processes": 1, "trainer": {}}, "0.1.0"),
        ({}, "0"),
    ],
)
def test_a_batch_that_was_of_a_step_stays(then, version):
    assert of_whole_steps(then, version, then) == then


@pytest.fixture
def fit(segfolio, tmp_path, monkeypatch) -> Callable[..., int]:
    """`fit` of a tiny network on fake CamVid, into `run`; the run has two steps already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    camvid.write(tmp_path / "camvid", size=(32, 48))
    always = (
        *("fit", "-c", REPOSITORY / "experiments/unet/shapes_small.yaml", "--data.root=camvid", "--output=run"),
        *("--data.dataset=segfolio.data.datasets.CamVid", "--data.batch_size=2", "--trainer.accelerator=cpu"),
        *("--model.init_args.architecture.init_args.width=4", "--trainer.limit_val_batches=0"),
        *("--trainer.enable_progress_bar=false", "--trainer.logger=false"),
    )

    def fit(*arguments: object, workers: int = 0, steps: int = 2) -> int:
        return segfolio(*always, f"--data.num_workers={workers}", f"--trainer.max_steps={steps}", *arguments)

    assert fit() == 0
    return fit


def steps() -> int:
    return torch.load(LAST, weights_only=True)["global_step"]


def test_a_changed_learning_rate_is_refused_and_then_allowed(fit, capsys):
    arguments = ("--ckpt_path=last", f"--{LR}=0.001")
    assert fit(*arguments, steps=4) == 2
    assert f"{LR} was 0.003 and is 0.001" in capsys.readouterr().err
    assert steps() == 2
    assert fit(*arguments, f"--resume.allow=data.batch_size,{LR}", steps=4) == 0
    assert steps() == 4
    assert yaml.safe_load(Path("run/config.yaml").read_text())["resume"] == {"allow": ""}  # for once


def test_more_steps_and_other_workers_are_harmless(fit):
    assert fit("--ckpt_path=last", workers=1, steps=3) == 0
    assert steps() == 3


def test_a_changed_mask_is_refused(fit, capsys):
    mask = CamVid("camvid", "train").pairs[0].mask
    ids = read_id_map(mask)
    ids[0, 0] = (ids[0, 0] + 1) % 11
    write_id_map(mask, ids)
    assert fit("--ckpt_path=last", steps=3) == 2
    message = capsys.readouterr().err
    assert "data_fingerprint was " in message
    assert message.count(" was ") == 1
    assert fit("--ckpt_path=last", "--resume.allow=data_fingerprint", steps=3) == 0


def test_another_number_of_processes_is_refused_before_they_start(fit, capsys):
    assert fit("--ckpt_path=last", "--trainer.devices=2", "--trainer.strategy=ddp", steps=3) == 2
    assert "processes was 1 and is 2" in capsys.readouterr().err


def test_a_run_of_accumulated_passes_from_before_goes_on_with_the_batch_of_the_step(fit, capsys):
    checkpoint = torch.load(LAST, weights_only=True)
    checkpoint["segfolio"]["version"] = "0.1.0"
    checkpoint["run"]["trainer"]["accumulate_grad_batches"] = 2  # of 2 images each
    torch.save(checkpoint, LAST)
    arguments = ("--ckpt_path=last", "--trainer.accumulate_grad_batches=2")
    assert fit(*arguments, steps=3) == 2
    assert "go on with --data.batch_size 4" in capsys.readouterr().err
    assert fit(*arguments, "--data.batch_size=4", steps=3) == 0
    assert steps() == 3


def test_a_run_of_one_process_from_before_goes_on(fit):
    checkpoint = torch.load(LAST, weights_only=True)
    checkpoint["segfolio"]["version"] = "0.1.0"
    torch.save(checkpoint, LAST)
    assert fit("--ckpt_path=last", steps=3) == 0


def test_pickled_code_is_refused(fit, capsys):
    torch.save({**torch.load(LAST, weights_only=True), "extra": pytest.Config}, LAST)
    assert fit("--ckpt_path=last", steps=3) == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1
    assert f"{LAST} cannot be read as a checkpoint: it holds pickled code (_pytest.config.Config)" in message[0]


def test_last_without_a_run_says_where_it_looked(segfolio, capsys):
    assert segfolio("fit", "-c", REPOSITORY / "experiments/unet/shapes_small.yaml", "--ckpt_path=last") == 2
    path = "runs/unet/shapes_small/latest/checkpoints/last.ckpt"
    assert f"there is no checkpoint {path}" in capsys.readouterr().err
