"""One experiment: a config, the loop that it asks for, and the folder that the run leaves."""

import json
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import set_parsing_settings
from jsonargparse._util import import_object
from lightning.fabric.utilities.enums import LightningEnum
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.model_helpers import is_overridden

from segfolio import initial_weights
from segfolio.arguments import with_config_of_run
from segfolio.callbacks.checkpoints import Checkpoints
from segfolio.callbacks.data_wait import DataWait
from segfolio.callbacks.guard import NonFiniteGuard
from segfolio.callbacks.predictions import PredictionWriter
from segfolio.callbacks.progress import ProgressBar
from segfolio.callbacks.randomness import StepSeed
from segfolio.callbacks.record import RunRecord
from segfolio.callbacks.unfit import check_callbacks
from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.image_space import ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.earlier_configs import take_earlier_configs
from segfolio.empty_keys import keep_empty_keys
from segfolio.errors import SegfolioError
from segfolio.families.base import Family
from segfolio.families.checkpoint import image_space_of, labels_of, read_checkpoint
from segfolio.families.trained import Trained
from segfolio.figure import of_key
from segfolio.files import write_atomically
from segfolio.ledger.compare import paper_and_ours
from segfolio.ledger.paper import Paper
from segfolio.ledger.results import whole_split
from segfolio.mistakes import check_numbers, explain, told_by_class, told_of
from segfolio.monitors import check_main_metric, check_monitors
from segfolio.quiet import quiet
from segfolio.replaced import drop_arguments_of_replaced_classes
from segfolio.resume import check_resumable, of_whole_steps, with_defaults
from segfolio.runs import Place, experiment_name, run_of
from segfolio.table import table
from segfolio.tested import folder_of
from segfolio.tracking import build_loggers
from segfolio.viz.callback import PredictionPictures

# they come whole from the dataset; else their fields would be asked for in the config
set_parsing_settings(subclasses_enabled=[LabelSpace, ImageSpace])
# some defaults of Lightning's callbacks are of it, and a config is written with its defaults
yaml.SafeDumper.add_multi_representer(LightningEnum, lambda dumper, value: dumper.represent_str(value.value))

keep_empty_keys()
take_earlier_configs()
drop_arguments_of_replaced_classes()


class RunConfig(SaveConfigCallback):
    """Keeps the resolved config in the run's folder, whichever loggers there are."""

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        text = self.parser.dump(self.config, skip_none=False, skip_unset=False)
        write_atomically(Path(trainer.default_root_dir) / self.config_filename, text.encode())


