"""`paper.static`: figures of a network that need no run, as parameters and FLOPs, and how they are counted."""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from segfolio import initial_weights
from segfolio.code_state import PACKAGE, imported, installed
from segfolio.data.checks.remembered import remembered, stamps
from segfolio.errors import SegfolioError, did_you_mean
from segfolio.figure import Figure

_COUNTER = "segfolio.counted"
FLOPS_TOLERANCE = 0.03
"""Of the FLOPs that a paper prints: papers agree less on what is counted than on how many there are."""


@dataclass(frozen=True)
class StaticFigure(Figure):
    """A figure of a network, shown in the unit in which papers print it, and with one digit more than this one did.

    Attributes:
        scale: how much one of the unit is: 1e6 of parameters in M.
        last: the exponent of ten of the last printed digit: 6 of 41e6.
    """

    scale: float = 1.0
    last: int = 0

    @property
    def rounding(self) -> float:
        return 0.5 * 10.0**self.last

    def text(self, value: float | None, sign: str = "") -> str:
        """`41`, `637.03`, `41.3` where 41 was printed; `-` for None."""
        if value is None:
            return "-"
        digits = 1 + max(0, round(-Decimal(str(self.rounding / self.scale * 2)).log10()))
        return f"{round(value / self.scale, digits) + 0.0:{sign}.12g}"  # no minus before a zero

    def label(self, name: str) -> str:
        """`FLOPs (G)`: neither more nor less is better."""
        return name + (f" ({self.unit})" if self.unit else "")


FIGURES = {  # what the ledger calls it, its unit, how much one of the unit is
    "parameters": ("parameters", "M", 1e6),
    "parameters_saved": ("parameters saved", "%", 0.01),
    "flops": ("FLOPs", "G", 1e9),
    "receptive_field": ("receptive field", "pixels", 1.0),
    "stride": ("stride", "pixels", 1.0),
    "layers": ("layers", "", 1.0),
}
_OPERATORS = {
    "torch": "convolutions, matrix products and attention",
    "fvcore": "as fvcore counts, convolutions, matrix products and attention, normalisation, interpolation and pooling",
}
_THROUGH = {
    "output": "",
    "scores": ", through the scores of all pixels",
    "training": ", with the auxiliary heads of training",
}
_GIVEN = {"of": "parts", "crop": "flops", "operators": "flops", "through": "flops", "against": "parameters_saved"}
_KEYS = (*FIGURES, *_GIVEN, "classes", "network", "note")
_EXAMPLE = "{parameters: 41e6, flops: 53e9, crop: 512}"


@dataclass(frozen=True)
class Counting:
    """Figures that are counted in the same way.

    Attributes:
        printed: as the paper prints them, by name.
        of: the paths of modules or parameters that are counted, in words: `encoder`, `encoder.blocks + encoder.stem`,
            `decoder - decoder.classifier`, `- decoder` of all but the decoder; "" of the whole network.
        crop: height and width of the image of which FLOPs are.
        operators: that count as FLOPs: `torch`'s counter, or `fvcore`'s.
        through: of FLOPs, the network's `output`, or the `scores` of all pixels that are made of it, or all that it
            puts out in `training`, such as auxiliary heads.
        classes: that the network has; where it is None, those of the dataset.
        network: as a config has it, where it is not the experiment's.
        against: the network that has more parameters, where they are saved.
        note: why ours is another figure, or where the paper's stands.
        further: whether FLOPs of another size are stated before these, whose name then tells the size.
    """

    printed: dict[str, Decimal]
    of: str = ""
    crop: tuple[int, int] | None = None
    operators: str = "torch"
    through: str = "output"
    classes: int | None = None
    network: dict[str, Any] = field(default_factory=dict)
    against: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    further: bool = False

    def key(self, name: str) -> str:
        """`static/parameters of encoder`, `static/parameters - decoder`, `static/FLOPs at 512 x 2048`."""
        part = self.of.strip()
        of = f" {part}" if part.startswith("-") else f" of {part}" if part else ""
        return f"static/{FIGURES[name][0]}{of}" + (f" at {self.size}" if name == "flops" and self.further else "")

    @property
    def size(self) -> str:
        """`512 x 512`"""
        return " x ".join(map(str, self.crop or ()))

    def figure(self, name: str) -> StaticFigure:
        _, unit, scale = FIGURES[name]
        return StaticFigure(name, unit, True, scale, int(self.printed[name].as_tuple().exponent))

    def tolerance(self, name: str) -> float:
        """How far from the paper's figure is within: half of the last printed digit, and 3 % of FLOPs."""
        share = FLOPS_TOLERANCE if name == "flops" else 0.0
        return max(share * float(self.printed[name]), self.figure(name).rounding)

    @property
    def ours(self) -> bool:
        """Whether a claim, which has no experiment, says of which network it is to be counted."""
        return bool(self.network) or self.classes is not None

    def words(self, name: str, ours: bool = True) -> str:
        """How a figure is counted where it is `ours`, too, and what is noted; "" where that goes without saying."""
        how = ""
        if name == "flops" and self.crop:
            how = f"FLOPs of {self.size} pixels"
            how += f": {_OPERATORS[self.operators]}{_THROUGH[self.through]}" if ours else ""
        return "; ".join(filter(None, (how, self.note)))


def countings(static: Any) -> list[Counting]:
    """`paper.static` as it is written: a block of figures, or a list of blocks that are counted in different ways.

    Raises:
        SegfolioError: what is wrong with it.
    """
    blocks = static if isinstance(static, list) else [static]
    found = [_counting(block) for block in blocks]
    first = next((counting.crop for counting in found if counting.crop), None)
    found = [replace(counting, further=counting.crop not in (None, first)) for counting in found]
    keys = [counting.key(name) for counting in found for name in counting.printed]
    if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
        raise SegfolioError(f"paper.static states {twice[0].removeprefix('static/')} twice; keep one of them")
    return found


