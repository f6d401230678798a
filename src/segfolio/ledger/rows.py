"""The rows of the ledger: every experiment's claims, and what became of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segfolio.errors import SegfolioError
from segfolio.figure import HOUSE, Figure, of_key
from segfolio.ledger.claims import CLAIMS, read_claims
from segfolio.ledger.compare import state
from segfolio.ledger.paper import Paper, paper_of, read_experiment
from segfolio.ledger.record import Record, recipe_hash
from segfolio.ledger.results import Results, Spread, withheld
from segfolio.ledger.speed import Claim, measurements, network_hash, ratios
from segfolio.ledger.static import count

MAIN = ("mIoU", "AP", "AP50", "PQ")
STATES = {
    "within": "as near to the paper's figure as the experiment demands; what needs no run, as the digits do",
    "outside": "further from it",
    "other data": "run on more or fewer images than were published, which is no replication",
    "deviation": "run with batch statistics over parts of the batch, which how it was made names",
    "no claim": "run, and nothing to compare it with",
    "overridden": "run with a changed recipe, which is named",
    "ratio": "times as long as the named network takes; a factor between machines, never a verdict",
    "unrun": "no run that can be shown",
    "record-only": "the paper's figures, for a recipe that cannot be run here",
}


@dataclass(frozen=True)
class Cell:
    """One figure of a row.

    Attributes:
        key: its log key; what follows `//` tells figures of one name apart.
        expected: what the paper reports, in the unit of the figure.
        ours: over seeds, of a ratio over rounds; of none where it was counted without a run.
        state: one of `STATES`.
        tolerance: how far from `expected` is within.
        note: how it was counted, and why it is another; of a ratio, how it was measured.
    """

    key: str
    figure: Figure
    expected: float | None
    ours: Spread | None
    state: str
    tolerance: float | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """Its key, without `test/` or `static/`."""
        return self.key.removeprefix("test/").removeprefix("static/").partition("//")[0]

    @property
    def counted(self) -> bool:
        """Whether it is a figure of the network, which needs no run."""
        return self.key.startswith("static/")

    @property
    def difference(self) -> float | None:
        if self.ours is None or self.expected is None or self.state not in ("within", "outside"):
            return None
        return self.ours.mean - self.expected

    @property
    def factor(self) -> float | None:
        """Ours over the paper's, of a ratio."""
        return self.ours.mean / self.expected if self.state == "ratio" and self.ours and self.expected else None


@dataclass(frozen=True)
class Row:
    """An experiment as it was run in one way, or a row of a paper that cannot be run here.

    Attributes:
        file: its YAML, `<paper>/<variant>.yaml` or `<paper>/claims.yaml`.
        cells: its figures; those of runs first, and none where nothing is claimed and nothing was run.
        own: the state of an experiment that has no figure of runs; "" of others.
        dataset: name of its class; "" where the row has no recipe.
        overrides: what was changed in the recipe.
        protocol: how the test arrives at ours.
        seeds: that ours is over.
        commit: short, one or several, `+` where the code differed from it.
        hardware: of the training, and how long it took, one or several.
        data: fingerprints of what it was trained and tested on.
        picture: a panel of the test, where the run's folder is here.
    """

    file: Path
    paper: Paper
    cells: tuple[Cell, ...]
    own: str = ""
    dataset: str = ""
    overrides: tuple[str, ...] = ()
    protocol: str = ""
    seeds: tuple[int, ...] = ()
    commit: str = ""
    hardware: str = ""
    data: str = ""
    picture: Path | None = None

    @property
    def system(self) -> str:
        """The folder that it is in."""
        return self.file.parent.name

    @property
    def experiment(self) -> str:
        """`<paper>/<variant>`; "" of a row of `claims.yaml`."""
        return "" if self.file.name == CLAIMS else f"{self.system}/{self.file.stem}"

    @property
    def name(self) -> str:
        """What it is called in one line."""
        changed = f" with {', '.join(self.overrides)}" if self.overrides else ""
        return self.experiment + changed if self.experiment else f"{self.system}: {self.paper.row}"

    @property
    def ran(self) -> bool:
        return bool(self.seeds)

    @property
    def before(self) -> str:
        """The state of its figures before a run."""
        return _before_a_run(self.paper)

    @property
    def states(self) -> tuple[str, ...]:
        """Those of its cells, and first its own, where it has one."""
        return (*filter(None, (self.own,)), *(cell.state for cell in self.cells))