class Experiment(LightningCLI):
    """`segfolio fit | validate | test | predict`.

    Adds to LightningCLI the `paper:` block, the run's folder with its loggers and callbacks, and the link that
    carries labels and image space of the dataset to the family.

    Args:
        arguments: of the command line.
        place: where it writes.
    """

    def __init__(self, arguments: Sequence[str], place: Place) -> None:
        self.loop, self.place = arguments[0], place
        super().__init__(
            Trained,
            DataModule,
            RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
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
            raise SegfolioError(explain(str(error), self._parser(args[0]))) from error
        check_numbers(self.config[self.loop])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--paper", type=Paper | None, default=None, help="The row that this experiment replicates.")
        parser.add_argument(
            "--output",
            type=str | None,
            default=None,
            help="Folder to write to; by default runs/<paper>/<variant>/<n>, and test/ or predictions/ inside it.",
        )
        parser.add_argument(
            "--skip", action="store_true", help="Leave out those data.images that cannot be read, and name them."
        )
        parser.add_argument(
            "--resume.allow",
            type=str,
            default="",
            help="Keys, divided by commas, that may differ from those of the checkpoint that a fit goes on from.",
        )
        parser.link_arguments("data", "model.init_args.labels", compute_fn=self._labels, apply_on="instantiate")
        parser.link_arguments("data.image_space", "model.init_args.image_space", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_a_number)

    def _labels(self, data: DataModule) -> LabelSpace | None:
        """Those of the dataset, which need not have any where the network learns without."""
        return data.labels if issubclass(import_object(self.config[self.loop].model.class_path), Family) else None

    def before_instantiate_classes(self) -> None:
        # of what was asked for, wherever it is written to
        self.resolved = {**self._plain(self.config), "output": None}
        self.record = RunRecord(self.name, self.resolved)
        config = self.config[self.subcommand]
        if self.subcommand != "fit":
            self.save_config_callback = None
            (initial_weights.leave_out if config.ckpt_path else initial_weights.warn_of_none)(config.model.init_args)
        if self.subcommand in ("validate", "test"):
            config.verbose = False  # the table is ours
        if self.subcommand == "predict":
            config.return_predictions = False  # they are written as they come
            if config.data.images and config.ckpt_path:  # the checkpoint knows all that the dataset would tell
                checkpoint = read_checkpoint(Path(config.ckpt_path))
                config.data.images_labels = instance(labels_of(checkpoint))
                config.data.images_space = instance(
                    image_space_of(checkpoint) or ImageSpace(channels=len(config.model.init_args.mean))
                )

    def instantiate_classes(self) -> None:
        with told_by_class(self.config[self.loop]):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        self._check_model()
        given = self._get(self.config_init, "trainer")
        check_callbacks(given.callbacks or (), given)
        self.datamodule.skip_unreadable, self.datamodule.model = self._skips(), self.model
        limit = self._get(self.config_init, "trainer.limit_val_batches")
        self.datamodule.validates = limit != 0 and is_overridden("validation_step", self.model)
        self.datamodule.setup(str(self.subcommand))  # what is wrong with the files is said before a run is made
        folder, loggers = self._folder(), given.logger
        if loggers is None or loggers is True or isinstance(loggers, list):
            own = [] if self.subcommand == "predict" else build_loggers(folder, self.name, self.resolved)
            loggers = own + (loggers if isinstance(loggers, list) else [])
        wanted = {
            ProgressBar: given.enable_progress_bar is not False,
            Checkpoints: given.enable_checkpointing is not False,
            LearningRateMonitor: bool(loggers),
        }
        callbacks = list(given.callbacks or [])
        for callback in self.callbacks():
            if wanted.get(type(callback), True) and not any(isinstance(c, type(callback)) for c in callbacks):
                callbacks.append(callback)
        if self.subcommand == "fit":
            check_monitors(callbacks, self.model.declared, self.model.train_keys)
        with told_of("trainer"):
            return super().instantiate_trainer(default_root_dir=folder, logger=loggers, callbacks=callbacks, **kwargs)

    def _check_model(self) -> None:
        """The model has the step of the loop that is asked for, and the figures that are."""
        name = type(self.model).__name__
        step = {"validate": "validation_step", "test": "test_step", "predict": "predict_step"}.get(self.loop)
        if step and not is_overridden(step, self.model):
            raise SegfolioError(
                f"`segfolio {self.loop}` needs a {step}, which {name} does not have; write one, or start a training "
                "with labels from its checkpoint by --model.init_args.init_from"
            )
        check_main_metric(self.config[self.loop].model.init_args.get("main_metric"), self.model.declared)
        if paper := self._get(self.config_init, "paper"):
            paper.check_declared(self.model.declared)

    def _skips(self) -> bool:
        config = self.config[self.subcommand]
        if config.skip and (self.subcommand != "predict" or not config.data.images):
            raise SegfolioError("--skip is of `segfolio predict --data.images FOLDER`: it leaves out unreadable images")
        return bool(config.skip)

    def callbacks(self) -> list[Callback]:
        """What comes with every run, unless the config has its own of the kind or turns it off."""
        labelled = isinstance(self.model, Family)  # else nobody knows what its predictions are
        if self.subcommand == "predict":
            return [*([PredictionWriter()] if labelled else []), ProgressBar()]
        pictures = [PredictionPictures()] if labelled else []
        if self.subcommand != "fit":
            return [self.record, *pictures, ProgressBar()]
        learning_rate = LearningRateMonitor(logging_interval="step")
        return [
            self.record,
            StepSeed(self.datamodule.seed),
            NonFiniteGuard(),
            DataWait(),
            *pictures,  # before what logs at the start of a step: W&B takes entries in their order
            learning_rate,
            ProgressBar(),
            Checkpoints(),
        ]

    @property
    def name(self) -> str:
        files = self._get(self.config, "config") or []
        return experiment_name(Path(str(files[0])) if files else None)

    def _folder(self) -> Path:
        if self.place.inherited:
            return self.place.inherited
        config = self.config[self.subcommand]
        checkpoint = config.get("ckpt_path")
        run = run_of(Path(checkpoint)) if checkpoint else None
        output, config.output = config.output, None  # of this command, and not of those that read the config it leaves
        if config.trainer.fast_dev_run:
            return self.place.of_dry_run()
        if output:
            folder = Path(output)
            if self.subcommand == "fit" and not checkpoint and (folder / "config.yaml").exists():
                raise SegfolioError(
                    f"{folder} holds a run; go on with it by --ckpt_path last, or choose another --output"
                )
            return self.place.take(folder)
        if self.subcommand == "fit" or run is None:
            return self.place.take(run) if run else self.place.of_new_run(self.name)
        if self.subcommand == "predict":
            return self.place.take(run / "predictions")
        of_run = asked = self.record.config  # before what a checkpoint makes needless was left out of it
        with suppress(ArgumentError):  # of a version whose keys are not known any more
            of_run = self._plain(self.parser.parse_args([str(self.subcommand), "-c", str(run / "config.yaml")]))
        return self.place.take(run / folder_of(str(self.subcommand), Path(checkpoint), asked, of_run))

    def before_fit(self) -> None:
        self.datamodule.train_sampler(self.trainer)
        found = fingerprint(self.datamodule.split(self.datamodule.train_split))
        now = {**self.resolved, "processes": self.trainer.world_size, "data_fingerprint": found}
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints):
                callback.run = now
        config = self.config["fit"]
        if config.resume.allow and not config.ckpt_path:
            raise SegfolioError("--resume.allow is of a run that goes on; give its --ckpt_path, too, or leave it out")
        if config.ckpt_path and config.trainer.fast_dev_run:
            raise SegfolioError("a dry run (trainer.fast_dev_run) starts anew; leave out --ckpt_path")
        if config.ckpt_path:
            checkpoint = read_checkpoint(Path(config.ckpt_path))
            version = checkpoint.get("segfolio", {}).get("version", "0")
            then = with_defaults(checkpoint.get("run", {}), self._parser("fit"))
            allowed = list(filter(None, map(str.strip, config.resume.allow.split(","))))
            check_resumable(of_whole_steps(then, version, now, allowed), now, allowed)
            config.resume.allow = ""  # this time, and not for those that read the config it leaves
            for logger, calls in zip(self.trainer.loggers, checkpoint.get("history", ()), strict=False):
                if hasattr(logger, "rewind"):
                    logger.rewind(calls)

    def _plain(self, config: Any) -> dict[str, Any]:
        """A config with every default, as plain values."""
        return json.loads(self.parser.dump(config, format="json", skip_unset=False))[self.loop]

    def after_fit(self) -> None:
        self._say_where("run")

    def after_validate(self) -> None:
        self._report("val")

    def after_test(self) -> None:
        self._report("test")

    def after_predict(self) -> None:
        self._say_where("predictions")

    def _report(self, stage: str) -> None:
        """Print and keep what the evaluation found."""
        found = {k: float(v) for k, v in self.trainer.callback_metrics.items() if k.startswith(f"{stage}/")}
        declared = self.model.declared
        figures = whole_split(found, declared)
        of_classes = {k: v for k, v in found.items() if (f := of_key(k, declared)) and f.per_class}
        per_class = {k.split("/", 1)[1]: v for k, v in of_classes.items()}
        folder = Path(self.trainer.default_root_dir)
        if self.trainer.is_global_zero:
            write_atomically(folder / "figures.json", (json.dumps(found, indent=2) + "\n").encode())
        labels: LabelSpace | None = getattr(self.model, "labels", None)
        kinds = list(dict.fromkeys(k.split("/")[0] for k in per_class))
        names = dict.fromkeys((*(labels.names if labels else ()), *(k.partition("/")[2] for k in per_class)))
        rows = [
            (name, *(declared[f"{kind}/<class>"].text(per_class.get(f"{kind}/{name}")) for kind in kinds))
            for name in names
            if any(f"{kind}/{name}" in per_class for kind in kinds)
        ]
        columns = [declared[f"{kind}/<class>"].label(kind) for kind in kinds]
        if stage == "test":
            self._say(f"{self.record.protocol}\n")
        if rows:
            self._say(table(("class", *columns), rows, right=range(1, len(kinds) + 1)))
        paper = self._get(self.config_init, "paper")
        self._say("\n" + paper_and_ours(self.name, paper, figures, declared, self.record.caveat))
        self._say("")
        self._say_where("pictures and figures")

    def _say_where(self, what: str) -> None:
        dry = self.trainer.fast_dev_run  # type: ignore[attr-defined]
        self._say("a dry run: nothing is kept" if dry else f"{what}: {self.trainer.default_root_dir}")

    def _say(self, text: str) -> None:
        if self.trainer.is_global_zero:
            print(text)


def run(loop: str, arguments: Sequence[str]) -> None:
    """Run one of the loops: `fit`, `validate`, `test` or `predict`.

    Raises:
        SegfolioError: a user's mistake.
    """
    quiet()
    torch.set_float32_matmul_precision("high")
    with Place() as place:
        Experiment(with_config_of_run([loop, *arguments]), place)


def instance(given: Any) -> dict[str, Any]:
    """A dataclass as a config has it."""
    return {"class_path": f"{type(given).__module__}.{type(given).__qualname__}", "init_args": asdict(given)}


fit, validate, test, predict = (partial(run, loop) for loop in ("fit", "validate", "test", "predict"))


def _a_number(seed: int | bool) -> int:
    if isinstance(seed, bool):
        raise SegfolioError(f"seed_everything is {str(seed).lower()}; give a number, such as 0: every run is seeded")
    return seed
