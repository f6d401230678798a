"""What the seeds of an experiment reached: `<variant>.results.json` beside its YAML."""

import json
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from segfolio.errors import SegfolioError
from segfolio.figure import Figure, of_key
from segfolio.ledger.record import Record, recipes_of_run, write_json

CLASSES = ("IoU", "AP", "PQ")
"""What mIoU, AP and PQ are means of."""


@dataclass(frozen=True)
class Spread:
    """Of a figure over `n` seeds, 0 where it needs none. `std` is that of a sample (n - 1), None for one seed."""

    mean: float
    std: float | None
    median: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        values = list(values)
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), std, statistics.median(values), len(values))


@dataclass(frozen=True)
class Seed:
    """One seed, trained and tested.

    Attributes:
        figures: of the whole test split, by log key.
        classes: those of single classes that the main figures are means of, as `test/IoU/car`, of the test's protocol.
        record: of the training; its data and protocol are joined with those of the test.
        run: the run's folder, as seen from the folder of the results.
    """

    figures: dict[str, float]
    record: Record
    run: str
    classes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """What was run of an experiment, in one way.

    Attributes:
        recipe: `recipe_hash` of the YAML as written: once it is edited, these results are no longer its.
        overrides: what the command line changed in the recipe, `key=value`.
    """

    experiment: str
    recipe: str
    overrides: tuple[str, ...]
    seeds: dict[int, Seed]

    def summary(self) -> dict[str, Spread]:
        keys = sorted({key for seed in self.seeds.values() for key in seed.figures})
        return {k: Spread.of(s.figures[k] for s in self.seeds.values() if k in s.figures) for k in keys}

    @property
    def declared(self) -> dict[str, Figure]:
        """What the figures are, by name."""
        return {name: figure for seed in self.seeds.values() for name, figure in seed.record.declared.items()}

    def write(self, path: Path) -> None:
        summary = {key: asdict(spread) for key, spread in self.summary().items()}
        seeds = {str(number): asdict(seed) for number, seed in self.seeds.items()}
        write_json(path, {**vars(self), "overrides": list(self.overrides), "seeds": seeds, "summary": summary})

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Raises a `SegfolioError` for a file that `write` did not write."""
        try:
            content = json.loads(path.read_text())
            seeds = {
                int(number): Seed(seed["figures"], Record.of(seed["record"]), seed["run"], seed.get("classes", {}))
                for number, seed in content["seeds"].items()
            }
            return cls(content["experiment"], content["recipe"], tuple(content["overrides"]), seeds)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SegfolioError(
                f"{path} holds no results ({type(error).__name__}: {error}); write it anew with `segfolio replicate`"
            ) from None


def results_path(experiment: Path, config: str, overrides: Iterable[str]) -> Path:
    """Results with overrides get a name of their own, so that they never stand in for the plain ones."""
    return experiment.with_suffix(f".{config[:8]}.results.json" if list(overrides) else ".results.json")


def finished_seed(run: Path, results_folder: Path) -> Seed | None:
    """The seed that a run's folder holds, if it was trained to the end and then tested on the whole split."""
    trained, tested, figures = Record.read(run), Record.read(run / "test"), run / "test" / "figures.json"
    if trained is None or tested is None or not figures.exists():
        return None
    ended = trained.state == tested.state == "finished" and tested.started >= trained.finished
    if not ended or tested.partial or tested.config not in recipes_of_run(run, trained):
        return None
    try:
        found = json.loads(figures.read_text())
    except ValueError:  # killed while it was written
        return None
    trained.protocol, trained.figures = tested.protocol, tested.figures
    trained.data = {**trained.data, **tested.data}
    trained.other_data = {**trained.other_data, **tested.other_data}
    where = os.path.relpath(run, results_folder)
    return Seed(whole_split(found, tested.declared), trained, where, of_classes(found))


def whole_split(found: Mapping[str, float], declared: Mapping[str, Figure]) -> dict[str, float]:
    """Without the figures of single classes, as `test/IoU/car`."""
    return {key: value for key, value in found.items() if (f := of_key(key, declared)) and not f.per_class}


def of_classes(found: Mapping[str, float]) -> dict[str, float]:
    """The figures of single classes whose mean is by which each task is known."""
    return {key: value for key, value in found.items() if key.startswith(tuple(f"test/{name}/" for name in CLASSES))}


def withheld(record: Record) -> list[str]:
    """What a figure must come with to be shown and this one does not."""
    return [key for key in ("protocol", "commit", "data", "hardware") if not getattr(record, key)]
