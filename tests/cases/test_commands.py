"""What a user mistypes: one sentence that names the key, what is wrong and what would be right; exit status 2."""

from pathlib import Path

import pytest

from tests.test_cli import SMALL

UNET = "model.init_args.architecture.init_args"
SCHEDULER = "--model.init_args.scheduler"
FIT = ("fit", *SMALL, "--trainer.logger=false", "--trainer.max_steps=1", "--output=run")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data.batch_size=0"], "data.batch_size is 0; give at least 1"),
        (["--data.batch_size=-3"], "data.batch_size is -3; give at least 1"),
        (["--data.eval_batch_size=0"], "data.eval_batch_size is 0; give at least 1"),
        (["--data.num_workers=-1"], "data.num_workers is -1; give at least 0"),
        (["--data.batch_size=null"], "data.batch_size: Expected a int"),
        (["--model.init_args.optimizer.init_args.lr=-0.1"], "model.optimizer: Invalid learning rate: -0.1"),
        (
            ["--model.init_args.optimizer.init_args.weight_decay=-1"],
            "Invalid weight_decay value: -1.0",
        ),
        (["--model.init_args.optimizer.init_args.lr=abc"], "model.optimizer.lr: Expected a float"),
        (["--trainer.max_steps=-5"], "trainer: `max_steps` must be a non-negative integer or -1"),
        (["--trainer.max_epochs=-7"], "trainer: `max_epochs` must be a non-negative integer or -1"),
        (["--trainer.devices=0"], "trainer: `Trainer(devices='0')` value is not a valid input using cpu accelerator"),
        (["--trainer.strategy=foo"], "trainer: You selected an invalid strategy name: `strategy='foo'`"),
        (["--trainer.gradient_clip_algorithm=foo"], "trainer: `gradient_clip_algorithm` foo is invalid"),
        (["--trainer.limit_val_batches=-1"], "trainer: You have passed invalid value -1 for limit_val_batches"),
        (["--trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches is 0; give at least 1"),
        (["--trainer.val_check_interval=0"], "trainer.val_check_interval is 0; give more than 0"),
        (["--trainer.log_every_n_steps=0"], "trainer.log_every_n_steps is 0; give at least 1"),
        (["--seed_everything=-1"], "seed_everything is -1; give at least 0"),
        (["--model.init_args.architecture.init_args.in_channels=4"], "but the images have 3 channels"),
        (["--model.init_args.optimzer=x"], "PerPixel takes no 'optimzer'; did you mean 'optimizer'?; it takes labels"),
        (
            ["--model.init_args.losses.ce.class_path=segfolio.losses.Crosentropy"],
            "model.losses: there is no class segfolio.losses.Crosentropy; did you mean 'CrossEntropy'?",
        ),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/mIou"],
            "EarlyStopping watches 'val/mIou', which is not logged; did you mean 'val/mIoU'?",
        ),
        (
            ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=foo"],
            "ModelCheckpoint watches 'foo', which is not logged; it can watch val/",
        ),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/mIoU"],
            "EarlyStopping takes the minimum of val/mIoU, which is better higher; give it mode: max",
        ),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=train/lss"],
            "EarlyStopping watches 'train/lss', which is not logged; did you mean 'train/loss'?",
        ),
        (
            ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=train/loss_cee"],
            "ModelCheckpoint watches 'train/loss_cee', which is not logged; did you mean 'train/loss_ce'?",
        ),
        (
            ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=lr-AdamW"],
            "which is not logged; it can",
        ),
        ([f"--{UNET}.width=0"], "model.architecture cannot be built with width: 0: "),
        ([f"--{UNET}.width=-3"], "model.architecture cannot be built with width: -3: "),
        ([f"--{UNET}.in_channels=0"], "with in_channels: 0; give the channels of the images, at least 1"),
        ([f"--{UNET}.dropout=3"], "model.architecture cannot be built: dropout probability has to be between 0 and 1"),
        (
            [
                "--model.init_args.architecture=segfolio.architectures.encoder_decoder.segnet.SegNetBasic",
                f"--{UNET}.width=0",
            ],
            "SegNetBasic with width: 0 has layers without a channel (encoder.0.0.weight); give widths of at least 1",
        ),
        (["--model.init_args.losses={}"], "model.losses is empty"),
        (["--model.init_args.losses.ce.init_args.label_smoothing=3"], "label_smoothing is 3"),
        (
            [
                "--model.init_args.scheduler=torch.optim.lr_scheduler.LinearLR",
                "--model.init_args.scheduler.init_args.start_factor=3",
            ],
            "model.scheduler: Starting multiplicative factor expected",
        ),
        (
            [f"{SCHEDULER}=torch.optim.lr_scheduler.StepLR", f"{SCHEDULER}.init_args.step_size=0"],
            "model.scheduler: there are steps that cannot be computed with step_size: 0 (",
        ),
        (
            [f"{SCHEDULER}=torch.optim.lr_scheduler.CosineAnnealingLR", f"{SCHEDULER}.init_args.T_max=0"],
            "model.scheduler: there are steps that cannot be computed with T_max: 0",
        ),
        (
            [
                f"{SCHEDULER}=torch.optim.lr_scheduler.ConstantLR",
                f"{SCHEDULER}.init_args={{factor: 0, total_iters: 500}}",
            ],
            "model.scheduler: there are steps that cannot be computed with factor: 0.0 (",
        ),
        (
            [
                f"{SCHEDULER}=torch.optim.lr_scheduler.CyclicLR",
                f"{SCHEDULER}.init_args={{base_lr: 0.1, max_lr: 0.2, step_size_up: 0, cycle_momentum: false}}",
            ],
            "model.scheduler: there are steps that cannot be computed with step_size_up: 0 (",
        ),
        (
            [
                f"{SCHEDULER}=torch.optim.lr_scheduler.OneCycleLR",
                f"{SCHEDULER}.init_args={{max_lr: 0.1, total_steps: 5}}",
                "--trainer.max_steps=6",
            ],
            "OneCycleLR ends after 5 steps, but the trainer takes 6; give total_steps the same number",
        ),
        (
            [f"{SCHEDULER}=torch.optim.lr_scheduler.ReduceLROnPlateau"],
            "ReduceLROnPlateau goes by a figure of validation, but schedules here step with the optimiser",
        ),
        (
            ["--model.init_args.optimizer.init_args={fused: true, foreach: true}"],
            "model.optimizer: `fused` and `foreach` cannot be `True` together",
        ),
        (
            ["--model.init_args.optimizer=torch.optim.SparseAdam"],
            "model.optimizer: SparseAdam does not support dense gradients",
        ),
        (["--model.init_args.test=null"], "model.test is null, which it cannot be; leave it out"),
        (["--model.test.protocol=null"], "model.test.protocol is null, which it cannot be; leave it out"),
        (["--model.init_args.metrics", "null"], "model.metrics is null, which it cannot be; leave it out"),
        (["--model.init_args.parameters=null"], "model.parameters is null, which it cannot be; leave it out"),
        (["--trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val is -1; give at least 0"),
        (["--trainer.callbacks+=BackboneFinetuning"], "by model.init_args.parameters.lr_factors"),
        (
            ["--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={0: 2}"],
            "give one number to --trainer.accumulate_grad_batches",
        ),
        (["--trainer.callbacks+=DeviceStatsMonitor"], "trainer: Cannot use `DeviceStatsMonitor` callback with"),
        (["--trainer.callbacks+=LearningRateMonitor"], "trainer: Cannot use `LearningRateMonitor` callback with"),
        (
            ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=-5"],
            "ModelCheckpoint: Invalid value for save_top_k=-5",
        ),
    ],
)
def test_a_value_that_cannot_be(segfolio, capsys, arguments, says):
    assert segfolio(*FIT, *arguments) == 2
    *_, sentence = capsys.readouterr().err.strip().splitlines()
    assert says in sentence
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [f"{SCHEDULER}=torch.optim.lr_scheduler.OneCycleLR", f"{SCHEDULER}.init_args={{max_lr: 0.1, total_steps: 3}}"],
        ["--model.init_args.optimizer=torch.optim.LBFGS"],
        ["--model.init_args.optimizer.init_args.fused=true"],
        ["--model.init_args.test.protocol=slide", "--model.test.also=null"],
        ["--model.init_args.parameters.lr_factors", "null", "--model.init_args.optimizer.init_args.foreach", "null"],
    ],
    ids=["OneCycleLR", "LBFGS", "fused", "no further protocol", "no rule"],
)
def test_what_can_be_is_trained(segfolio, capsys, arguments):
    assert segfolio(*FIT, "--trainer.max_steps=3", *arguments) == 0, capsys.readouterr().err


