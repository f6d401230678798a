"""What a paper says of a network's time, what `segfolio speed` measured, and the ratios of both.

Times of two machines are not compared; ratios between networks of one table are, and are never a verdict.
"""

import hashlib
import json
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from segfolio.errors import SegfolioError
from segfolio.figure import Figure
from segfolio.ledger.record import write_json
from segfolio.ledger.results import Spread
from segfolio.words import counted

_UNITS = ("milliseconds", "seconds", "fps")
EVERYTHING = "everything"
FOLDER = "speed"
"""Of the measurements, below that of the experiments."""


@dataclass
class Speed:
    """The time of one row.

    Attributes:
        table: all rows that name it alike are of one table, of whichever paper their experiments are.
        milliseconds, seconds: of one image; one of them, or
        fps: images in a second. None of the three of a network that the paper has no time of, and that is measured
            beside those that it has.
        size: height and width of the images; None where that is not said, which leaves nothing to measure.
        batch: images at a time.
        hardware: the paper's; "" where that is not said.
        prompts: points by which a network that is prompted is asked for as many objects of each image, or `everything`
            for what it finds where nobody asks.

    Raises:
        SegfolioError: several of the three times, one that is not above 0, a size that is none, prompts that are none.
    """

    table: str
    milliseconds: float | None = None
    seconds: float | None = None
    fps: float | None = None
    size: list[int] | None = None
    batch: int = 1
    hardware: str = ""
    prompts: int | str = 1

    def __post_init__(self) -> None:
        given = {unit: value for unit in _UNITS if (value := getattr(self, unit)) is not None}
        if len(given) > 1:
            found = " and ".join(given)
            raise SegfolioError(f"paper.speed has {found}; it takes one of {', '.join(_UNITS)}, of one image")
        if not (self.prompts == EVERYTHING or (isinstance(self.prompts, int) and self.prompts > 0)):
            raise SegfolioError(f"paper.speed.prompts is {self.prompts!r}; give 1 or more points, or {EVERYTHING}")
        if not min([*given.values(), self.batch]) > 0:
            raise SegfolioError(f"paper.speed is of {given} and a batch of {self.batch}; both are above 0")
        if self.size is not None and not (len(self.size) == 2 and min(self.size) > 0):
            raise SegfolioError(f"paper.speed.size is {self.size}; it is height and width in pixels, as [512, 512]")

    @property
    def seconds_per_image(self) -> float | None:
        """The paper's; None where it has none."""
        if self.fps is not None:
            return 1 / self.fps
        return self.seconds if self.milliseconds is None else self.milliseconds / 1e3

    @property
    def asked(self) -> str:
        """How many prompts, as it follows the name of a row that states several times; "" of one."""
        return "" if self.prompts == 1 else f", {self.prompts}{'' if self.prompts == EVERYTHING else ' points'}"


def checked_speeds(given: Any) -> list[Speed]:
    """A `speed:` block as it is written, or a list of them.

    Raises:
        SegfolioError: none in the list, another key, a value of another type, two of as many prompts, and what `Speed`
            raises.
    """
    if given == []:
        raise SegfolioError("paper.speed is empty; leave it out, or state a time")
    found = [_checked(block) for block in (given if isinstance(given, list) else [given])]
    prompts = [each.prompts for each in found]
    if twice := [each for each in prompts if prompts.count(each) > 1]:
        raise SegfolioError(f"paper.speed states two times of prompts: {twice[0]}; several differ in prompts")
    return found


def _checked(block: Any) -> Speed:
    kinds: dict[str, tuple[Any, str]] = {
        **dict.fromkeys(("table", "hardware"), (str, "a text")),
        **dict.fromkeys(_UNITS, ((int, float), "a number")),
        **{"size": (list, "[height, width]"), "batch": (int, "a number of images")},
        "prompts": ((int, str), f"a number of points, or {EVERYTHING}"),
    }
    if not isinstance(block, dict) or "table" not in block:
        raise SegfolioError(f"paper.speed is {block!r}, expected the keys {', '.join(kinds)}, table among them")
    for key, value in block.items():
        if key not in kinds:
            raise SegfolioError(f"paper.speed has no {key!r}; it takes {', '.join(kinds)}")
        kind, words = kinds[key]
        numbers = value if isinstance(value, list) else ()
        if not isinstance(value, kind) or isinstance(value, bool) or not all(type(n) is int for n in numbers):
            raise SegfolioError(f"paper.speed.{key} is {value!r}, expected {words}")
    return Speed(**block)


