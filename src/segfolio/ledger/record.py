"""What a run was: the recipe, the code, the machine, the data. Kept as `record.json` in the run's folder."""

import csv
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import segfolio
from segfolio.errors import SegfolioError
from segfolio.figure import HOUSE, Figure, by_name
from segfolio.files import write_atomically
from segfolio.resolved import resolved
from segfolio.upgrade import upgrade
from segfolio.yaml_file import read_yaml

_PLACE = {  # where and how fast a run runs, not what it computes
    "model": set[str](),
    "data": {"root", "images", "num_workers", "cache", "seed"},
    "trainer": {
        *("accelerator", "default_root_dir", "enable_progress_bar", "log_every_n_steps", "logger"),
        # how a step is divided; where it changes what is computed, `Record.batch_statistics` says so
        *("devices", "num_nodes", "strategy", "accumulate_grad_batches", "sync_batchnorm"),
    },
}
_CARRIED = Path("build/gpu/code.json")  # below the checkout


@dataclass
class Record:
    """A training (`<run>/record.json`) or a test of it (`<run>/test/record.json`).

    Attributes:
        experiment: `<paper>/<variant>`.
        config: `recipe_hash` of the resolved config.
        state: running, until it ends; failed, if with an error; interrupted, if by hand or by the machine.
        protocol: how a test arrives at its figures, in words.
        figures: of a test, the declarations of those figures that are not of the house, as their fields.
        partial: how much of the split a test saw, in words; "" where that is all of it.
        data: fingerprint of each split that was used.
        other_data: of each split that is not as large as published, both sizes in words.
        batch_statistics: of how many images, in words, where trained batch normalisations saw a part of each batch, as
            devices or accumulation divide it; "" where they saw it all or there are none.
        commit: of the package's repository; None outside a checkout.
        dirty: whether the package differed from that commit.
        lock: sha256 of the repository's `requirements.lock`.
        versions: of Python and the packages that compute.
        hardware: CPU and GPU, their numbers and memory.
        parameters: of the network, whether they are trained or not.
        float32: how it is computed, in words: TF32 is not float32.
        started: UTC; of the first session where the run was resumed.
        finished: UTC.
        sessions: 1 and the times that the run was resumed.
        wall_time: seconds, over all sessions.
        processor_time: seconds of the first process, all its threads together, over all sessions; what other processes
            take from it meanwhile lengthens the wall time, but this one hardly.
        data_wait: share of training time in which there was no batch to work on.
        samples_per_second: of training, over all processes.
        peak_memory: GiB of the first process: on CUDA what was allocated, else its resident set.
    """

    experiment: str
    config: str
    seed: int
    state: Literal["running", "finished", "failed", "interrupted"] = "running"
    protocol: str = ""
    figures: list[dict[str, Any]] = field(default_factory=list)
    partial: str = ""
    data: dict[str, str] = field(default_factory=dict)
    other_data: dict[str, str] = field(default_factory=dict)
    batch_statistics: str = ""
    commit: str | None = None
    dirty: bool | None = None
    lock: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    world_size: int = 1
    precision: str = ""
    parameters: int | None = None
    float32: str = ""
    deterministic: bool = False
    started: str = ""
    finished: str = ""
    sessions: int = 1
    wall_time: float = 0.0
    processor_time: float | None = None
    steps: int = 0
    epochs: int = 0
    data_wait: float | None = None
    samples_per_second: float | None = None
    peak_memory: float | None = None
    wandb: str | None = None

    @property
    def caveat(self) -> str:
        """Why its figures are not to be compared with a paper's, `<state>: <reason>`; "" where they are."""
        if self.partial:
            return f"partial: {self.partial}"
        if self.other_data:
            return f"other data: {'; '.join(self.other_data.values())}"
        return f"deviation: {self.batch_statistics}" if self.batch_statistics else ""

    @property
    def declared(self) -> dict[str, Figure]:
        """What its figures are, by name."""
        return HOUSE | by_name(Figure(**fields) for fields in self.figures)

    def write(self, folder: Path) -> None:
        write_json(folder / "record.json", asdict(self))

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Record":
        """From its JSON; keys of another version are left out."""
        return cls(**{f.name: content[f.name] for f in fields(cls) if f.name in content})

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """The record in a folder, if there is one.

        Raises:
            SegfolioError: it is no record.
        """
        path = folder / "record.json"
        if not path.exists():
            return None
        try:
            return cls.of(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise SegfolioError(f"{path} is no record of a run ({error}); move it away") from None


def recipe_hash(config: Mapping[str, Any]) -> str:
    """sha256 of what a config computes, as written or resolved: `model`, `data` and `trainer`.

    Left out are seed, the paper's claim, and what says where to run (`--data.root`, `--trainer.devices`).
    """
    recipe = {
        part: {key: value for key, value in (config.get(part) or {}).items() if key not in place}
        for part, place in _PLACE.items()
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def recipes_of_run(run: Path, record: Record) -> Iterator[str]:
    """The `recipe_hash` of a run as it was recorded, then of its `config.yaml` in today's keys, then with today's
    defaults, of which an earlier version knew fewer; each is found when it is asked for."""
    yield record.config
    config = run / "config.yaml"
    if config.is_file():
        yield recipe_hash(upgrade(read_yaml(config, "model, data, trainer")))
        if whole := resolved(config, quiet=True):
            yield recipe_hash(whole)


def changes_recipe(key: str) -> bool:
    """Whether an argument (`trainer.max_steps`) is part of the recipe."""
    part, _, rest = key.partition(".")
    return part in _PLACE and rest.partition(".")[0] not in _PLACE[part]


def code() -> dict[str, Any]:
    """`commit`, `dirty` and `lock` of the checkout that the package runs from, or is a copy of; else all None."""
    package = Path(segfolio.__file__).parent
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return _carried(package)
    lock = Path(_git(package, "rev-parse", "--show-toplevel") or package) / "requirements.lock"
    return {
        "commit": _git(package, "rev-parse", "HEAD"),
        "dirty": bool(_git(package, "status", "--porcelain", ".")),
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
    }


def carry_code() -> Path:
    """Write down `code()` for a copy of the checkout without its history; returns the file."""
    package = Path(segfolio.__file__).parent
    write_json(package.parents[1] / _CARRIED, {**code(), "package": _digest(package)})
    return package.parents[1] / _CARRIED


def _carried(package: Path) -> dict[str, Any]:
    """What `carry_code` wrote, where the package is still that."""
    found = {"commit": None, "dirty": None, "lock": None}
    with suppress(OSError, ValueError):
        written = json.loads((package.parents[1] / _CARRIED).read_text())
        if written.pop("package") == _digest(package):
            found |= written
    return found


def _digest(package: Path) -> str:
    files = sorted(package.rglob("*.py"))
    text = "".join(f"{file.relative_to(package)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> dict[str, Any]:
    """The CPU's model, cores and memory (GiB)."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }


def throughput(metrics: Path) -> tuple[float, float] | None:
    """Share of time spent waiting for data, and samples per second, over the whole of a `metrics.csv`.

    Each row is weighted by the time it stands for: the steps since the row before over its samples per second.
    """
    if not metrics.exists():
        return None
    wait = time = steps = 0.0
    last = -1
    with metrics.open(newline="") as file:
        for row in csv.DictReader(file):
            if not row.get("train/samples_per_second"):
                continue
            step = int(row["step"])
            seconds = (step - last) / float(row["train/samples_per_second"])
            wait += seconds * float(row["train/data_wait"])
            time, steps, last = time + seconds, steps + step - last, step
    return (wait / time, steps / time) if time else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Keys sorted, whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
