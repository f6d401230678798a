"""What is compared: experiments that were tested in one way on one split."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from segfolio.errors import SegfolioError
from segfolio.figure import Figure, of_key
from segfolio.ledger.claims import CLAIMS
from segfolio.ledger.paper import paper_of, read_experiment
from segfolio.ledger.record import Record, recipe_hash
from segfolio.ledger.results import CLASSES, Results, Spread
from segfolio.ledger.rows import known_by, shown_results
from segfolio.ledger.speed import Speed, Timed, times


@dataclass(frozen=True)
class Compared:
    """An experiment, and what became of it.

    Attributes:
        file: its YAML.
        config: as written.
        results: without overrides, of the seeds that may be shown; None before a run.
        times: that `segfolio speed` measured of it together with others, by prompts.
        how: these were measured, in words.
    """

    file: Path
    config: Mapping[str, Any]
    results: Results | None
    times: Mapping[str, Timed] = field(default_factory=dict)
    how: str = ""

    @property
    def name(self) -> str:
        return f"{self.file.parent.name}/{self.file.stem}"

    @property
    def records(self) -> list[Record]:
        """Of each seed."""
        return [seed.record for seed in self.results.seeds.values()] if self.results else []

    @cached_property
    def figures(self) -> dict[str, Spread]:
        return self.results.summary() if self.results else {}

    @cached_property
    def classes(self) -> dict[str, float]:
        """By class, over seeds, what the main figure is the mean of; none in results of an earlier version."""
        if self.main is None:
            return {}
        part = f"test/{dict(zip(('mIoU', 'AP', 'PQ'), CLASSES, strict=True)).get(self.main[5:], '')}/"
        found = [seed.classes for seed in self.results.seeds.values()] if self.results else []
        names = [key for key in (found[0] if found else {}) if key.startswith(part)]
        return {key.removeprefix(part): fmean(seed[key] for seed in found if key in seed) for key in names}

    @property
    def main(self) -> str | None:
        """The log key of the figure by which it is known; None before a run."""
        return next(iter(known_by(self.figures)), None)

    @property
    def main_figure(self) -> Figure | None:
        return of_key(self.main, self.results.declared) if self.main and self.results else None

    @property
    def value(self) -> float | None:
        """Its main figure."""
        return self.figures[self.main].mean if self.main else None

    def mean(self, of: str) -> float | None:
        """Over seeds, of a field of the record; None where it was not recorded."""
        found = [value for record in self.records if (value := getattr(record, of)) is not None]
        return fmean(found) if found else None

    @property
    def parameters(self) -> float | None:
        """As the record has them, or a measurement."""
        measured = next((timed.parameters for timed in self.times.values()), None)
        return measured if (recorded := self.mean("parameters")) is None else recorded

    @property
    def pretrained(self) -> bool:
        """Whether it starts from weights of something else."""
        return bool(_architecture(self.config).get("init_args", {}).get("weights"))

    @property
    def network(self) -> str:
        """What is trained, wherever it starts from."""
        found = deepcopy(_architecture(self.config))
        found.setdefault("init_args", {}).pop("weights", None)
        return json.dumps(found, sort_keys=True)


def compared(paths: Sequence[Path]) -> list[Compared]:
    """Experiments of files and folders, the best first and what has not been run last.

    Raises:
        SegfolioError: none, a file that is no experiment, experiments of which one was tested otherwise.
    """
    found, speeds = list[Compared](), dict[str, tuple[Mapping[str, Any], Sequence[Speed]]]()
    for file in _files(paths):
        config = read_experiment(file)
        if (paper := paper_of(config, file)) is None:
            continue
        results = [r for _, r in shown_results(file, paper, recipe_hash(config), []) if not r.overrides]
        found.append(Compared(file, config, results[0] if results else None))
        speeds[found[-1].name] = config, paper.speeds
    if not found:
        raise SegfolioError(f"{', '.join(map(str, paths)) or 'nothing'} holds no experiment to compare")
    _expect_one_way(found)
    if measured := times(found[0].file.parent.parent, speeds):
        found = [replace(each, times=measured.networks.get(each.name, {}), how=measured.how) for each in found]
    best_is_high = all(each.main_figure is None or each.main_figure.higher_is_better for each in found)
    sign = -1 if best_is_high else 1
    return sorted(found, key=lambda each: (each.value is None, sign * (each.value or 0.0), each.name))


def pretraining(rows: Sequence[Compared]) -> Iterator[tuple[Compared, Compared]]:
    """Of each network that was trained both ways: from pretrained weights, and from random ones."""
    for row in rows:
        if row.pretrained and row.value is not None:
            others = (other for other in rows if other.network == row.network and not other.pretrained)
            yield from ((row, other) for other in others if other.value is not None)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise SegfolioError(f"there is no {path}; compare takes experiments, or folders of them")
        yield from sorted(p for p in path.glob("*.yaml") if p.name != CLAIMS) if path.is_dir() else [path]


def _expect_one_way(found: Sequence[Compared]) -> None:
    """The same images of the test, seen in the same way by each protocol that several have."""
    first: tuple[Record, Compared] | None = None
    before: dict[str, tuple[str, Record, Compared]] = {}
    for each in found:
        for record in each.records:
            other, who = first = first or (record, each)
            if record.data.get("test") != other.data.get("test"):
                raise SegfolioError(
                    f"{each.name} was tested on other data than {who.name}; compare what was tested in one way"
                )
            for name, way in _ways(record).items():
                seen, other, who = before.setdefault(name, (way, record, each))
                if seen != way:
                    differs = f"{each.name} was tested otherwise ({record.protocol} in place of {other.protocol})"
                    raise SegfolioError(f"{differs} than {who.name}; compare what was tested in one way")


def _ways(record: Record) -> dict[str, str]:
    """How images were seen by each protocol, the main one under "", without what a family makes of its own output, as
    the inference of queries, and without by which points a network finds all masks, or all boxes, of an image."""
    main, *further = re.split(r"; (?=\w+: )", record.protocol)
    ways = {"": re.sub("(at its original size); .*", r"\1", main), **dict(each.split(": ", 1) for each in further)}
    for name, way in ways.items():
        if found := re.fullmatch(r"(?:everything mode|all masks).*?(, the boxes around \w+)?", way):
            ways[name] = "all boxes" if found[1] else "all masks"
    return ways


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    found = config.get("model", {}).get("init_args", {}).get("architecture", {})
    return found if isinstance(found, dict) else {"class_path": found}