@dataclass(frozen=True)
class Timed:
    """One network of a measurement.

    Attributes:
        network: `network_hash` of what was measured.
        seconds: of one image, in each round.
        mebibytes: the most that weights and what a pass makes hold at one time.
        parameters: their number.
    """

    network: str
    seconds: list[float]
    mebibytes: float
    parameters: int


@dataclass
class Measurement:
    """Networks of one table, measured in turns on one machine; `<experiments>/speed/<table>-<device>.json`.

    Attributes:
        table: that of the rows.
        mode: how they were computed, in words.
        threads: of the processor; of one, times are those that it had.
        hardware: CPU and GPU, their numbers and memory.
        started: UTC.
        networks: by experiment, `<paper>/<variant>`, and of other prompts than one, `<paper>/<variant>, 10 points`.

    The others are those of `Record`.
    """

    table: str
    mode: str
    threads: int
    hardware: dict[str, Any]
    started: str
    commit: str | None = None
    dirty: bool | None = None
    lock: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    networks: dict[str, Timed] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """In few words: `NVIDIA H200`, `1 CPU thread`; with how it computes, where that is not in float32."""
        cpu = f"{self.threads} CPU thread{'s' * (self.threads > 1)}"
        return str(self.hardware.get("gpu") or cpu) + ("" if self.mode == "float32" else f" in {self.mode}")

    @property
    def how(self) -> str:
        """In the words of the ledger."""
        about = self.hardware
        alone = ", processor time" if self.threads == 1 else ""
        machine = about.get("gpu") or f"{self.threads} of {about.get('cores')} cores of {about.get('cpu')}{alone}"
        rounds = min((len(timed.seconds) for timed in self.networks.values()), default=0)
        code = f"{(self.commit or '')[:7]}{'+' if self.dirty else ''}"
        return (
            f"{self.table}: networks with random weights in turns on {machine}, {self.mode}, median of "
            f"{counted(rounds, 'round')}; torch {self.versions.get('torch', '?')}; {code}"
        )

    def path(self, experiments: Path) -> Path:
        machine = self.hardware.get("gpu") or f"{self.threads} of {self.hardware.get('cpu')}"
        mode = "" if self.mode == "float32" else f"-{_slug(self.mode)}"
        return experiments / FOLDER / f"{_slug(self.table)}-{_slug(str(machine))}{mode}.json"

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Measurement":
        """Raises a `SegfolioError` for a file that `write` did not write."""
        try:
            content = json.loads(path.read_text())
            networks = {name: Timed(**timed) for name, timed in content.pop("networks").items()}
            return cls(**content, networks=networks)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SegfolioError(
                f"{path} holds no measurement ({type(error).__name__}: {error}); write it anew with `segfolio speed`"
            ) from None


def network_hash(experiment: Mapping[str, Any], speed: Speed) -> str:
    """Of what is measured of an experiment as it is written: once it is edited, its times are no longer its."""
    model = experiment.get("model") or {}
    network = (model.get("init_args") or {}).get("architecture") if isinstance(model, dict) else None
    measured = [network, speed.size, speed.batch, *([] if speed.prompts == 1 else [speed.prompts])]
    return hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Times:
    """What was measured together: networks of one table on one machine.

    Attributes:
        how: in the words of the ledger.
        networks: by experiment, and of it by prompts: `time`, `time, 10 points`.
    """

    how: str
    networks: dict[str, dict[str, Timed]]


def times(experiments: Path, stated: Mapping[str, tuple[Mapping[str, Any], Sequence[Speed]]]) -> Times | None:
    """The measurement that has most of some experiments, as they are written now; None where none has any.

    Args:
        experiments: the folder that holds the measurements' own.
        stated: of each experiment, `<paper>/<variant>`, its content and the times that it states.
    """
    found = []
    if any(speeds for _, speeds in stated.values()):
        for measurement in filter(lambda each: each.commit, measurements(experiments)):
            networks: dict[str, dict[str, Timed]] = {}
            for name, (content, speeds) in stated.items():
                for speed in speeds:
                    timed = measurement.networks.get(name + speed.asked)
                    if speed.table == measurement.table and timed and timed.network == network_hash(content, speed):
                        networks.setdefault(name, {})[f"time{speed.asked}"] = timed
            found.append(Times(measurement.how, networks))
    best = max(found, key=lambda each: len(each.networks), default=None)
    return best if best and best.networks else None


