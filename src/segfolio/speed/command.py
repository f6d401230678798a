"""`segfolio speed`: the networks of a paper's table, measured side by side on this machine."""

import argparse
import math
import platform
import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchvision

import segfolio
from segfolio.errors import SegfolioError
from segfolio.families.base import Family
from segfolio.ledger.command import Parser
from segfolio.ledger.record import code, machine
from segfolio.ledger.speed import Measurement, Timed
from segfolio.speed.measure import PRECISIONS, Mode, in_turns, peak_bytes, weight_bytes
from segfolio.speed.networks import SpeedRow, forward, images
from segfolio.table import table


def speed(arguments: Sequence[str]) -> None:
    """`CONFIG CONFIG ... [--device cuda] [--threads 1] [--precision bf16] ...`; prints and keeps a measurement.

    Raises:
        SegfolioError: a mistake in the arguments, configs that cannot be measured or are of several tables, before
            anything is built.
    """
    parser = Parser("speed")
    parser.add_argument("configs", type=Path, nargs="+", metavar="CONFIG", help="experiments of one table")
    parser.add_argument("--device", type=_device, default=None, help="cpu or cuda; cuda where there is one")
    parser.add_argument("--threads", type=_positive, default=1, help="of the processor; 1 if not given")
    parser.add_argument("--precision", choices=PRECISIONS, default="32", help="32 is float32 without TF32")
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    parser.add_argument("--channels_last", action="store_true", help="images and weights lie so in memory")
    parser.add_argument("--rounds", type=_positive, default=10, help="in each of which all networks take their turn")
    parser.add_argument("--warm_up", type=_positive, default=2, help="rounds before the first that counts")
    parser.epilog = (
        "Weights are random and nothing is downloaded. The measurement is kept in speed/ beside the folders of the "
        "experiments, where `segfolio results` finds it."
    )
    given = parser.parse_args(arguments)
    rows = of_one_table(given.configs)
    device = given.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    measurement = measured(
        rows,
        Mode(given.precision, given.compile, given.channels_last),
        device,
        given.threads,
        given.rounds,
        given.warm_up,
    )
    path = measurement.path(given.configs[0].resolve().parents[1])
    measurement.write(path)
    print(f"{measurement.how}\n\n{_shown(rows, measurement)}\n\nmeasurement: {path}")


def of_one_table(configs: Sequence[Path]) -> list[SpeedRow]:
    """The rows of experiments, of the one table that all of them are of.

    Raises:
        SegfolioError: one row alone, a config twice, one that cannot be measured, configs of several tables.
    """
    read = [SpeedRow.read(path) for path in configs]
    first, *others = read
    tables = dict.fromkeys(row.speed.table for row in first)
    for rows in others:
        shared = {row.speed.table for row in rows}
        if not (left := [table for table in tables if table in shared]):
            raise SegfolioError(
                f"{first[0].name} is of the table {next(iter(tables))!r} and {rows[0].name} of "
                f"{rows[0].speed.table!r}; give configs of one table, as their ratios are compared with the paper's"
            )
        tables = dict.fromkeys(left)
    table = next(iter(tables))
    every = [row for rows in read for row in rows if row.speed.table == table]
    found = {row.name: row for row in every}
    if len(found) < max(2, len(every)):
        raise SegfolioError(
            f"{configs[0]} is the only config or given twice; `segfolio speed` compares two or more networks of one "
            "table"
        )
    if all(row.speed.seconds_per_image is None for row in every):
        raise SegfolioError(f"of the table {table!r} no config given states a time of the paper; add one that does")
    return list(found.values())


def measured(
    rows: Sequence[SpeedRow], mode: Mode, device: torch.device, threads: int, rounds: int, warm_up: int
) -> Measurement:
    """The networks in turns; all are in memory at one time, each once."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        passes: dict[str, Callable[[], object]] = {}
        families: dict[Path, Family] = {}
        for row in rows:
            torch.manual_seed(0)
            family = families.get(row.path) or families.setdefault(row.path, row.family())
            given = images(row.speed.batch, row.size, family.image_space, device)
            passes[row.name] = forward(family, given, mode, row.speed.prompts)
        modes = dict.fromkeys(passes, mode)
        seconds = in_turns(passes, rounds, warm_up, device, modes)
        timed = {}
        for row in rows:
            network = families[row.path].network
            with mode.computing(device):
                peak = peak_bytes(passes[row.name], device) + weight_bytes(network)
            each = [one / row.speed.batch for one in seconds[row.name]]
            count = sum(p.numel() for p in network.parameters())
            timed[row.name] = Timed(row.network, each, round(peak / 2**20, 1), count)
    finally:
        torch.set_num_threads(before)
    return Measurement(
        table=rows[0].speed.table,
        mode=mode.words,
        threads=threads,
        hardware={**machine(), "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None},
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        **code(),
        versions={"python": platform.python_version(), **{m.__name__: str(m.__version__) for m in _MODULES}},
        networks=timed,
    )


_MODULES: tuple[Any, ...] = (torch, torchvision, segfolio)


def _shown(rows: Sequence[SpeedRow], measurement: Measurement) -> str:
    """A line for each row, the fastest by the paper first, and last those that it has no time of; ratios are to it."""
    stated = {row.name: seconds for row in rows if (seconds := row.speed.seconds_per_image) is not None}
    ordered = sorted(rows, key=lambda row: stated.get(row.name, math.inf))
    first = measurement.networks[ordered[0].name].seconds
    header = ("network", "image", "paper ms", "ours ms", "images/s", "paper", "ours", "factor", "MiB", "parameters")
    lines = []
    for row in ordered:
        timed, seconds = measurement.networks[row.name], stated.get(row.name)
        middle = statistics.median(timed.seconds)
        ours = statistics.median(a / b for a, b in zip(timed.seconds, first, strict=True))
        image = f"{row.size[1]}x{row.size[0]}" + (f" x {row.speed.batch}" if row.speed.batch > 1 else "")
        times = f"{1e3 * middle:.1f}", f"{1 / middle:.2f}"
        memory = f"{timed.mebibytes:.0f}", f"{timed.parameters / 1e6:.2f} M"
        if seconds is None:
            lines.append((row.name, image, "-", *times, "-", f"x {ours:.2f}", "-", *memory))
            continue
        theirs = seconds / stated[ordered[0].name]
        factors = f"x {theirs:.2f}", f"x {ours:.2f}", f"{ours / theirs:.2f}"
        lines.append((row.name, image, f"{1e3 * seconds:.1f}", *times, *factors, *memory))
    theirs_on = sorted({row.speed.hardware for row in rows} - {""})
    told = f"\n\npaper: on {', '.join(theirs_on)}" if theirs_on else ""
    return table(header, lines, right=range(1, len(header))) + told


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of them; give 1 or more")
    return int(text)


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no device; give cpu or cuda") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise argparse.ArgumentTypeError(f"there is no device {text!r} here; give {_present()}")
    return device


def _present() -> str:
    return "cpu or cuda" if torch.cuda.is_available() else "cpu"