def test_what_early_stopping_watches_is_logged(segfolio, capsys):
    watched = ("--trainer.callbacks.monitor=val/mIoU", "--trainer.callbacks.mode=max")
    assert segfolio(*FIT, "--trainer.callbacks+=EarlyStopping", *watched) == 0, capsys.readouterr().err


def test_what_a_run_logs_can_be_watched(segfolio, capsys):
    """The names of losses, and with a logger those of learning rates."""
    for monitor in ("train/loss", "train/loss_ce", "train/data_wait", "lr-AdamW"):
        watched = ("--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.monitor={monitor}")
        loggers = "--trainer.logger+=CSVLogger", "--trainer.logger.save_dir=other"
        assert segfolio("fit", *SMALL, *loggers, *watched, "--trainer.fast_dev_run=1") == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\xff", "x.yaml cannot be read as YAML"),
        (b"a: [", "x.yaml cannot be read as YAML"),
        (b"text", "x.yaml holds 'text', expected the keys paper, model, data, trainer"),
        (None, "x.yaml cannot be read as YAML: [Errno 2] No such file or directory"),
    ],
    ids=["a picture", "broken", "a text", "nothing"],
)
@pytest.mark.parametrize("command", ["fit", "replicate", "inspect"])
def test_a_config_that_is_none(segfolio, capsys, command, content, says):
    if content is not None:
        Path("x.yaml").write_bytes(content)
    assert segfolio(command, *(["-c"] if command == "fit" else []), "x.yaml") == 2
    *_, sentence = capsys.readouterr().err.strip().splitlines()
    assert says.partition(",")[0] in sentence


def test_an_output_that_is_a_file_stays_as_it_is(segfolio, capsys):
    Path("afile").write_text("mine")
    assert segfolio("fit", *SMALL, "--output=afile") == 2
    assert "afile is a file; give a folder to write to (--output)" in capsys.readouterr().err
    assert Path("afile").read_text() == "mine"
    assert segfolio("fit", *SMALL, "--output=afile/run") == 2
    assert "segfolio: afile/run cannot be made" in capsys.readouterr().err


def test_a_number_is_no_class(segfolio, capsys):
    assert segfolio("fit", *SMALL, "--data.batch_size=1.5") == 2
    assert "data.batch_size: Expected a int. Got value: 1.5" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["CocoInstances", "segfolio.data.datasets.CocoInstances"])
def test_a_dataset_is_inspected_without_a_config(segfolio, real_data, capsys, dataset):
    root = real_data / "dsb2018"
    assert segfolio("inspect", "--data", dataset, "--data.root", root) == 0, capsys.readouterr()
    assert "nucle" in capsys.readouterr().out
    assert segfolio("inspect") == 2
    assert "needs CONFIG, or --data DATASET and --data.root DIR" in capsys.readouterr().err
