"""One experiment: a config, the loop that it asks for, and the folder that the run leaves."""

import json
import os
from argparse import ArgumentError
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import set_parsing_settings
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from segfolio.arguments import with_config_of_run
from segfolio.callbacks.checkpoints import Checkpoints
from segfolio.callbacks.data_wait import DataWait
from segfolio.callbacks.guard import NonFiniteGuard
from segfolio.callbacks.predictions import PredictionWriter
from segfolio.callbacks.progress import ProgressBar
from segfolio.callbacks.randomness import StepSeed
from segfolio.callbacks.record import RunRecord
from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.errors import SegfolioError
from segfolio.families.base import Family
from segfolio.families.checkpoint import read_checkpoint
from segfolio.files import write_atomically
from segfolio.ledger.compare import paper_and_ours, percent
from segfolio.ledger.paper import UNITS, Paper, is_figure
from segfolio.mistakes import explain
from segfolio.quiet import quiet
from segfolio.resume import check_resumable
from segfolio.runs import experiment_name, is_first_process, new_run, run_of
from segfolio.table import table
from segfolio.tracking import build_loggers
from segfolio.viz.callback import PredictionPictures

# a label space comes whole from the dataset; else its fields would be asked for in the config
set_parsing_settings(subclasses_enabled=[LabelSpace])

_RUN = "SEGFOLIO_RUN"
"""Tells the processes that a multi-process run starts which folder the first one made."""


