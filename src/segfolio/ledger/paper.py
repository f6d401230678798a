"""The `paper:` block of an experiment: what is claimed, where, and how near we must come."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from segfolio.errors import SegfolioError
from segfolio.yaml_file import read_yaml

Status = Literal["trainable", "evaluate-only", "record-only"]

STAGES = ("val", "test")
FIGURES = (
    *("mIoU", "pixel_accuracy", "mean_accuracy", "fwIoU", "dice", "boundary_f1", "boundary_mIoU"),
    *("mIoU_per_image", "mIoU_absent_as_zero", "dice_per_image", "IoU_category", "iIoU", "iIoU_category"),
    *(f"{name}{kind}" for kind in ("", "_box") for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")),
    *(f"{name}{kind}" for kind in ("", "_box") for name in ("AR_1", "AR_10", "AR_100")),
    *(f"AR_{size}{kind}" for kind in ("", "_box") for size in ("small", "medium", "large")),
    *(f"{name}{kind}" for name in ("PQ", "SQ", "RQ") for kind in ("", "_things", "_stuff")),
    *("V_rand", "V_info"),
)
DEFAULT_TOLERANCE = 0.01
UNITS = {"evaluation_seconds": "s", "HD95": "pixels"}
"""Of the figures that are no ratios."""


@dataclass
class Paper:
    """One row of a paper's table.

    Attributes:
        title: of the paper.
        arxiv: its id, or "" where it has none.
        row: which row of which table, in words.
        expected: figures of that row by log key (`test/mIoU`, `test/<further protocol>/mIoU`), ratios in [0, 1];
            none where none is claimed.
        tolerance: how far from them still counts as replicated, of all figures or by log key; 0.01 where none is given.
        status: trainable; evaluate-only (weights, no recipe); record-only (cannot be run here).
        deviations: of our run from the paper's, each with its reason.

    Raises:
        SegfolioError: an unknown figure or status, a figure or tolerance that is no ratio.
    """

    title: str
    arxiv: str
    row: str
    expected: dict[str, float] = field(default_factory=dict)
    tolerance: float | dict[str, float] = DEFAULT_TOLERANCE
    status: Status = "trainable"
    deviations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for key, value in self.expected.items():
            if not is_figure(key):
                raise SegfolioError(
                    f"paper.expected names {key!r}; it takes val/, test/ or test/<one of model.test.also>/ followed "
                    f"by one of {', '.join(FIGURES)}"
                )
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise SegfolioError(
                    f"paper.expected gives {key}: {value}; figures are ratios, such as 0.464 for 46.4 %"
                )
        tolerances = self.tolerance if isinstance(self.tolerance, dict) else {"": self.tolerance}
        for key, value in tolerances.items():
            if key and key not in self.expected:
                raise SegfolioError(f"paper.tolerance names {key!r}, which paper.expected does not")
            if not 0 <= value < 1:
                raise SegfolioError(f"paper.tolerance is {value}; it is a ratio, such as 0.02 for 2 points")
        if self.status not in get_args(Status):
            raise SegfolioError(f"paper.status is {self.status!r}, expected one of {', '.join(get_args(Status))}")

    def tolerance_of(self, figure: str) -> float:
        """How far from a figure still counts as replicated."""
        if isinstance(self.tolerance, dict):
            return self.tolerance.get(figure, DEFAULT_TOLERANCE)
        return self.tolerance


def is_figure(key: str) -> bool:
    """Whether a log key is that of a figure of the whole split: `test/mIoU`, and of a further protocol
    `test/slide/mIoU`; not `test/IoU/car`.
    """
    *place, name = key.split("/")
    return name in FIGURES and (place in [[stage] for stage in STAGES] or (len(place) == 2 and place[0] == "test"))


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
    if block is None:
        return None
    if not isinstance(block, dict):
        raise SegfolioError(f"{path}: paper is {block!r}, expected the keys {', '.join(_TYPES)}")
    if missing := [f.name for f in fields(Paper) if f.default is f.default_factory is MISSING and f.name not in block]:
        raise SegfolioError(f"{path}: paper lacks {', '.join(missing)}")
    for key, value in block.items():
        if key not in _TYPES:
            raise SegfolioError(f"{path}: paper has no {key!r}; it takes {', '.join(_TYPES)}")
        expected, fits = _TYPES[key]
        if not fits(value):
            raise SegfolioError(f"{path}: paper.{key} is {value!r}, expected {expected}")
    try:
        return Paper(**block)
    except SegfolioError as error:
        raise SegfolioError(f"{path}: {error}") from None


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers_by_key(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value)) and all(map(_number, value.values()))


_TYPES = {  # what is expected, and whether a value is that
    **dict.fromkeys(("title", "arxiv", "row", "status"), ("a text; put numbers in quotes", _text)),
    "expected": ("figures by log key, such as {test/mIoU: 0.464}", _numbers_by_key),
    "tolerance": ("a number, or numbers by log key", lambda v: _number(v) or _numbers_by_key(v)),
    "deviations": ("a list of texts", lambda v: isinstance(v, list) and all(map(_text, v))),
}
