"""Commands that people type: each does what it says, or answers with a sentence and leaves nothing behind."""

import errno
import json
import os
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from PIL import Image

from segfolio.cli import main
from segfolio.families.trained import Trained
from segfolio.mistakes import lacking
from tests.conftest import REPOSITORY
from tests.test_cli import SMALL
from tests.tiny import logged

FIT = ("fit", *SMALL, "--data.batch_size=2", "--trainer.limit_val_batches=1")
QUICK = (*FIT, "--trainer.logger=false", "--trainer.max_steps=1")
"""One step, and checkpoints alone."""
LAST = "run/checkpoints/last.ckpt"


def files(folder: str = ".") -> set[str]:
    return {path.as_posix() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def run(segfolio) -> Path:
    assert segfolio(*QUICK, "--output=run") == 0
    return Path("run")


# A dry run, n 18.


@pytest.mark.parametrize("arguments", [["true"], ["2"], ["3", "--trainer.accumulate_grad_batches=2"]])
def test_a_dry_run_ends_well_and_leaves_nothing(segfolio, capsys, arguments):
    assert segfolio(*FIT, "--trainer.fast_dev_run", *arguments) == 0
    assert "a dry run: nothing is kept" in capsys.readouterr().out
    assert files() == set()


@pytest.mark.parametrize("loop", ["validate", "test", "predict"])
def test_a_dry_evaluation_leaves_what_the_run_has(segfolio, run, capsys, loop):
    before = files()
    assert segfolio(loop, "--ckpt_path", LAST, "--trainer.fast_dev_run=1") == 0
    assert "a dry run: nothing is kept" in capsys.readouterr().out
    assert files() == before


def test_a_dry_run_of_a_run_that_goes_on_is_refused(segfolio, run, capsys):
    assert segfolio("fit", "--ckpt_path", LAST, "--trainer.fast_dev_run=1") == 2
    assert "starts anew; leave out --ckpt_path" in capsys.readouterr().err


# The same batches again and again, n 19.


@pytest.mark.parametrize(("batches", "accumulate"), [("1", 1), ("2", 1), ("0.5", 1), ("2", 2)])
def test_overfit_batches_are_the_same_in_every_epoch(segfolio, batches, accumulate):
    """With a learning rate of 0 equal batches, augmentation included, have equal losses."""
    arguments = ("--trainer.log_every_n_steps=1", "--trainer.max_steps=6", "--output=run")
    still = ("--model.init_args.optimizer.init_args.lr=0", f"--trainer.accumulate_grad_batches={accumulate}")
    validation = ("--trainer.limit_val_batches=0", "--data.eval_batch_size=1")
    assert segfolio(*FIT, *arguments, *still, *validation, f"--trainer.overfit_batches={batches}") == 0
    losses = logged(Path("run"), "train/loss")
    period = {"1": 1, "2": 2, "0.5": 2}[batches] // accumulate
    assert len(losses) == 6
    assert losses[period:] == losses[:-period]
    assert len(set(losses)) == period


# True half and double precision, n 20.


@pytest.mark.parametrize(
    ("experiment", "precision"),
    [
        ("unet/shapes_small", "bf16-true"),
        ("unet/shapes_small", "16-true"),
        ("unet/shapes_small", "64-true"),
        ("maskformer/shapes_panoptic", "bf16-true"),
        ("mask_rcnn/shapes_small", "bf16-true"),
    ],
)
def test_every_family_is_trained_and_tested_in_every_precision(segfolio, experiment, precision):
    """That each architecture is, `architectures/test_contract.py` says."""
    small = [argument for argument in SMALL if "width" not in str(argument)]
    small[1] = REPOSITORY / f"experiments/{experiment}.yaml"
    limits = ("--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1")
    arguments = (*limits, "--data.batch_size=2", "--trainer.logger=false", "--trainer.precision", precision)
    assert segfolio("fit", *small, *arguments, "--output=run") == 0
    assert segfolio("test", "--ckpt_path", LAST) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("images", [torch.uint8, torch.float32], ids=str)
def test_images_of_any_type_come_to_a_network_in_its_own(dtype, images):
    """A test protocol hands over images that were resized, in float32."""
    module = Trained(torch.nn.Conv2d(3, 1, 1), torch.optim.SGD).to(dtype)
    assert module.normalize(torch.full((1, 3, 4, 4), 128, dtype=images)).dtype == dtype
    assert module(torch.full((1, 3, 4, 4), 128, dtype=images)).dtype == dtype


# A class in the place of another, n 23.

OPTIMIZER = "--model.init_args.optimizer"


def resolved(segfolio, capsys, *arguments):
    capsys.readouterr()
    assert segfolio("fit", *SMALL[:2], *arguments, "--print_config") == 0, capsys.readouterr().err
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    "arguments",
    [
        (OPTIMIZER, "torch.optim.SGD", f"{OPTIMIZER}.init_args.lr", "0.01"),
        (f"{OPTIMIZER}.class_path=torch.optim.SGD", f"{OPTIMIZER}.init_args.lr=0.01"),
        (OPTIMIZER + '={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}}',),
        ("-c", "sgd.yaml"),
    ],
    ids=["name", "class_path", "braces", "config"],
)
def test_a_class_takes_nothing_from_the_one_that_it_replaces(segfolio, capsys, monkeypatch, arguments):
    said: list[str] = []
    monkeypatch.setattr("segfolio.replaced.rank_zero_warn", said.append)
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}}
    Path("sgd.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"optimizer": sgd}}}))
    found = resolved(segfolio, capsys, *arguments)["model"]["init_args"]
    assert found["optimizer"]["init_args"] | {"lr": 0.01, "weight_decay": 0.0} == found["optimizer"]["init_args"]
    assert found["scheduler"]["init_args"]["total_iters"] == 600
    gone = "torch.optim.SGD takes the place of torch.optim.AdamW, whose arguments go: lr: 0.003, weight_decay: 0.01"
    assert set(said) == {gone}


@pytest.mark.parametrize(
    ("key", "cls", "argument", "default"),
    [
        ("model.init_args.architecture", "segfolio.architectures.encoder_decoder.segnet.SegNetBasic", "width", 64),
        ("model.init_args.scheduler", "segfolio.families.schedules.WarmupPoly", "power", 0.9),
        ("data.dataset", "segfolio.data.datasets.CamVid", "size", None),
    ],
)
def test_so_does_every_class(segfolio, capsys, key, cls, argument, default):
    first = ("--model.init_args.scheduler.init_args.power=3", "--data.dataset.init_args.size=[48, 64]")
    found = resolved(segfolio, capsys, *first, f"--{key}={cls}")
    for name in key.split("."):
        found = found[name]
    assert found["class_path"] == cls
    assert found.get("init_args", {}).get(argument) == default


def test_the_same_class_by_another_path_keeps_its_arguments(segfolio, capsys):
    found = resolved(segfolio, capsys, f"{OPTIMIZER}=torch.optim.adamw.AdamW")["model"]["init_args"]["optimizer"]
    assert found["init_args"]["lr"] == 0.003


# Other loggers, n 24.

STEP = (*FIT, "--trainer.max_steps=1", "--trainer.log_every_n_steps=1", "--output=run")


@pytest.mark.parametrize(
    ("loggers", "own"),
    [
        (("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=other"), False),
        (("--trainer.logger=false",), False),
        (("--trainer.logger+=CSVLogger", "--trainer.logger.save_dir=other"), True),
        (('--trainer.logger=[{"class_path": "CSVLogger", "init_args": {"save_dir": "other"}}]',), True),
    ],
    ids=["another", "none", "a further", "a list"],
)
def test_whatever_the_loggers_a_run_is_tested_from_its_checkpoint_alone(segfolio, loggers, own):
    assert segfolio(*STEP, *loggers) == 0
    assert Path("run/metrics.csv").is_file() == own
    assert bool(list(Path("run").glob("wandb/offline-run-*"))) == own
    assert len(list(Path().glob("other/**/metrics.csv"))) == ("CSVLogger" in str(loggers))
    assert segfolio("test", "--ckpt_path", LAST, "--trainer.logger=false") == 0


@pytest.mark.parametrize("plus", ["", "+"])
def test_a_logger_whose_package_is_not_there(segfolio, capsys, monkeypatch, plus):
    for package in ("tensorboard", "tensorboardX"):
        monkeypatch.setattr(f"lightning.fabric.loggers.tensorboard._{package.upper()}_AVAILABLE", False)
    arguments = (f"--trainer.logger{plus}=TensorBoardLogger", "--trainer.logger.save_dir=other")
    assert segfolio(*FIT, *arguments, "--output=run") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == "segfolio: tensorboard is not installed, which the config asks for: pip install tensorboard"
    assert not Path("run").exists()


# A disk that is full, n 26.


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_metrics_on_a_full_disk(segfolio, capsys, monkeypatch):
    """/dev/full takes no byte, which shows when the file is closed."""
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode="r", **how: opened(Path("/dev/full") if mode == "a" else path, mode, **how)
    )
    assert segfolio(*STEP) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == "segfolio: the disk is full: run/metrics.csv could not be written; make room and start again"
    assert json.loads(Path("run/record.json").read_text())["state"] == "failed"