def _counting(block: Any) -> Counting:
    if not isinstance(block, dict):
        raise SegfolioError(
            f"paper.static is {block!r}, expected figures as printed, such as {_EXAMPLE}, or a list of such"
        )
    if unknown := [key for key in block if key not in _KEYS]:
        raise SegfolioError(
            f"paper.static has no {unknown[0]!r}; it takes the figures {', '.join(FIGURES)}, and "
            f"{', '.join(key for key in _KEYS if key not in FIGURES)}{did_you_mean(str(unknown[0]), _KEYS)}"
        )
    printed = {name: _printed(name, block[name]) for name in FIGURES if name in block}
    if not printed:
        raise SegfolioError(f"paper.static is {block!r}, which states none of {', '.join(FIGURES)}")
    _check_together(block, printed)
    for key, known in (("operators", _OPERATORS), ("through", _THROUGH)):
        if key in block and block[key] not in known:
            raise SegfolioError(f"paper.static.{key} is {block[key]!r}, expected {' or '.join(known)}")
    said: dict[str, Any] = {key: str(block[key]) for key in ("of", "operators", "through", "note") if key in block}
    said |= {key: _network(key, block[key]) for key in ("network", "against") if key in block}
    crop = _size(block["crop"]) if "crop" in block else None
    return Counting(printed, crop=crop, classes=_classes(block.get("classes")), **said)


def _check_together(block: Mapping[str, Any], printed: Mapping[str, Decimal]) -> None:
    """What is said of a figure that is not there, and what a figure lacks."""
    if "flops" in printed and "crop" not in block:
        raise SegfolioError("paper.static states flops without the size of the image; add crop: 512, or [512, 1024]")
    if "parameters_saved" in printed and "against" not in block:
        raise SegfolioError(
            "paper.static states parameters_saved without the network that has more; add against: {class_path: ..., "
            "init_args: {...}}"
        )
    for key, of in _GIVEN.items():
        if key in block and key != "of" and of not in printed:
            raise SegfolioError(f"paper.static has {key}, which is of {of}; state {of}, or leave it out")
    if "of" in block and (others := [name for name in printed if not name.startswith("parameters")]):
        raise SegfolioError(
            f"paper.static.of counts parameters of a part; state {', '.join(others)} in a block of its own, without it"
        )


def _printed(name: str, value: Any) -> Decimal:
    """The number with its digits: YAML reads 41e6 as a text, which keeps them."""
    try:
        number = Decimal("nan" if isinstance(value, bool) else str(value))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or number <= 0 or (name == "parameters_saved" and number >= 1):
        expected = "a ratio such as 0.62" if name == "parameters_saved" else "the number as it is printed, such as 41e6"
        raise SegfolioError(f"paper.static gives {name}: {value!r}, expected {expected}")
    return number


def _size(crop: Any) -> tuple[int, int]:
    sides = crop if isinstance(crop, list) else [crop, crop]
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise SegfolioError(f"paper.static.crop is {crop!r}, expected a side in pixels, or [height, width]")
    return sides[0], sides[1]


def _classes(classes: Any) -> int | None:
    if classes is not None and not (type(classes) is int and classes > 0):
        raise SegfolioError(f"paper.static.classes is {classes!r}, expected a number of classes")
    return classes


def _network(key: str, given: Any) -> dict[str, Any]:
    if not (isinstance(given, dict) and "class_path" in given):
        raise SegfolioError(
            f"paper.static.{key} is {given!r}, expected a network, {{class_path: ..., init_args: {{...}}}}"
        )
    return given


def count(experiment: Mapping[str, Any], counting: Counting) -> dict[str, float]:
    """Our figures of an experiment's network, remembered until its code changes, or what it is built on.

    Raises:
        SegfolioError: a network that cannot be built or counted so.
    """
    model, data = experiment.get("model") or {}, experiment.get("data") or {}
    asked = {**asdict(counting), "printed": sorted(counting.printed), "note": ""}
    del asked["further"]
    network = counting.network or (model.get("init_args") or {}).get("architecture")
    network = initial_weights.without({"init_args": {"architecture": network}})["init_args"]["architecture"]
    key = [network, data.get("dataset"), bool(data.get("remap")), model.get("class_path"), asked]

    def made() -> bytes:
        counter = importlib.import_module(_COUNTER)  # with all of torch
        return json.dumps(counter.counted(*key)).encode()

    given = (network, data.get("dataset"), counting.against)
    modules = [_class_path(each).rpartition(".")[0] for each in given if each]
    ours = all(module.startswith(f"{PACKAGE.name}.") for module in modules)  # else whose files are they?
    found: dict[str, float] = json.loads(remembered([key, _state(*modules)], made, worth=0.0) if ours else made())
    return found


def _class_path(given: Any) -> str:
    return str(given.get("class_path", "") if isinstance(given, dict) else given or "")


@cache
def _state(*modules: str) -> list[str]:
    """Of the code of modules, and of what counts."""
    return [*_installed(), stamps(sorted({file for module in (_COUNTER, *modules) for file in _files(module)}))]


@cache
def _installed() -> list[str]:
    return installed()


@cache
def _files(module: str) -> Sequence[Path]:
    """A module's of the package, and all that it imports there."""
    file = PACKAGE.joinpath(*module.split(".")[1:])
    file = file.with_suffix(".py") if file.with_suffix(".py").is_file() else file / "__init__.py"
    return sorted(imported(file)) if file.is_file() else ()
