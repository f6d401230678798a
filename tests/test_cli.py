"""What a user types, and what the command answers."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segfolio.cli import COMMANDS, function_of
from segfolio.data.checks import remembered
from tests.conftest import REPOSITORY
from tests.fake import camvid

SMALL = [
    *("-c", REPOSITORY / "experiments/unet/shapes_small.yaml", "--data.num_workers=0", "--trainer.accelerator=cpu"),
    *("--data.dataset.init_args.size=[48, 64]", "--data.dataset.init_args.train=9"),
    *("--data.dataset.init_args.val=5", "--data.dataset.init_args.test=5"),
    "--model.init_args.architecture.init_args.width=4",
]


@pytest.fixture
def trained(segfolio) -> Path:
    """The run of a few steps, in the numbered folder where the command puts it."""
    steps = ("--trainer.max_steps=4", "--trainer.val_check_interval=2", "--trainer.log_every_n_steps=1")
    assert segfolio("fit", *SMALL, "--data.batch_size=2", *steps) == 0
    return Path("runs/unet/shapes_small/0")


def test_a_run_leaves_config_metrics_checkpoints_and_pictures(trained):
    assert Path("runs/unet/shapes_small/latest").resolve() == trained.resolve()
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["model"]["init_args"]["architecture"]["init_args"]["width"] == 4
    rows = list(csv.DictReader((trained / "metrics.csv").open()))
    columns = rows[0].keys()
    assert {"train/loss", "train/loss_ce", "train/data_wait", "val/mIoU", "val/pixel_accuracy"} <= columns
    assert [float(r["val/mIoU"]) for r in rows if r["val/mIoU"]]
    assert {p.name for p in (trained / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert len(list((trained / "pictures").rglob("*.png"))) > 0
    assert list(trained.glob("wandb/offline-run-*"))


def test_the_last_checkpoint_is_of_the_last_step(segfolio):
    """Also where training ends between two validations."""
    arguments = (
        "--trainer.max_steps=3",
        "--trainer.val_check_interval=2",
        "--data.batch_size=2",
        "--output=run",
    )
    assert segfolio("fit", *SMALL, *arguments) == 0
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    assert torch.load("run/checkpoints/best.ckpt", weights_only=True)["global_step"] == 2


def test_a_second_run_gets_its_own_folder(segfolio, trained):
    assert segfolio("fit", *SMALL, "--trainer.max_steps=1", "--trainer.limit_val_batches=1") == 0
    assert Path("runs/unet/shapes_small/latest").resolve().name == "1"


def test_a_folder_that_holds_a_run_is_left_alone(segfolio, trained, capsys):
    before = (trained / "metrics.csv").read_text()
    assert segfolio("fit", *SMALL, "--output", trained) == 2
    assert "holds a run; go on with it by --ckpt_path last" in capsys.readouterr().err
    assert (trained / "metrics.csv").read_text() == before


def test_test_follows_from_the_checkpoint_alone(segfolio, trained, capsys):
    assert segfolio("test", "--ckpt_path", trained / "checkpoints/last.ckpt") == 0
    out = capsys.readouterr().out
    figures = json.loads((trained / "test/figures.json").read_text())
    assert f"{100 * figures['test/mIoU']:.1f}" in out
    assert "paper" in out
    assert "ours" in out
    assert "circle" in out  # per class


def test_predict_writes_a_folder_of_plain_images_at_their_own_sizes(segfolio, trained):
    images = Path("photos")
    images.mkdir()
    for name, size in (("a.png", (50, 70, 3)), ("b.jpg", (33, 90, 3))):
        cv2.imwrite(str(images / name), np.random.default_rng(0).integers(0, 255, size, np.uint8))
    assert (
        segfolio(
            "predict",
            "--ckpt_path",
            trained / "checkpoints/last.ckpt",
            "--data.images",
            images,
            "--output=out",
        )
        == 0
    )
    for name, size in (("a", (50, 70)), ("b", (33, 90))):
        ids = cv2.imread(f"out/ids/{name}.png", cv2.IMREAD_UNCHANGED)
        palette = Image.open(f"out/palette/{name}.png")
        assert ids.shape == size
        assert palette.mode == "P"
        np.testing.assert_array_equal(np.asarray(palette), ids)
        assert cv2.imread(f"out/overlay/{name}.png").shape == (*size, 3)


def test_a_prediction_needs_the_run_and_no_dataset(segfolio, tmp_path):
    camvid.write(tmp_path / "data")
    config = REPOSITORY / "experiments/unet/camvid_sample60.yaml"
    small = ("--model.init_args.architecture.init_args.width=4", "--trainer.max_steps=1", "--data.num_workers=0")
    limits = ("--data.root", tmp_path / "data", "--data.batch_size=1", "--trainer.limit_val_batches=0", "--output=run")
    assert segfolio("fit", "-c", config, *small, *limits) == 0
    shutil.move(tmp_path / "data" / "test", tmp_path / "photos")
    shutil.rmtree(tmp_path / "data")
    assert segfolio("predict", "--ckpt_path=run/checkpoints/last.ckpt", "--data.images=photos", "--output=out") == 0
    assert len(list(Path("out/ids").glob("*.png"))) == len(list(Path("photos").glob("*.png"))) > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["test", "--ckpt_path", "nowhere/last.ckpt"], "there is no checkpoint nowhere/last.ckpt"),
        (["architektures"], "there is no command 'architektures'"),
        (["fit", *SMALL, "--data.dataset=segfolio.data.datasets.CamVid", "--data.root=nowhere"], "nowhere"),
        (["fit", *SMALL, "--data.bach_size=4"], "data.bach_size"),
        (["fit", *SMALL, "--model.init_args.architecture.init_args.widht=4"], "widht"),
        (["fit", *SMALL, "--data.batch_size=64"], "lower data.batch_size"),
        (
            ["fit", *SMALL, "--data.batch_size=4", "--trainer.accumulate_grad_batches=3"],
            "is one of 1, 2, 4, or another",
        ),
        (["fit", *SMALL, "--data.images=nowhere", "--model.init_args.loss_weights={cee: 2.0}"], "cee"),
        (["fit", *SMALL, "--paper.expected={test/mIoU: 46.4}"], "46.4"),
        (["fit", "-c", "nowhere.yaml"], "nowhere.yaml"),
        (["fit"], "needs an experiment: -c CONFIG"),
        (["fit", *SMALL, "--trainer.max_step=4"], "did you mean 'trainer.max_steps'"),
        (
            [
                "fit",
                *SMALL,
                "--model.init_args.architecture.class_path=segfolio.architectures.encoder_decoder.unet.UNett",
            ],
            "did you mean 'UNet'",
        ),
        (["fit", *SMALL, "--model.init_args.architecture.init_args.padding=circular"], "circular"),
        (["fit", *SMALL, "--model.init_args.test={protocl: slide}"], "did you mean 'test.protocol'"),
        (["fit", *SMALL, "--model.init_args.init_form=a.ckpt"], "did you mean 'init_from'?; it takes labels, "),
        (["fit", *SMALL, "--seed_everything=true"], "give a number"),
    ],
)
def test_a_mistake_is_answered_by_a_sentence(segfolio, capsys, arguments, says):
    assert segfolio(*arguments) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert says in err[-1]
    assert "Traceback" not in "".join(err)


def test_a_checkpoint_of_another_architecture_is_refused(segfolio, trained, capsys):
    config = REPOSITORY / "experiments/segnet/basic_camvid_367.yaml"
    arguments = ("--data.dataset=segfolio.data.datasets.Shapes",)
    assert segfolio("test", "-c", config, *arguments, "--ckpt_path", trained / "checkpoints/last.ckpt") == 2
    assert "the checkpoint holds segfolio.architectures.encoder_decoder.unet.UNet" in capsys.readouterr().err


def test_a_checkpoint_of_another_width_is_refused(segfolio, trained, capsys):
    arguments = (
        "--model.init_args.architecture.init_args.width=6",
        "--ckpt_path",
        trained / "checkpoints/last.ckpt",
    )
    assert segfolio("test", *SMALL, *arguments) == 2
    assert "another shape" in capsys.readouterr().err


def test_a_truncated_checkpoint_is_refused(segfolio, trained, capsys):
    path = trained / "checkpoints/last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    assert segfolio("test", "--ckpt_path", path) == 2
    assert "cannot be read as a checkpoint" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_images(segfolio, capsys):
    arguments = (
        "--model.init_args.optimizer.init_args.lr=1e30",
        "--trainer.max_steps=20",
        "--trainer.val_check_interval=1",
    )
    assert segfolio("fit", *SMALL, *arguments, "--data.batch_size=2", "--output=run") == 2
    message = capsys.readouterr().err
    assert "not finite at step" in message
    assert "train" in message
    weights = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(w).all() for w in weights.values())


def test_listings(segfolio, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert segfolio("architectures") == 0
    table = capsys.readouterr().out
    assert re.search(r"FCN-32s .* 134\.35 M +404 +32 ", table)
    assert segfolio("datasets") == 0
    of_all = capsys.readouterr().out
    assert re.search(r"CamVid +11 +train 367 / val 101 / test 233 +semantic ", of_all)
    assert "licence: research use" in of_all

    kept = answered_without_torch("architectures", "FCN-32s")
    (shown,) = re.findall("FCN-32s .*", table)
    assert shown.split() in [line.split() for line in kept.splitlines()]
    assert "U-Net" not in kept
    assert segfolio("architectures", "fcn-32s", "u-net") == 2
    assert "nothing is described by 'fcn-32s u-net'" in capsys.readouterr().err


def test_help_is_what_the_command_says_of_itself(segfolio, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "_WORTH", 0.0)
    assert segfolio("inspect", "--help") == 0
    first = capsys.readouterr().out
    assert "page with examples of each class" in first
    assert answered_without_torch("inspect", "--help") == first
    monkeypatch.setenv("COLUMNS", "60")
    assert segfolio("inspect", "-h") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < max(map(len, first.splitlines()))


def test_every_command_is_where_the_table_says():
    assert all(callable(function_of(name)) for name in COMMANDS)
    listed = re.findall(r"^  segfolio (\w+) .+  \S", answered_without_torch("--help"), re.MULTILINE)
    assert listed == list(COMMANDS)


def answered_without_torch(*arguments: str) -> str:
    """What a new process prints, in which torch cannot be imported."""
    code = "import sys; sys.modules['torch'] = None; from segfolio.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
