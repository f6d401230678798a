"""The rows of the ledger: every experiment's claims, and what became of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from segfolio.errors import SegfolioError
from segfolio.ledger.compare import state
from segfolio.ledger.paper import FIGURES, Paper, paper_of, read_experiment
from segfolio.ledger.record import Record, recipe_hash
from segfolio.ledger.results import Results, Spread, withheld

MAIN = ("mIoU", "AP", "AP50", "PQ")
STATES = {
    "within": "as near to the paper's figure as the experiment demands",
    "outside": "further from it",
    "other data": "run on more or fewer images than were published, which is no replication",
    "deviation": "run with batch statistics over parts of the batch, which the hardware's column names",
    "no claim": "run, and nothing to compare it with",
    "overridden": "run with a changed recipe, which is named",
    "unrun": "no run that can be shown",
    "record-only": "the paper's figures, for a recipe that cannot be run here",
}


@dataclass(frozen=True)
class Row:
    """One figure of one experiment.

    Attributes:
        experiment: `<paper>/<variant>`.
        figure: its log key, "" where nothing is claimed and nothing was run.
        expected: what the paper reports, a ratio.
        ours: over seeds.
        state: one of `STATES`.
        overrides: what was changed in the recipe.
        protocol: how the test arrives at ours.
        seeds: that ours is over.
        commit: short, one or several, `+` where the code differed from it.
        hardware: of the training, and how long it took, one or several.
        data: fingerprints of what it was trained and tested on.
        picture: a panel of the test, where the run's folder is here.
    """

    experiment: str
    paper: Paper
    figure: str
    expected: float | None
    ours: Spread | None
    state: str
    overrides: tuple[str, ...] = ()
    protocol: str = ""
    seeds: tuple[int, ...] = ()
    commit: str = ""
    hardware: str = ""
    data: str = ""
    picture: Path | None = None

    @property
    def difference(self) -> float | None:
        if self.ours is None or self.expected is None or self.state == "other data":
            return None
        return self.ours.mean - self.expected


def ledger(experiments: Path) -> tuple[list[Row], list[str]]:
    """The rows of all experiments below a folder, and in a sentence each what is not shown and why.

    Raises:
        SegfolioError: no such folder, or an experiment or results that cannot be read.
    """
    if not experiments.is_dir():
        raise SegfolioError(f"there is no folder {experiments}; give that of the experiments with --experiments DIR")
    rows: list[Row] = []
    said: list[str] = []
    for path in sorted(experiments.glob("*/*.yaml")):
        content = read_experiment(path)
        if (paper := paper_of(content, path)) is None:
            continue
        shown = _shown(path, paper, recipe_hash(content), said)
        plain = [(file, results) for file, results in shown if not results.overrides]
        rows += _rows(path, paper, *plain[0]) if plain else _claims(path, paper)
        for file, results in shown:
            if results.overrides:
                rows += _rows(path, paper, file, results)
    return rows, said


def _shown(path: Path, paper: Paper, recipe: str, said: list[str]) -> list[tuple[Path, Results]]:
    """The results beside an experiment, reduced to the seeds that may be shown."""
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
    return shown


def _claims(path: Path, paper: Paper) -> Iterator[Row]:
    unrun = "record-only" if paper.status == "record-only" else "unrun"
    for figure in paper.expected or [""]:
        yield Row(_name(path), paper, figure, paper.expected.get(figure), None, unrun)


def _rows(path: Path, paper: Paper, file: Path, results: Results) -> Iterator[Row]:
    """The figures that the paper claims; where it claims none, our main ones. And these under further protocols."""
    summary, seeds = results.summary(), list(results.seeds.values())
    claimed = {} if results.overrides else paper.expected
    shown = list(claimed) or _main(summary)
    for figure in [*shown, *_under_further_protocols(shown, summary)]:
        expected, ours = claimed.get(figure), summary.get(figure)
        if ours is None:
            yield Row(_name(path), paper, figure, expected, None, "unrun")
            continue
        if expected is None:
            verdict = "overridden" if results.overrides else "no claim"
        elif any(seed.record.other_data for seed in seeds):
            verdict = "other data"
        elif any(seed.record.batch_statistics for seed in seeds):
            verdict = "deviation"
        else:
            verdict = state(expected, ours.mean, paper.tolerance_of(figure))
        yield Row(
            experiment=_name(path),
            paper=paper,
            figure=figure,
            expected=expected,
            ours=ours,
            state=verdict,
            overrides=results.overrides,
            protocol=_each(seed.record.protocol for seed in seeds),
            seeds=tuple(sorted(results.seeds)),
            commit=_each(_commit(seed.record) for seed in seeds),
            hardware=_each(_hardware(seed.record) for seed in seeds),
            data=_each(",".join(sorted(seed.record.data.values())) for seed in seeds),
            picture=next((p for seed in seeds for p in _pictures(file.parent / seed.run)), None),
        )


def _main(summary: dict[str, Spread]) -> list[str]:
    """The figures of a test by which each task is known; where there is none, the first among all of the house."""
    main, any_ = ([f"test/{name}" for name in names if f"test/{name}" in summary] for names in (MAIN, FIGURES))
    return main or any_[:1]


def _under_further_protocols(shown: list[str], summary: dict[str, Spread]) -> list[str]:
    names = {figure.rpartition("/")[2] for figure in shown}
    return [key for key in summary if key.count("/") == 2 and key.rpartition("/")[2] in names and key not in shown]


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _each(texts: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(texts))


def _commit(record: Record) -> str:
    return f"{(record.commit or '')[:7]}{'+' if record.dirty else ''}"


def _hardware(record: Record) -> str:
    gpus, about = record.hardware.get("gpus"), record.hardware
    machine = f"{gpus} x {about['gpu']}" if gpus else f"{about.get('cores')} cores of {about.get('cpu')}"
    time = f"{record.steps} steps in {record.wall_time / 60:.0f} min" if record.steps else ""
    return ", ".join(filter(None, (machine, time, record.batch_statistics)))


def _pictures(run: Path) -> list[Path]:
    return sorted((run / "test" / "pictures").rglob("*.png"))[:1]