def ledger(experiments: Path) -> tuple[list[Row], list[str]]:
    """The rows of all papers below a folder, what was run first, and in a sentence each what is not shown and why.

    Raises:
        SegfolioError: no such folder, or an experiment, claims or results that cannot be read.
    """
    if not experiments.is_dir():
        raise SegfolioError(f"there is no folder {experiments}; give that of the experiments with --experiments DIR")
    rows: list[Row] = []
    said: list[str] = []
    networks: dict[str, str] = {}
    for path in sorted(experiments.glob("*/*.yaml")):
        if path.name == CLAIMS:
            rows += [Row(path, p, (*_claimed(path, p, HOUSE, said), *_counted(path, p, {}))) for p in read_claims(path)]
            continue
        content = read_experiment(path)
        if (paper := paper_of(content, path)) is None:
            continue
        for speed in paper.speeds if paper.status != "record-only" else ():
            networks[f"{path.parent.name}/{path.stem}{speed.asked}"] = network_hash(content, speed)
        dataset, counted = _dataset(content), _counted(path, paper, content)
        shown = shown_results(path, paper, recipe_hash(content), said)
        if all(results.overrides for _, results in shown):
            claimed = _claimed(path, paper, HOUSE, said)
            own = "" if claimed else _before_a_run(paper)
            rows.append(Row(path, paper, (*claimed, *counted), own, dataset))
        rows += [_run(path, paper, dataset, *each, counted, said) for each in shown]
    rows = _with_ratios(rows, networks, experiments, said)
    return sorted(rows, key=lambda row: (not row.ran, row.system, not row.experiment)), said


def _with_ratios(rows: list[Row], networks: Mapping[str, str], experiments: Path, said: list[str]) -> list[Row]:
    """The rows that state a time with what it is of those of their table, by the paper and as it was measured."""
    stated = [(row.name + speed.asked, speed) for row in rows if not row.overrides for speed in row.paper.speeds]
    claims = {name: Claim(speed, networks.get(name, "")) for name, speed in stated}
    found = ratios(claims, measurements(experiments), said)

    def cells(row: Row) -> tuple[Cell, ...]:
        names = [] if row.overrides else [row.name + speed.asked for speed in row.paper.speeds]
        of_row = [ratio for name in names for ratio in found[name]]
        before = _before_a_run(row.paper)
        return tuple(
            Cell(r.key, r.figure, r.expected, r.ours, "ratio" if r.ours else before, note=r.how) for r in of_row
        )

    return [replace(row, cells=row.cells + cells(row)) for row in rows]


def shown_results(path: Path, paper: Paper, recipe: str, said: list[str]) -> list[tuple[Path, Results]]:
    """The results beside an experiment, reduced to the seeds that may be shown; those without overrides first."""
    shown = []
    for file in sorted(path.parent.glob(f"{path.stem}.*results.json")):
        results = Results.read(file)
        if paper.status == "record-only":
            said.append(f"{file} is not shown: its experiment is record-only")
        elif results.recipe != recipe:
            said.append(f"{file} is not shown: {path.name} has another recipe since; run `segfolio replicate {path}`")
        else:
            seeds = dict(results.seeds)
            for number, seed in results.seeds.items():
                if lacks := withheld(seed.record):
                    said.append(f"{file}: seed {number} is not shown, it comes without {', '.join(lacks)}")
                    del seeds[number]
            if seeds:
                shown.append((file, Results(results.experiment, recipe, results.overrides, seeds)))
    return sorted(shown, key=lambda each: bool(each[1].overrides))


def _claimed(path: Path, paper: Paper, declared: Mapping[str, Figure], said: list[str]) -> tuple[Cell, ...]:
    """What the paper reports, of figures whose unit is known."""
    cells = []
    for key, expected in paper.expected.items():
        if figure := of_key(key, declared):
            cells.append(Cell(key, figure, expected, None, _before_a_run(paper)))
        else:
            said.append(
                f"{path} claims {key}, which is not shown: it is no figure of segfolio.figure, and no run has told its "
                f"unit and direction; run `segfolio replicate {path}`, or correct the name"
            )
    return tuple(cells)


