"""A mistake in one sentence: a config's, of which jsonargparse reports every attempt, and what the machine lacks."""

import errno
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.fabric.utilities.exceptions import MisconfigurationException

from segfolio.errors import SegfolioError, did_you_mean

_NOISE = re.compile(
    r"Does not validate|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but"
    r"|Expected a dot import path"
)
_LEAST = {
    "seed_everything": 0,
    "trainer.accumulate_grad_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.val_check_interval": 1e-9,
    "trainer.check_val_every_n_epoch": 1,
}
"""What numbers are at least that Lightning does not look at before it counts with them."""
_PACKAGE = re.compile(r"No module named '([\w.]+)'|Neither `([\w-]+)` nor|Requirement '([\w-]+)\S*' not met")
_CLASS = re.compile(r"class_path[= ]'([\w.]+)'")


def check_numbers(config: Mapping[str, Any]) -> None:
    """Raises the one sentence on a number of a loop's config that nothing can be done with."""
    for key, least in _LEAST.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < least:
            raise SegfolioError(f"{key} is {value:g}; give {'more than 0' if 0 < least < 1 else f'at least {least}'}")


@contextmanager
def told_of(key: str) -> Iterator[None]:
    """What is made of a part of the config says in its own words what is wrong with it: a sentence of that part."""
    try:
        yield
    except (ValueError, TypeError, MisconfigurationException) as error:
        if isinstance(error, SegfolioError) or isinstance(error.__cause__, SegfolioError):
            raise
        sentence = re.split(r"(?<=[.!]) (?=[A-Z])", " ".join(str(error).split()))[0]
        raise SegfolioError(f"{key}: {sentence.rstrip('.')}") from error


def explain(report: str, keys: Iterable[str]) -> str:
    """One sentence: which key, what was found, what was expected.

    Args:
        report: jsonargparse's message.
        keys: all keys that the command takes.
    """
    place = ".".join(re.findall(r'Parser key "([\w.]+)"', report))
    if match := re.search(r"(?:Group '(\w+)' does not accept option|Option) '([\w.]+)'", report):
        before, after = report[: match.start()], report[match.end() :].split("\n", 1)[0]
        if classes := _CLASS.findall(after) or _CLASS.findall(before):
            wrong, accepted = ".".join(filter(None, match.groups())), _arguments(classes[-1])
            return (
                f"{place}: {classes[-1].rpartition('.')[2]} takes no {wrong!r}{did_you_mean(wrong, accepted)}; "
                f"it takes {', '.join(dict.fromkeys(name.partition('.')[0] for name in accepted))}"
            )
    if match := re.search(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", report):
        key = match[1] or match[2]
        return f"there is no key {key!r}{did_you_mean(key, keys)}"
    if match := re.search(r"Got value: ([A-Za-z_][\w.]*)$|Namespace\(class_path='([\w.]+)'", report):
        name = match[1] or match[2]
        if "." in name and not _exists(name):
            module, _, cls = name.rpartition(".")
            return f"{place}: there is no class {name}{did_you_mean(cls, _names(module))}"
    if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", report):
        return f"{place}: there is no class {match[1]}.{match[2]}{did_you_mean(match[2], _names(match[1]))}"
    lines = [
        re.sub(r"Type \S*Callable\[.*?expects a function or a callable class: ", "", line)
        for line in report.splitlines()
    ]
    lines = [re.sub(r"\. Got value: Namespace\(.*", "", line).strip(" -") for line in lines]
    lines = [re.sub(r"Problem with given class_path '[\w.]+':\s*", "", line) for line in lines]
    told = [re.sub(r'^Parser key "[\w.]+":\s*', "", line) for line in lines if line and not _NOISE.search(line)]
    reason = re.sub(r"<class '(\w+)'>", r"\1", "; ".join(line for line in told if line)).replace(":;", ":")
    return f"{place}: {reason}" if place else reason


def lacking(error: BaseException | None) -> str | None:
    """What an exception says the machine lacks, and what to do: room on a disk or in shared memory, a package; None of
    others."""
    origins = list(_origins(error))
    if full := [each for each in origins if isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT)]:
        return _full_disk(next((Path(each.filename) for each in full if each.filename), None))
    for each in origins:
        if package := _PACKAGE.search(str(each)):  # the parser keeps the text alone
            name = next(filter(None, package.groups())).partition(".")[0]
            return f"{name} is not installed, which the config asks for: pip install {name}"
        if "shared memory" in str(each) or "unable to write to file </torch" in str(each):
            return (
                "the shared memory by which loading processes hand over their batches is full; lower data.num_workers "
                "(0 needs none), or enlarge /dev/shm (of a container: --shm-size)"
            )
    return None


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    """What an exception came from, then it; the first is the root."""
    if error is not None:
        yield from _origins(error.__cause__ or error.__context__)
        yield error


def _full_disk(file: Path | None) -> str:
    if file is None:
        return "a disk is full; make room and start again"
    run = file.parent.parent if file.parent.name in ("checkpoints", "wandb") else file.parent
    last = run / "checkpoints" / "last.ckpt"
    again = f"go on with `segfolio fit --ckpt_path {last}`" if last.is_file() else "start again"
    return f"the disk is full: {file} could not be written; make room and {again}"


def _arguments(dotted: str) -> list[str]:
    """What a class takes in a config, its parents' included; of a group of arguments `group.name` of each."""
    module, _, name = dotted.rpartition(".")
    parser = ArgumentParser()
    try:
        parser.add_class_arguments(getattr(importlib.import_module(module), name), fail_untyped=False)
    except (ImportError, AttributeError, ValueError):
        return []
    return list(parser.get_defaults().keys())


def _names(module: str) -> list[str]:
    try:
        return dir(importlib.import_module(module))
    except ImportError:
        return []


def _exists(dotted: str) -> bool:
    module, _, name = dotted.rpartition(".")
    return name in _names(module)
