"""Where a run's scalars and pictures go: a CSV always, Weights & Biases online or offline."""

import csv
import io
import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

from segfolio.files import naming, write_atomically

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
    return [MetricsFile(run_dir), Wandb(run_dir, name, project, config)]


class MetricsFile(Logger):
    """One row per entry, on disk at once; it can go on with what a killed run left.

    Lightning's own CSV logger empties the file before it writes it anew, and what a kill leaves then is nothing.
    """

    name = version = ""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.calls = 0
        self._path = run_dir / "metrics.csv"
        self._rows = 0  # of the file that belong to this run
        self._keys: list[str] = []

    def rewind(self, calls: int) -> None:
        self.calls = self._rows = calls

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row = {**{key: float(value) for key, value in metrics.items()}, "step": step}
        if new := row.keys() - set(self._keys):
            self._write_anew(new)
        with naming(self._path), self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._keys).writerow(row)
        self.calls, self._rows = self.calls + 1, self._rows + 1

    def _write_anew(self, new: Iterable[str]) -> None:
        """The rows so far, with further columns."""
        kept: list[dict[str, str]] = []
        if self._rows and self._path.exists():
            with self._path.open(newline="") as file:
                kept = list(islice(csv.DictReader(file), self._rows))
        self._keys = sorted({*self._keys, *new, *(kept[0] if kept else ())})
        writer = csv.DictWriter(text := io.StringIO(newline=""), self._keys)
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(self._path, text.getvalue().encode())


class Wandb(WandbLogger):
    """Lightning's W&B logger, offline where online is not possible, and exact across kills.

    W&B writes in blocks, and what a killed process had not written is lost. So every entry goes to a journal
    first, `<run_dir>/wandb/journal.jsonl`. A run that goes on keeps its id; entries that W&B lacks are told
    again from the journal (scalars and panels; switchable masks are not), none is told twice.
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
        self.calls = 0
        self._run_dir, self._folder = run_dir, run_dir / "wandb"
        self._journal = self._folder / "journal.jsonl"
        self._kept: list[str] = []
        self._waiting: list[tuple[int, dict[str, Any]]] = []  # pictures that are announced, and what came since

    def rewind(self, calls: int) -> None:
        if self._journal.exists():
            self._kept = self._journal.read_text().splitlines(keepends=True)[:calls]
        self.calls = len(self._kept)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is not None:
            return self._experiment
        import wandb

        if wandb.run is not None:  # of an earlier run in this process
            wandb.finish()
        self._wandb_init.pop("anonymous", None)  # Lightning passes it, W&B complains of it
        self._wandb_init["id"] = self._id = self._start_journal()
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
        self._tell_again(run)
        return run

    def _start_journal(self) -> str:
        """The id of the run that goes on here, or of a new one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        id_file = self._folder / "id"
        if not self._kept or not id_file.exists():
            write_atomically(id_file, uuid.uuid4().hex[:8].encode())
        write_atomically(self._journal, "".join(self._kept).encode())
        return id_file.read_text()

    def _tell_again(self, run: Any) -> None:
        import wandb

        if self._kept and run.offline:  # one segment in place of those that are torn
            for torn in self._folder.glob(f"offline-run-*-{self._id}"):
                if torn != Path(run.dir).parent:
                    shutil.rmtree(torn)
        for number, line in enumerate(self._kept[run.step :], run.step):  # online, W&B knows how far it came
            entry = json.loads(line)
            files = {key: self._run_dir / name for key, name in entry["files"].items()}
            pictures = {key: wandb.Image(str(file)) for key, file in files.items() if file.exists()}
            run.log({**entry["values"], **pictures}, step=number, commit=True)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        entry = {**metrics, "trainer/global_step": step}
        run = self._keep(entry, {})
        if self._waiting:  # W&B takes entries in their order
            self._waiting.append((self.calls - 1, entry))
        else:
            run.log(entry, step=self.calls - 1, commit=True)

    @rank_zero_only
    def announce_pictures(self, files: Mapping[str, Path], step: int) -> None:
        """Count PNG files below the run's folder, which may not be there yet, as the next entry."""
        self._tell_waiting({})
        entry = {"trainer/global_step": step}
        self._keep(entry, files)
        self._waiting.append((self.calls - 1, entry))

    @rank_zero_only
    def log_pictures(self, files: Mapping[str, Path], masked: Mapping[str, Any]) -> None:
        """The files that were announced, now that they are there, and W&B's images with masks."""
        import wandb

        pictures = {key: wandb.Image(str(file)) for key, file in files.items()}
        self._tell_waiting({**pictures, **masked})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._tell_waiting({})
        super().finalize(status)

    def _tell_waiting(self, pictures: Mapping[str, Any]) -> None:
        for number, entry in self._waiting:
            self.experiment.log({**entry, **pictures}, step=number, commit=True)
            pictures = {}
        self._waiting = []

    def _keep(self, values: dict[str, Any], files: Mapping[str, Path]) -> Any:
        """One more entry in the journal; returns W&B's run."""
        run = self.experiment
        names = {key: str(file.relative_to(self._run_dir)) for key, file in files.items()}
        with naming(self._journal), self._journal.open("a") as journal:
            journal.write(json.dumps({"values": values, "files": names}) + "\n")
        self.calls += 1
        return run


def _mode() -> str:
    import wandb

    mode = wandb.setup().settings.mode
    return "offline" if mode == "online" and not wandb.login(prompt=False, verify=False) else mode
