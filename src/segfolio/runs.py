"""Where a run's files are: `runs/<paper>/<variant>/<n>`, and `latest` beside the numbers."""

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from segfolio.errors import SegfolioError

_NUMBERED = re.compile(r"(seed)?\d+")
_RUN = "SEGFOLIO_RUN"
"""Tells the processes that a multi-process run starts which folder the first one made."""


class Place:
    """The folder of a command, while it works: in `with`. The processes that it starts write to the same one.

    At the end nothing is left of a dry run, nor of a run that came to no step.
    """

    def __init__(self) -> None:
        self.inherited = Path(os.environ[_RUN]) if _RUN in os.environ else None
        self._made: Path | None = None
        self._dry: Path | None = None

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        if self.inherited is None:
            os.environ.pop(_RUN, None)
        if self._dry:
            shutil.rmtree(self._dry, ignore_errors=True)
        if self._made and _came_to_nothing(self._made):
            _end_wandb(self._made)
            shutil.rmtree(self._made, ignore_errors=True)

    def of_dry_run(self) -> Path:
        """A folder for what is not kept."""
        self._dry = Path(tempfile.mkdtemp(prefix="segfolio-dry-run-"))
        return self.take(self._dry)

    def of_new_run(self, name: str) -> Path:
        """The next numbered folder of an experiment."""
        folder = new_run(name)
        self._made = folder if is_first_process() else None
        return self.take(folder)

    def take(self, folder: Path) -> Path:
        if folder.exists() and not folder.is_dir():
            raise SegfolioError(f"{folder} is a file; give a folder to write to (--output)")
        if is_first_process() and not folder.exists():
            _make(folder)
            self._made = folder
        os.environ[_RUN] = str(folder)
        return folder


def _came_to_nothing(folder: Path) -> bool:
    """Whether a folder is of a run that failed, or was stopped, before its first step."""
    if not {path.name for path in folder.iterdir()} <= {"config.yaml", "record.json", "wandb"}:
        return False
    record = folder / "record.json"
    found = json.loads(record.read_text()) if record.is_file() else {"state": "failed", "steps": 0}
    return found["state"] in ("failed", "interrupted") and found["steps"] == 0


def _end_wandb(run_dir: Path) -> None:
    """End the run of W&B whose files are in a folder that goes."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None and Path(wandb.run.dir).is_relative_to(run_dir.resolve()):
        wandb.finish(exit_code=1)


def experiment_name(config: Path | None) -> str:
    """`experiments/segnet/camvid_367.yaml` and `runs/segnet/camvid_367/0/config.yaml` -> `segnet/camvid_367`."""
    if config is None:
        return "unnamed/config"
    path = config.resolve().with_suffix("")
    if config.name == "config.yaml" and _NUMBERED.fullmatch(path.parent.name):
        path = path.parent.parent
    return f"{path.parent.name}/{path.name}"


def is_first_process() -> bool:
    """Whether this is the only process of a run, or the first of those that torchrun or SLURM started."""
    return not int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def new_run(name: str, root: Path = Path("runs")) -> Path:
    """Make the next numbered folder of an experiment.

    Where several processes were started at once, the first one does; the others write nothing to it.
    """
    experiment = root / name
    if not is_first_process():
        return experiment / "latest"
    number = 1 + max((int(p.name) for p in experiment.glob("*") if p.name.isdigit()), default=-1)
    while True:
        try:
            _make(experiment / str(number))
            break
        except FileExistsError:  # another run started meanwhile
            number += 1
    return experiment / str(number)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise
    except OSError as error:
        said = f"{folder} cannot be made ({error.strerror}); give another folder to write to (--output)"
        raise SegfolioError(said) from error


def mark_latest(run: Path) -> None:
    """Point `latest` beside the run of a number or a seed to it; a run is that from its first checkpoint on."""
    if _NUMBERED.fullmatch(run.name):
        unfinished = run.parent / f".latest-{run.name}"
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(run.name)
        os.replace(unfinished, run.parent / "latest")


def run_of(checkpoint: Path) -> Path | None:
    """The run that a checkpoint belongs to: the folder above `checkpoints/`, where a config.yaml lies."""
    run = checkpoint.resolve().parent.parent
    return run if (run / "config.yaml").is_file() else None
