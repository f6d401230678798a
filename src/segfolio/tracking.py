"""Where a run's scalars and pictures go: a CSV always, Weights & Biases online or offline."""

import csv
import uuid
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

INIT_TIMEOUT = 30.0
"""Seconds after which W&B counts as out of reach."""


def build_loggers(
    run_dir: Path, name: str, config: dict[str, Any] | None = None, project: str = "segfolio"
) -> list[Logger]:
    """`<run_dir>/metrics.csv` and a Weights & Biases run whose files are in `<run_dir>/wandb`.

    W&B is online where an API key is found (environment, netrc or W&B's settings) and offline where none is
    or the server is out of reach; `WANDB_MODE` decides if it is set. It never asks. Both begin when the
    first thing is logged, on the first process alone.

    Both can `rewind(calls)` before a run goes on from a checkpoint: their history then continues behind the
    first `calls` entries, which is how many they had (`calls`) when that checkpoint was written.

    Args:
        name: of the run in W&B.
        config: shown by W&B as the run's configuration.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    return [MetricsFile(run_dir), Wandb(run_dir, name, project, config)]


class MetricsFile(CSVLogger):
    """Lightning's CSV logger, one row per entry, on disk at once; it can go on with what a killed run left."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir, name="", version="", flush_logs_every_n_steps=1)
        self.calls = 0
        self._path = run_dir / "metrics.csv"
        self._kept: list[str] = []

    def rewind(self, calls: int) -> None:
        if self._path.exists():
            self._kept = self._path.read_text().splitlines(keepends=True)[: calls + 1]  # and the header
        self.calls = calls

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._path.unlink(missing_ok=True)
            writer = super().experiment
            if self._kept:
                self._path.write_text("".join(self._kept))
                writer.metrics_keys = next(csv.reader(self._kept))
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        self.calls += 1


class Wandb(WandbLogger):
    """Lightning's W&B logger, offline where online is not possible.

    Entries are numbered. An entry that a killed run has sent already is not sent again when it is replayed:
    exact resumption repeats it to the bit, and W&B's history has neither gap nor double.
    """

    def __init__(self, run_dir: Path, name: str, project: str, config: dict[str, Any] | None) -> None:
        super().__init__(
            name=name,
            save_dir=run_dir,
            project=project,
            config=config,
            resume="allow",
            settings={"silent": True, "console": "off", "init_timeout": INIT_TIMEOUT},
        )
        self.calls = self._sent = 0
        self._folder = run_dir / "wandb"
        self._resumed = False

    def rewind(self, calls: int) -> None:
        sent = self._folder / "sent"
        self.calls, self._sent = calls, int(sent.read_text()) if sent.exists() else calls
        self._resumed = True

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is not None:
            return self._experiment
        import wandb

        if wandb.run is not None:  # of an earlier run in this process
            wandb.finish()
        self._wandb_init.pop("anonymous", None)  # Lightning passes it, W&B complains of it
        self._wandb_init["id"] = self._id = self._run_id()
        try:
            self._wandb_init["mode"] = _mode()
            run = super().experiment
        except wandb.errors.Error as error:
            reason = str(error).partition("\n")[0]
            rank_zero_warn(f"W&B is out of reach ({reason}); this run stays offline, `wandb sync` sends it")
            wandb.teardown()  # its service holds on to the id of the run that failed
            self._wandb_init["mode"] = "offline"
            run = super().experiment
        if not run.disabled:
            rank_zero_info(f"W&B: {f'offline, in {Path(run.dir).parent}' if run.offline else run.url}")
        return run

    def _run_id(self) -> str:
        """The id of the run that goes on here, or a new one."""
        file = self._folder / "id"
        if not (self._resumed and file.exists()):
            self._folder.mkdir(parents=True, exist_ok=True)
            file.write_text(uuid.uuid4().hex[:8])
        return file.read_text()

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Scalars, or W&B's media, as the next entry of the history."""
        number, self.calls = self.calls, self.calls + 1
        if number < self._sent:
            return
        self.experiment.log({**metrics, "trainer/global_step": step}, step=number, commit=True)
        (self._folder / "sent").write_text(str(self.calls))


def _mode() -> str:
    import wandb

    mode = wandb.setup().settings.mode
    return "offline" if mode == "online" and not wandb.login(prompt=False, verify=False) else mode
