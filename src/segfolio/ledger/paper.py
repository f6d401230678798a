"""The `paper:` block of an experiment: what is claimed, where, and how near we must come."""

import math
from dataclasses import dataclass, field
from typing import Literal

from segfolio.errors import SegfolioError

STAGES = ("val", "test")
FIGURES = (
    *("mIoU", "pixel_accuracy", "mean_accuracy", "fwIoU", "dice", "boundary_f1"),
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100"),
    *(f"{name}{kind}" for name in ("PQ", "SQ", "RQ") for kind in ("", "_things", "_stuff")),
)


@dataclass
class Paper:
    """One row of a paper's table.

    Attributes:
        title: of the paper.
        arxiv: its id, or "" where it has none.
        row: which row of which table, in words.
        expected: figures of that row by log key (`test/mIoU`), ratios in [0, 1]; none where none is claimed.
        tolerance: how far from them still counts as replicated.
        status: trainable; evaluate-only (weights, no recipe); record-only (cannot be run here).
        deviations: of our run from the paper's, each with its reason.

    Raises:
        SegfolioError: an unknown figure, or one that is no ratio.
    """

    title: str
    arxiv: str
    row: str
    expected: dict[str, float] = field(default_factory=dict)
    tolerance: float = 0.01
    status: Literal["trainable", "evaluate-only", "record-only"] = "trainable"
    deviations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for key, value in self.expected.items():
            stage, _, name = key.partition("/")
            if stage not in STAGES or name not in FIGURES:
                raise SegfolioError(
                    f"paper.expected names {key!r}; it takes val/ or test/ followed by one of {', '.join(FIGURES)}"
                )
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise SegfolioError(
                    f"paper.expected gives {key}: {value}; figures are ratios, such as 0.464 for 46.4 %"
                )