def _counted(path: Path, paper: Paper, experiment: Mapping[str, Any]) -> tuple[Cell, ...]:
    """What needs no run. Of a network that is not here it is the paper's alone, as its row is."""
    cells = []
    for counting in paper.countings:
        if path.name == CLAIMS and not counting.ours:
            for name, printed in counting.printed.items():
                figure, note = counting.figure(name), counting.words(name, ours=False)
                cells.append(Cell(counting.key(name), figure, float(printed), None, _before_a_run(paper), None, note))
            continue
        try:
            found = count(experiment, counting)
        except SegfolioError as error:
            raise SegfolioError(f"{path}: {error}") from None
        for name, printed in counting.printed.items():
            figure, theirs, ours = counting.figure(name), float(printed), Spread(found[name], None, found[name], 0)
            tolerance = counting.tolerance(name)
            verdict = state(figure, theirs, ours.mean, tolerance - figure.rounding)
            key, note = counting.key(name), counting.words(name)
            cells.append(Cell(key, figure, theirs, ours, verdict, tolerance, note))
    return tuple(cells)


def _run(
    path: Path, paper: Paper, dataset: str, file: Path, results: Results, counted: tuple[Cell, ...], said: list[str]
) -> Row:
    """The figures that the paper claims; where it claims none, our main ones. And these under further protocols."""
    summary, seeds, declared = results.summary(), list(results.seeds.values()), results.declared
    claimed = () if results.overrides else _claimed(path, paper, declared, said)
    expected = {cell.key: cell.expected for cell in claimed}
    shown = list(expected) or known_by(summary)
    caveat = next(filter(None, (seed.record.caveat.partition(":")[0] for seed in seeds)), "")  # in place of a verdict
    cells = []
    for key in [*shown, *_under_further_protocols(shown, summary)]:
        figure, theirs, ours = of_key(key, declared), expected.get(key), summary.get(key)
        if figure is None:
            continue
        tolerance = paper.tolerance_of(key, figure)
        if ours is None:
            verdict = "unrun"
        elif theirs is None:
            verdict = "overridden" if results.overrides else "no claim"
        else:
            verdict = caveat or state(figure, theirs, ours.mean, tolerance)
        cells.append(Cell(key, figure, theirs, ours, verdict, tolerance))
    return Row(
        file=path,
        paper=paper,
        cells=(*cells, *(() if results.overrides else counted)),
        own="" if cells else _before_a_run(paper),
        dataset=dataset,
        overrides=results.overrides,
        protocol=_each(seed.record.protocol for seed in seeds),
        seeds=tuple(sorted(results.seeds)),
        commit=_each(_commit(seed.record) for seed in seeds),
        hardware=_each(_hardware(seed.record) for seed in seeds),
        data=_each(",".join(sorted(seed.record.data.values())) for seed in seeds),
        picture=next((p for seed in seeds for p in _pictures(file.parent / seed.run)), None),
    )


def known_by(summary: Mapping[str, Spread]) -> list[str]:
    """The figures of a test by which each task is known; where there is none, the first of the house, or of all."""
    main, house = ([f"test/{name}" for name in names if f"test/{name}" in summary] for names in (MAIN, HOUSE))
    return main or house[:1] or list(summary)[:1]


def _under_further_protocols(shown: list[str], summary: Mapping[str, Spread]) -> list[str]:
    names = {figure.rpartition("/")[2] for figure in shown}
    return [key for key in summary if key.count("/") == 2 and key.rpartition("/")[2] in names and key not in shown]


def _before_a_run(paper: Paper) -> str:
    return "record-only" if paper.status == "record-only" else "unrun"


def _dataset(content: Mapping[str, Any]) -> str:
    dataset = (content.get("data") or {}).get("dataset", "")
    return str(dataset.get("class_path", "") if isinstance(dataset, dict) else dataset).rpartition(".")[2]


def _each(texts: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(texts))


def _commit(record: Record) -> str:
    return f"{(record.commit or '')[:7]}{'+' if record.dirty else ''}"


def _hardware(record: Record) -> str:
    gpus, about = record.hardware.get("gpus"), record.hardware
    machine = f"{gpus} x {about['gpu']}" if gpus else f"{about.get('cores')} cores of {about.get('cpu')}"
    time = f"{record.steps} steps in {record.wall_time / 60:.0f} min" if record.steps else ""
    if time and record.processor_time and not gpus:  # which says more where the machine does other work, too
        time += f", {record.processor_time / 60:.0f} min of one core"
    return ", ".join(filter(None, (machine, time, record.batch_statistics)))


def _pictures(run: Path) -> list[Path]:
    return sorted((run / "test" / "pictures").rglob("*.png"))[:1]
