"""`Figure`: what a number in the log is. It imports nothing, so that the ledger need not wait for torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

STAGES = ("val", "test")
_OF_CLASS = "/<class>"


@dataclass(frozen=True)
class Figure:
    """A figure, as the evaluator that computes it declares it.

    Attributes:
        name: its log key after the stage, as `mIoU`; `IoU/<class>` stands for one figure of each class.
        unit: "" of a ratio in [0, 1], which tables show in percent; else `s`, `pixels`, `clicks`, ...
        higher_is_better: which way it improves.
    """

    name: str
    unit: str
    higher_is_better: bool

    @property
    def per_class(self) -> bool:
        return self.name.endswith(_OF_CLASS)

    @property
    def rounding(self) -> float:
        """Half a unit of the last digit that `text` shows."""
        return 5e-3 if self.unit else 5e-4

    def improves(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far; NaN never is."""
        if best is None:
            return value == value
        return value > best if self.higher_is_better else value < best

    def text(self, value: float | None, sign: str = "") -> str:
        """`46.4` of a ratio, `2.50` of another; `-` for None. `sign="+"` writes a plus."""
        if value is None:
            return "-"
        return f"{value:{sign}.2f}" if self.unit else f"{100 * value:{sign}.1f}"

    def label(self, name: str) -> str:
        """A name of it with its unit: `mIoU`, `HD95 (pixels) ↓`. The arrow says that less is better."""
        return name + (f" ({self.unit})" if self.unit else "") + ("" if self.higher_is_better else " ↓")


def ratios(*names: str) -> tuple[Figure, ...]:
    """Figures in [0, 1], of which more is better."""
    return tuple(Figure(name, "", True) for name in names)


def by_name(figures: Iterable[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def of_name(name: str, declared: Mapping[str, Figure]) -> Figure | None:
    """The declaration of `mIoU`, or of `IoU/car`; None where there is none."""
    family, slash, _ = name.partition("/")
    return declared.get(family + _OF_CLASS) if slash else declared.get(name)


def of_key(key: str, declared: Mapping[str, Figure]) -> Figure | None:
    """The declaration of a log key: `test/mIoU`, `test/IoU/car`, and of a further protocol `test/slide/mIoU`."""
    stage, _, name = key.partition("/")
    if stage not in STAGES:
        return None
    return of_name(name, declared) or (of_name(name.partition("/")[2], declared) if stage == "test" else None)


HOUSE = by_name(
    (
        *ratios("mIoU", "AP", "AP50", "PQ"),  # by which each task is known
        *ratios("pixel_accuracy", "mean_accuracy", "fwIoU", "dice", "boundary_f1", "boundary_mIoU"),
        *ratios("mIoU_per_image", "mIoU_absent_as_zero", "dice_per_image", "IoU_category", "iIoU", "iIoU_category"),
        *ratios("AP75", *(f"{name}_{size}" for name in ("AP", "AR") for size in ("small", "medium", "large"))),
        *ratios("AR_1", "AR_10", "AR_100", "AR_1000"),
        *ratios("AP_box", "AP50_box", "AP75_box", "AR_1_box", "AR_10_box", "AR_100_box", "AR_1000_box"),
        *ratios("AP_rare", "AP_common", "AP_frequent", "AR_300"),  # of federated datasets
        *ratios("AP_rare_box", "AP_common_box", "AP_frequent_box", "AR_300_box"),
        *ratios(*(f"{name}_{size}_box" for name in ("AP", "AR") for size in ("small", "medium", "large"))),
        *ratios("SQ", "RQ", *(f"{name}{kind}" for kind in ("_things", "_stuff") for name in ("PQ", "SQ", "RQ"))),
        *ratios("V_rand", "V_info", "ODS", "OIS", "AP_edges", "R50"),  # of regions, of edges
        *ratios("mIoU_1click", "mIoU_3clicks", "mIoU_5clicks", "mIoU_1click_oracle", "mIoU_box"),  # of prompts
        *(*ratios("teacher_mIoU"), Figure("unexplained_variance", "", higher_is_better=False)),  # of distillation
        *ratios("VPQ", "STQ", "mVC16"),  # of videos' segments
        *ratios("J", "F", "J_and_F", "J_recall", "F_recall", "J_reappeared"),  # of clips
        *(Figure(name, "", higher_is_better=False) for name in ("J_decay", "F_decay")),
        *ratios("J_and_F_1frame", "J_and_F_3frames", "J_and_F_8frames", "J_and_F_rounds"),  # of prompted frames
        Figure("NoP75", "frames", higher_is_better=False),
        *ratios("IoU/<class>", "accuracy/<class>", "dice/<class>", "boundary_f1/<class>", "boundary_IoU/<class>"),
        *ratios("AP/<class>", "AP_box/<class>", "PQ/<class>"),
        *ratios("IoU_category/<class>", "iIoU/<class>", "iIoU_category/<class>"),
        Figure("HD95", "pixels", higher_is_better=False),
        Figure("HD95/<class>", "pixels", higher_is_better=False),
        *(Figure(name, "clicks", higher_is_better=False) for name in ("NoC85", "NoC90")),
        *(Figure(name, "s", higher_is_better=False) for name in ("click_seconds", "evaluation_seconds")),
    )
)
"""The figures of the house: what an experiment may claim before a run has told its own."""


def of_house(*names: str) -> tuple[Figure, ...]:
    """Those that an evaluator computes."""
    return tuple(HOUSE[name] for name in names)
