"""The `paper:` block of an experiment: what is claimed, where, and how near we must come."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from segfolio.errors import SegfolioError
from segfolio.figure import HOUSE, STAGES, Figure, of_key
from segfolio.ledger.speed import Speed, checked_speeds
from segfolio.ledger.static import Counting, countings
from segfolio.yaml_file import read_yaml

Status = Literal["trainable", "evaluate-only", "record-only"]

DEFAULT_TOLERANCE = 0.01


@dataclass
class Paper:
    """One row of a paper's table.

    Attributes:
        title: of the paper.
        arxiv: its id, or "" where it has none.
        row: which row of which table, in words.
        expected: figures of that row by log key (`test/mIoU`, `test/<further protocol>/mIoU`), each in its unit,
            ratios in [0, 1]; none where none is claimed.
        tolerance: how far from them still counts as replicated: a number is that of all ratios, 0.01 where none is
            given; a figure in another unit has its own, by log key.
        status: trainable; evaluate-only (weights, no recipe); record-only (cannot be run here).
        deviations: of our run from the paper's, each with its reason.
        speed: the time that the row states, or several by several numbers of prompts, for `segfolio speed`.
        static: figures that need no run, such as `{parameters: 41e6}`, and how they are counted, see `ledger.static`.

    Raises:
        SegfolioError: a key or status that does not exist, a figure or tolerance that is not in its unit.
    """

    title: str
    arxiv: str
    row: str
    expected: dict[str, float] = field(default_factory=dict)
    tolerance: float | dict[str, float] = DEFAULT_TOLERANCE
    status: Status = "trainable"
    deviations: list[str] = field(default_factory=list)
    static: dict | list = field(default_factory=list)  # jsonargparse would look into dict[str, Any]
    speed: Speed | list[Speed] | None = None

    @property
    def speeds(self) -> list[Speed]:
        """What `speed` says."""
        return self.speed if isinstance(self.speed, list) else [] if self.speed is None else [self.speed]

    @property
    def countings(self) -> list[Counting]:
        """What `static` says."""
        return countings(self.static)

    def __post_init__(self) -> None:
        for key in self.expected:
            stage, *rest = key.split("/")
            if not (stage in STAGES and 1 <= len(rest) <= (2 if stage == "test" else 1)):
                raise SegfolioError(
                    f"paper.expected names {key!r}; it takes val/, test/ or test/<a further protocol>/ followed by a "
                    "figure of the whole split, as test/mIoU"
                )
        for key in self.tolerance if isinstance(self.tolerance, dict) else ():
            if key not in self.expected:
                raise SegfolioError(f"paper.tolerance names {key!r}, which paper.expected does not")
        if self.status not in get_args(Status):
            raise SegfolioError(f"paper.status is {self.status!r}, expected one of {', '.join(get_args(Status))}")
        for key in self.expected:
            if figure := of_key(key, HOUSE):
                self._check(key, figure)
        countings(self.static)

    def check_declared(self, declared: Mapping[str, Figure]) -> None:
        """Check what is claimed against the figures that the metrics of an experiment declare, by name.

        Raises:
            SegfolioError: a figure that none of them computes, a figure or tolerance that is not in its unit.
        """
        for key in self.expected:
            if (figure := of_key(key, declared)) is None:
                names = ", ".join(name for name, figure in declared.items() if not figure.per_class)
                raise SegfolioError(
                    f"paper.expected names {key!r}, whose unit and direction no metric of this model declares; add one "
                    f"that computes it to model.init_args.metrics, or take one of {names}"
                )
            self._check(key, figure)

    def _check(self, key: str, figure: Figure) -> None:
        value, tolerance = self.expected[key], self.tolerance_of(key, figure)
        if figure.per_class:
            raise SegfolioError(f"paper.expected names {key!r}, of one class; it takes figures of a whole split")
        if not math.isfinite(value) or value < 0 or (value > 1 and not figure.unit):
            unit = f"are in {figure.unit}" if figure.unit else "are ratios, such as 0.464 for 46.4 %"
            raise SegfolioError(f"paper.expected gives {key}: {value}; figures of {figure.name} {unit}")
        if tolerance is None and self.status != "record-only":
            raise SegfolioError(
                f"paper.tolerance lacks {key}; of a figure in {figure.unit} it is given by log key, as {{{key}: 0.5}}"
            )
        if tolerance is not None and not 0 <= tolerance < (math.inf if figure.unit else 1):
            unit = f"is in {figure.unit}" if figure.unit else "is a ratio, such as 0.02 for 2 points"
            raise SegfolioError(f"paper.tolerance is {tolerance}; that of {key} {unit}")

    def tolerance_of(self, key: str, figure: Figure) -> float | None:
        """How far from a figure still counts as replicated, in its unit; None where that is not said."""
        if isinstance(self.tolerance, dict):
            return self.tolerance.get(key, None if figure.unit else DEFAULT_TOLERANCE)
        return None if figure.unit else self.tolerance


def read_experiment(path: Path) -> dict[str, Any]:
    """An experiment's YAML as it is written.

    Raises:
        SegfolioError: no such file, or no YAML of keys.
    """
    return read_yaml(path, "paper, model, data, trainer")


def paper_of(experiment: Mapping[str, Any], path: Path) -> Paper | None:
    """The `paper:` block of an experiment, if it has one.

    Raises:
        SegfolioError: file and key that are wrong, and why.
    """
    block = experiment.get("paper")
    return None if block is None else checked_paper(block, str(path))


def checked_paper(block: Any, where: str) -> Paper:
    """A `paper:` block as it is written; `where` it stands opens the sentence of the `SegfolioError` that it may be."""
    if not isinstance(block, dict):
        raise SegfolioError(f"{where}: paper is {block!r}, expected the keys {', '.join(_TYPES)}")
    if missing := [f.name for f in fields(Paper) if f.default is f.default_factory is MISSING and f.name not in block]:
        raise SegfolioError(f"{where}: paper lacks {', '.join(missing)}")
    for key, value in block.items():
        if key not in _TYPES:
            raise SegfolioError(f"{where}: paper has no {key!r}; it takes {', '.join(_TYPES)}")
        expected, fits = _TYPES[key]
        if not fits(value):
            raise SegfolioError(f"{where}: paper.{key} is {value!r}, expected {expected}")
    try:
        speed = {"speed": checked_speeds(block["speed"])} if "speed" in block else {}
        return Paper(**{**block, **speed})
    except SegfolioError as error:
        raise SegfolioError(f"{where}: {error}") from None


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers_by_key(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value)) and all(map(_number, value.values()))


def _printed(value: Any) -> bool:
    """Whether digits are as they stand in the file: YAML takes 41e6 for a text, and 4.1e+7 for 41000000.0."""
    blocks = value if isinstance(value, list) else [value]
    numbers = (number for block in blocks if isinstance(block, dict) for number in block.values())
    return isinstance(value, (dict, list)) and not any(isinstance(n, float) and n >= 1 for n in numbers)


_TYPES = {  # what is expected, and whether a value is that
    **dict.fromkeys(("title", "arxiv", "row", "status"), ("a text; put numbers in quotes", _text)),
    "expected": ("figures by log key, such as {test/mIoU: 0.464}", _numbers_by_key),
    "tolerance": ("a number, or numbers by log key", lambda v: _number(v) or _numbers_by_key(v)),
    "static": (
        "figures with the digits that are printed, such as {parameters: 41e6}, without + or point zero",
        _printed,
    ),
    "deviations": ("a list of texts", lambda v: isinstance(v, list) and all(map(_text, v))),
    "speed": ("keys and their values, or a list of them", lambda v: isinstance(v, (dict, list))),
}