class Experiment(LightningCLI):
    """`segfolio fit | validate | test | predict`.

    Adds to LightningCLI the `paper:` block, the run's folder with its loggers and callbacks, and the link that
    carries the dataset's labels to the family.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.loop = arguments[0]
        super().__init__(
            Family,
            DataModule,
            SaveConfigCallback,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "use_distributed_sampler": False,  # the data module shards
                "log_every_n_steps": 10,
                "enable_model_summary": False,
            },
            seed_everything_default=0,
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={
                "exit_on_error": False,
                "allow_abbrev": False,  # --trainer.max_step is a mistake
                self.loop: {"exit_on_error": False},
            },
            args=list(arguments),
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The loop that is asked for: the parser of each takes as long as parsing."""
        return {self.loop: super().subcommands()[self.loop]}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            keys = (action.dest for action in self._parser(args[0])._actions)
            raise SegfolioError(explain(str(error), keys)) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--paper", type=Paper | None, default=None, help="The row that this experiment replicates.")
        parser.add_argument(
            "--output",
            type=str | None,
            default=None,
            help="Folder to write to; by default runs/<paper>/<variant>/<n>, and test/ or predictions/ inside it.",
        )
        parser.add_argument(
            "--resume.allow",
            type=str,
            default="",
            help="Keys, divided by commas, that may differ from those of the checkpoint that a fit goes on from.",
        )
        parser.link_arguments("data.labels", "model.init_args.labels", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_a_number)

    def before_instantiate_classes(self) -> None:
        asked = json.loads(self.parser.dump(self.config, format="json", skip_unset=False))[self.loop]
        self.resolved = {**asked, "output": None}  # with every default, as plain values, wherever it is written to
        self.record = RunRecord(self.name, self.resolved)
        config = self.config[self.subcommand]
        if self.subcommand != "fit":
            self.save_config_callback = None
            if config.ckpt_path:  # the checkpoint holds the weights: none to be fetched first
                model = config.model.init_args
                for arguments, key in ((model, "init_from"), (model.architecture.init_args, "weights")):
                    if key in arguments:
                        arguments[key] = None
        if self.subcommand in ("validate", "test"):
            config.verbose = False  # the table is ours
        if self.subcommand == "predict":
            config.return_predictions = False  # they are written as they come
            if config.data.images and config.ckpt_path:  # the checkpoint knows all that the dataset would tell
                stored = read_checkpoint(Path(config.ckpt_path))["segfolio"]
                config.data.images_labels = {
                    "class_path": "segfolio.data.labels.LabelSpace",
                    "init_args": stored["labels"],
                }
                config.data.images_channels = len(config.model.init_args.mean)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        self.datamodule.setup(str(self.subcommand))  # what is wrong with the files is said before a run is made
        folder, given = self._folder(), self._get(self.config_init, "trainer")
        loggers = given.logger
        if loggers is None or loggers is True:
            loggers = [] if self.subcommand == "predict" else build_loggers(folder, self.name, self.resolved)
        wanted = {
            ProgressBar: given.enable_progress_bar is not False,
            Checkpoints: given.enable_checkpointing is not False,
            LearningRateMonitor: bool(loggers),
        }
        callbacks = list(given.callbacks or [])
        for callback in self.callbacks():
            if wanted.get(type(callback), True) and not any(isinstance(c, type(callback)) for c in callbacks):
                callbacks.append(callback)
        return super().instantiate_trainer(default_root_dir=folder, logger=loggers, callbacks=callbacks, **kwargs)

    def callbacks(self) -> list[Callback]:
        """What comes with every run, unless the config has its own of the kind or turns it off."""
        if self.subcommand == "predict":
            return [PredictionWriter(), ProgressBar()]
        if self.subcommand != "fit":
            return [self.record, PredictionPictures(), ProgressBar()]
        learning_rate = LearningRateMonitor(logging_interval="step")
        return [
            self.record,
            StepSeed(self.datamodule.seed),
            NonFiniteGuard(),
            DataWait(),
            learning_rate,
            PredictionPictures(),
            ProgressBar(),
            Checkpoints(),
        ]

    @property
    def name(self) -> str:
        files = self._get(self.config, "config") or []
        return experiment_name(Path(str(files[0])) if files else None)

    def _folder(self) -> Path:
        if _RUN in os.environ:
            return Path(os.environ[_RUN])
        config = self.config[self.subcommand]
        checkpoint = config.get("ckpt_path")
        run = run_of(Path(checkpoint)) if checkpoint else None
        if config.output:
            folder = Path(config.output)
            if self.subcommand == "fit" and not checkpoint and (folder / "config.yaml").exists():
                raise SegfolioError(
                    f"{folder} holds a run; go on with it by --ckpt_path last, or choose another --output"
                )
        elif self.subcommand == "fit" or run is None:
            folder = run or new_run(self.name)
        else:
            folder = run / {"predict": "predictions"}.get(str(self.subcommand), str(self.subcommand))
        if is_first_process():
            folder.mkdir(parents=True, exist_ok=True)
        config.output = None  # of this command, and not of those that read the config it leaves
        os.environ[_RUN] = str(folder)
        return folder

    def before_fit(self) -> None:
        self.datamodule.train_sampler(self.trainer)
        found = fingerprint(self.datamodule.split(self.datamodule.train_split))
        now = {**self.resolved, "processes": self.trainer.world_size, "data_fingerprint": found}
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints):
                callback.run = now
        config = self.config["fit"]
        if config.ckpt_path:
            checkpoint = read_checkpoint(Path(config.ckpt_path))
            check_resumable(checkpoint.get("run", {}), now, config.resume.allow.split(","))
            config.resume.allow = ""  # this time, and not for those that read the config it leaves
            for logger, calls in zip(self.trainer.loggers, checkpoint.get("history", ()), strict=False):
                if hasattr(logger, "rewind"):
                    logger.rewind(calls)

    def after_fit(self) -> None:
        self._say(f"run: {self.trainer.default_root_dir}")

    def after_validate(self) -> None:
        self._report("val")

    def after_test(self) -> None:
        self._report("test")

    def after_predict(self) -> None:
        self._say(f"predictions: {self.trainer.default_root_dir}")

    def _report(self, stage: str) -> None:
        """Print and keep what the evaluation found."""
        found = {k: float(v) for k, v in self.trainer.callback_metrics.items() if k.startswith(f"{stage}/")}
        figures = {k: v for k, v in found.items() if k.count("/") == 1 or is_figure(k)}
        per_class = {k.split("/", 1)[1]: v for k, v in found.items() if k not in figures}
        folder = Path(self.trainer.default_root_dir)
        if self.trainer.is_global_zero:
            write_atomically(folder / "figures.json", (json.dumps(found, indent=2) + "\n").encode())
        kinds = list(dict.fromkeys(k.split("/")[0] for k in per_class))
        names = dict.fromkeys((*self.model.labels.names, *(k.partition("/")[2] for k in per_class)))
        rows = [
            (name, *(_cell(kind, per_class.get(f"{kind}/{name}")) for kind in kinds))
            for name in names
            if any(f"{kind}/{name}" in per_class for kind in kinds)
        ]
        self._say(table(("class", *kinds), rows, right=range(1, len(kinds) + 1)))
        self._say("\n" + paper_and_ours(self.name, self._get(self.config_init, "paper"), figures, self.record.caveat))
        self._say(f"\npictures and figures: {folder}")

    def _say(self, text: str) -> None:
        if self.trainer.is_global_zero:
            print(text)


def run(loop: str, arguments: Sequence[str]) -> None:
    """Run one of the loops: `fit`, `validate`, `test` or `predict`.

    Raises:
        SegfolioError: a user's mistake.
    """
    started_here = _RUN not in os.environ
    quiet()
    torch.set_float32_matmul_precision("high")
    try:
        Experiment(with_config_of_run([loop, *arguments]))
    finally:
        if started_here:
            os.environ.pop(_RUN, None)


fit, validate, test, predict = (partial(run, loop) for loop in ("fit", "validate", "test", "predict"))


def _cell(kind: str, value: float | None) -> str:
    """Percent, or as it is where the figure is no ratio."""
    return f"{value:.1f}" if value is not None and kind in UNITS else percent(value)


def _a_number(seed: int | bool) -> int:
    if isinstance(seed, bool):
        raise SegfolioError(f"seed_everything is {str(seed).lower()}; give a number, such as 0: every run is seeded")
    return seed