def measurements(experiments: Path) -> list[Measurement]:
    """All that are kept beside the folders of the experiments."""
    return [Measurement.read(path) for path in sorted((experiments / FOLDER).glob("*.json"))]


class Ratio(NamedTuple):
    """How many times as long as the fastest a network takes, by the paper where that has a time, and by us where it was
    measured.

    Attributes:
        key: of the figure, one of each fastest and device.
        ours: the median of the rounds' ratios.
        how: in words, where ours is.
    """

    key: str
    figure: Figure
    expected: float | None
    ours: Spread | None = None
    how: str = ""


class Claim(NamedTuple):
    """A row that states a time; `network` is its `network_hash`, "" of one that cannot be run here."""

    speed: Speed
    network: str


def ratios(claims: Mapping[str, Claim], measured: Iterable[Measurement], said: list[str]) -> dict[str, list[Ratio]]:
    """Of each claim of a row, by its name: against the fastest row of its table, once for each measurement of
    it, or the paper's alone. The fastest, by the paper and of those that were measured together, has none.

    Args:
        said: gets a sentence for each network that was measured and is not shown.
    """
    measured = list(measured)
    found: dict[str, list[Ratio]] = {name: [] for name in claims}
    for table in dict.fromkeys(claim.speed.table for claim in claims.values()):
        rows = {name: claim for name, claim in claims.items() if claim.speed.table == table}
        for measurement in measured:
            if measurement.table == table:
                for name, ratio in _measured(rows, measurement, said):
                    found[name].append(ratio)
        stated = [name for name, claim in rows.items() if claim.speed.seconds_per_image is not None]
        fastest = _fastest(rows, [name for name in stated if rows[name].network] or stated)
        for name in stated:
            if fastest not in (None, name) and not found[name]:
                found[name].append(_ratio(rows, name, fastest))
    return found


def _fastest(rows: Mapping[str, Claim], among: Iterable[str]) -> str | None:
    """By the paper, the first of equals; None where that has no time."""
    stated = {name: seconds for name in among if (seconds := rows[name].speed.seconds_per_image) is not None}
    return min(stated, key=lambda name: stated[name], default=None)


def _measured(rows: Mapping[str, Claim], measurement: Measurement, said: list[str]) -> Iterator[tuple[str, Ratio]]:
    if not measurement.commit:
        said.append(f"the times of {measurement.table} on {measurement.device} are not shown: they come without commit")
        return
    shown = {}
    for name, timed in measurement.networks.items():
        if name in rows and rows[name].network == timed.network:
            shown[name] = timed
        else:
            said.append(
                f"the time of {name} on {measurement.device} is not shown: it is another network or row since; run "
                "`segfolio speed` with all of its table"
            )
    if (fastest := _fastest(rows, shown)) is None:
        return
    for name, timed in shown.items():
        if name != fastest:
            rounds = [a / b for a, b in zip(timed.seconds, shown[fastest].seconds, strict=True)]
            middle = statistics.median(rounds)
            ours = Spread(middle, None, middle, len(rounds))
            yield name, _ratio(rows, name, fastest, f" on {measurement.device}", ours, measurement.how)


def _ratio(
    rows: Mapping[str, Claim], name: str, fastest: str, device: str = "", ours: Spread | None = None, how: str = ""
) -> Ratio:
    theirs, least = (rows[each].speed.seconds_per_image for each in (name, fastest))
    expected = theirs / least if theirs and least else None
    near = fastest.removeprefix(f"{name.partition('/')[0]}/")  # of one folder the variant alone
    return Ratio(
        f"time{rows[name].speed.asked}{device}//{fastest}",
        Figure("time", f"x {near}", higher_is_better=False),
        expected,
        ours,
        how,
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