@pytest.mark.parametrize("resumed", [False, True])
def test_a_checkpoint_on_a_full_disk(segfolio, capsys, monkeypatch, resumed):
    if resumed:
        assert segfolio(*QUICK, "--output=run") == 0
    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    more = ("--trainer.max_steps=2", *(("--ckpt_path", LAST) if resumed else ()))
    assert segfolio(*QUICK, "--output=run", *more) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    again = "go on with `segfolio fit --ckpt_path run/checkpoints/last.ckpt`" if resumed else "start again"
    assert said == f"segfolio: the disk is full: {LAST} could not be written; make room and {again}"
    assert {path.name for path in Path("run/checkpoints").glob("*")} == ({"last.ckpt"} if resumed else set())


def test_figures_on_a_full_disk(segfolio, run, capsys, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", full)
    assert segfolio("test", "--ckpt_path", LAST) == 2
    assert "run/test/record.json could not be written; make room and start again" in capsys.readouterr().err


def test_shared_memory_that_is_full_is_told_apart():
    said = lacking(RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"))
    assert said
    assert "lower data.num_workers" in said
    assert lacking(RuntimeError("shapes differ")) is None


# Which checkpoint, which images, n 30.

VALIDATED = (*QUICK[:-1], "--trainer.max_steps=2", "--trainer.val_check_interval=1", "--output=run")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Four images, and among them one that is none and one that is cut short."""
    (folder := tmp_path / "photos").mkdir()
    for i in range(4):
        Image.new("RGB", (70, 50)).save(folder / f"{i}.png")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:-20])
    (folder / "text.jpg").write_text("no image")
    return folder


@pytest.mark.parametrize(
    ("loop", "has_best", "name"), [("predict", True, "best"), ("predict", False, "last"), ("test", True, "best")]
)
def test_of_a_run_the_best_checkpoint_is_taken_or_else_the_last(segfolio, photos, monkeypatch, loop, has_best, name):
    said: list[str] = []
    monkeypatch.setattr("segfolio.arguments.rank_zero_info", said.append)
    assert segfolio(*(VALIDATED if has_best else (*QUICK, "--output=run"))) == 0
    images = ("--data.images", photos / "0.png", "--output=out") if loop == "predict" else ()
    assert segfolio(loop, "--ckpt_path=run", *images) == 0
    assert said == [f"checkpoint: run/checkpoints/{name}.ckpt"]


def test_a_run_goes_on_from_its_last_checkpoint(segfolio, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("segfolio.arguments.rank_zero_info", said.append)
    assert segfolio(*VALIDATED) == 0
    assert segfolio("fit", "--ckpt_path=run", "--trainer.max_steps=3") == 0
    assert segfolio("test", "--ckpt_path=run/checkpoints") == 0
    assert said == ["checkpoint: run/checkpoints/last.ckpt", "checkpoint: run/checkpoints/best.ckpt"]
    assert torch.load(LAST, weights_only=True)["global_step"] == 3


def test_the_best_checkpoint_of_the_latest_run(segfolio):
    assert segfolio(*VALIDATED[:-1]) == 0
    assert segfolio("test", *SMALL[:2], *SMALL[2:], "--ckpt_path=best", "--trainer.logger=false") == 0
    assert segfolio("test", *SMALL, "--ckpt_path", "best", "--output=nowhere") == 2


def test_beside_a_truncated_checkpoint_the_whole_one_is_named(segfolio, capsys):
    assert segfolio(*VALIDATED) == 0
    with Path(LAST).open("r+b") as file:
        file.truncate(1000)
    assert segfolio("fit", "--ckpt_path=run", "--trainer.max_steps=3") == 2
    assert "run/checkpoints/best.ckpt can be: give it to --ckpt_path" in capsys.readouterr().err
    assert segfolio("fit", "--ckpt_path=run/checkpoints/best.ckpt", "--trainer.max_steps=3") == 0
    with Path("run/checkpoints/best.ckpt").open("r+b") as file:
        file.truncate(1000)
    assert segfolio("test", "--ckpt_path=run") == 2
    assert "last.ckpt can be: give it" in capsys.readouterr().err


def test_a_single_image_is_predicted(segfolio, run, photos):
    assert segfolio("predict", "--ckpt_path", LAST, "--data.images", photos / "2.png", "--output=out") == 0
    assert files("out") == {"out/ids/2.png", "out/palette/2.png", "out/overlay/2.png"}


def test_a_single_file_that_is_no_image(segfolio, run, photos, capsys):
    Path("notes.txt").write_text("no image")
    for path, says in (("notes.txt", "it is no image"), (photos / "text.jpg", "text.jpg")):
        assert segfolio("predict", "--ckpt_path", LAST, "--data.images", path, "--output=out") == 2
        assert says in capsys.readouterr().err


def test_images_that_cannot_be_read_are_refused_before_one_is_predicted(segfolio, run, photos, capsys):
    assert segfolio("predict", "--ckpt_path", LAST, "--data.images", photos, "--output=out") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"2 images empty, cut short or of no known format (copy again): {photos}/cut.png, {photos}/text.jpg" in said
    assert "`--skip` goes on without them" in said
    assert files("out") == set()


def test_images_that_cannot_be_read_are_skipped_where_that_is_asked_for(segfolio, run, photos, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("segfolio.data.datasets.image_folder.rank_zero_warn", said.append)
    assert segfolio("predict", "--ckpt_path", LAST, "--data.images", photos, "--output=out", "--skip") == 0
    assert {path.name for path in Path("out/ids").iterdir()} == {f"{i}.png" for i in range(4)}
    assert len(said) == 1
    assert said[0].startswith("2 images left out: ")
    assert "cut.png" in said[0]
    assert "text.jpg" in said[0]


def test_images_of_a_good_header_and_damaged_pixels_are_skipped(segfolio, run, photos, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("segfolio.data.datasets.image_folder.rank_zero_warn", said.append)
    noise = torch.randint(256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    for name in ("damaged.png", "compressed.tif"):
        Image.fromarray(noise).save(photos / name, compression="tiff_deflate")
        data = bytearray((photos / name).read_bytes())
        data[1000:1100] = bytes(100)
        (photos / name).write_bytes(data)
    assert segfolio("predict", "--ckpt_path", LAST, "--data.images", photos, "--output=out", "--skip") == 0
    assert {path.name for path in Path("out/ids").iterdir()} == {f"{i}.png" for i in range(4)}
    assert said[0].startswith("4 images left out: ")
    assert "damaged.png cannot be decoded" in said[0]


def test_skipping_is_of_predicted_images(segfolio, run, photos, capsys):
    assert segfolio("test", "--ckpt_path", LAST, "--skip") == 2
    assert "`segfolio predict --data.images FOLDER`" in capsys.readouterr().err
    for path in photos.glob("?.png"):
        path.write_bytes(b"")
    assert segfolio("predict", "--ckpt_path", LAST, "--data.images", photos, "--output=out", "--skip") == 2
    assert "none of 6 images can be read" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--model.help", "segfolio.families.PerPixel"), ("--model.help=PerPixel",)])
def test_help_on_a_class_needs_no_experiment(segfolio, capsys, arguments):
    assert segfolio("fit", *arguments) == 0
    assert "--model.architecture" in capsys.readouterr().out


# Going on within an epoch, n 28.


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_goes_on_within_an_epoch_says_nothing_against_it(tmp_path, monkeypatch, workers):
    """The epoch has four steps; the data module goes on at the very sample."""
    monkeypatch.chdir(tmp_path)
    assert main([*map(str, QUICK), "--output=run", f"--data.num_workers={workers}"]) == 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        arguments = ["--ckpt_path=last", "--output=run", "--trainer.max_steps=2", f"--data.num_workers={workers}"]
        assert main([*map(str, QUICK), *arguments]) == 0
    assert torch.load(LAST, weights_only=True)["global_step"] == 2
    assert [str(each.message) for each in said if "resum" in str(each.message)] == []
    assert any("planned for 600 steps" in str(each.message) for each in said)  # what there is to say is heard


# Tests of several kinds, n 27.

SLIDE = '{"class_path": "segfolio.inference.protocols.Slide", "init_args": {"window": 32, "stride": 32}}'


@pytest.mark.parametrize(
    ("other", "folder", "says"),
    [
        (["--model.init_args.test={protocol: ms_pspnet}"], "test-protocol=ms_pspnet", "images of test, last.ckpt; sc"),
        ([f"--model.init_args.test.protocol={SLIDE}"], "test-Slide-window=32-stride=32-*", "windows of 32x32"),
        (["--data.test_split=val"], "test-test_split=val", "5 images of val, last.ckpt; whole image"),
        (["--trainer.limit_test_batches=1", "--data.eval_batch_size=2"], "test-limit_test_batches=1", "2 of 5 images"),
        (["--ckpt_path=run/checkpoints/best.ckpt"], "test-best", "5 images of test, best.ckpt; whole image"),
    ],
    ids=["preset", "class", "split", "part", "checkpoint"],
)
def test_what_is_tested_otherwise_is_kept_beside_and_told(segfolio, capsys, other, folder, says):
    assert segfolio(*VALIDATED) == 0
    assert segfolio("test", "--ckpt_path", LAST) == 0
    figures = Path("run/test/figures.json").read_text()
    capsys.readouterr()
    assert segfolio("test", "--ckpt_path", LAST, *other) == 0
    out = capsys.readouterr().out
    assert says in out[: out.index("class ")]
    (found,) = Path("run").glob(f"{folder}/figures.json")
    assert found.read_text() != figures
    assert Path("run/test/figures.json").read_text() == figures


def test_what_changes_no_figure_is_the_same_test(segfolio, run):
    for arguments in ((), ("--data.eval_batch_size=1", "--trainer.log_every_n_steps=3", "--trainer.logger=true")):
        assert segfolio("test", "--ckpt_path", LAST, *arguments) == 0
        assert segfolio("validate", "--ckpt_path", LAST, *arguments) == 0
    assert {path.name for path in run.iterdir() if path.is_dir()} == {"checkpoints", "test", "validate"}


# Callbacks that would change the recipe, n 35.

CALLBACK = "--trainer.callbacks"


@pytest.mark.parametrize(
    ("callback", "says"),
    [
        (("LearningRateFinder",), "LearningRateFinder would train at another learning rate than the config says"),
        (("BatchSizeFinder",), "raise --trainer.accumulate_grad_batches"),
        (("StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.001"), "ema.EMA, which counts steps"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_callback_that_does_not_fit_is_refused_with_what_does(segfolio, capsys, callback, says):
    name, *arguments = callback
    assert segfolio(*QUICK, f"{CALLBACK}+={name}", *arguments) == 2
    assert says in capsys.readouterr().err
    assert files() == set()


def test_weights_are_averaged_by_epochs_and_by_steps(segfolio):
    """What `last.ckpt` holds are the averages: with a learning rate of 1 the last weights lie elsewhere."""
    large = (*QUICK, "--model.init_args.optimizer.init_args.lr=1")
    epochs = ("--trainer.max_epochs=2", "--trainer.max_steps=-1")
    swa = (f"{CALLBACK}+=StochasticWeightAveraging", f"{CALLBACK}.swa_lrs=1", f"{CALLBACK}.swa_epoch_start=1")
    ema = (f"{CALLBACK}+=EMAWeightAveraging", f"{CALLBACK}.decay=0.9")
    steps = ("--trainer.max_steps=8",)  # of two epochs
    assert segfolio(*large, *steps, "--output=plain") == 0
    for name, arguments in (("swa", (*epochs, *swa)), ("ema", (*steps, *ema))):
        assert segfolio(*large, *arguments, f"--output={name}") == 0
        averaged, last = (torch.load(f"{run}/{LAST[4:]}", weights_only=True)["state_dict"] for run in (name, "plain"))
        weights = [key for key in last if key.endswith("weight")]
        assert weights
        assert not any(torch.equal(averaged[key], last[key]) for key in weights)
        assert segfolio("test", f"--ckpt_path={name}/checkpoints/last.ckpt") == 0


@pytest.mark.parametrize(
    "timed", [["--trainer.max_time=00:00:00:01"], [f"{CALLBACK}+=Timer", f"{CALLBACK}.duration=00:00:00:01"]]
)
def test_a_training_whose_time_is_over_ends_between_two_steps_and_goes_on(segfolio, timed):
    arguments = ("--trainer.accumulate_grad_batches=2", "--trainer.max_steps=100000", "--output=run")
    assert segfolio(*FIT, "--trainer.logger=false", *arguments, *timed) == 0
    checkpoint = torch.load(LAST, weights_only=True)
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"]
    assert batches == 2 * checkpoint["global_step"] > 0
    more = ("--trainer.max_time=00:01:00:00", f"--trainer.max_steps={checkpoint['global_step'] + 1}")
    assert segfolio("fit", "--ckpt_path", LAST, "--trainer.callbacks=null", *more) == 0
    assert torch.load(LAST, weights_only=True)["global_step"] == checkpoint["global_step"] + 1


# A start that failed, n 33.


@pytest.mark.parametrize("mistake", ["--trainer.strategy=foo", "--trainer.devices=-5"])
def test_a_start_that_failed_leaves_no_folder(segfolio, mistake):
    assert segfolio(*QUICK, mistake) == 2
    assert not list(Path("runs/unet/shapes_small").iterdir())
    assert segfolio(*QUICK, mistake, "--output=mine") == 2
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    "mistake",
    [
        ["--data.batch_size=64"],
        ["--data.batch_size=4", "--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3"],
        ["--model.init_args.scheduler=torch.optim.lr_scheduler.LinearLR", "--model.init_args.scheduler.start_factor=3"],
    ],
)
def test_a_run_that_came_to_no_step_leaves_no_gap_in_the_numbers(segfolio, mistake):
    arguments = ("fit", *SMALL, "--data.batch_size=2", "--trainer.max_steps=1", "--trainer.num_sanity_val_steps=0")
    assert segfolio(*arguments, *mistake) == 2
    assert not list(Path("runs/unet/shapes_small").iterdir())
    assert segfolio(*arguments, "--trainer.limit_val_batches=1") == 0
    assert {path.name for path in Path("runs/unet/shapes_small").iterdir()} == {"0", "latest"}


def test_a_folder_that_was_there_stays(segfolio):
    Path("mine").mkdir()
    assert segfolio(*QUICK, "--trainer.strategy=foo", "--output=mine") == 2
    assert Path("mine").is_dir()


# A run that moves to another machine, a test without a checkpoint.


def test_a_run_of_a_gpu_is_tested_and_predicted_where_there_is_none(segfolio, monkeypatch, capsys):
    assert segfolio(*QUICK, "--output=run") == 0
    config = Path("run/config.yaml")
    content = yaml.safe_load(config.read_text())
    content["trainer"] |= {"accelerator": "gpu", "devices": 4, "strategy": "ddp", "num_nodes": 2}
    config.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert segfolio("test", "--ckpt_path", LAST) == 0, capsys.readouterr().err
    assert segfolio("predict", "--ckpt_path", LAST) == 0
    assert segfolio("test", "--ckpt_path", LAST, "--trainer.accelerator=gpu") == 2
    assert "trainer: " in capsys.readouterr().err


def test_a_test_without_weights_says_so(segfolio, monkeypatch):
    warned: list[str] = []
    monkeypatch.setattr("lightning.pytorch.utilities.rank_zero.rank_zero_warn", warned.append)
    assert segfolio("test", *QUICK[1:], "--trainer.limit_test_batches=1", "--output=run") == 0
    assert warned == ["neither --ckpt_path nor weights are given: the network is as it was initialised"]
