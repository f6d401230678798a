"""A mistake in one sentence: a config's, of which jsonargparse reports every attempt, and what the machine lacks."""

import errno
import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from inspect import Parameter
from pathlib import Path
from traceback import walk_tb
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse._parameter_resolvers import get_signature_parameters
from jsonargparse._typehints import get_all_subclass_paths
from jsonargparse._util import import_object
from lightning.fabric.utilities.exceptions import MisconfigurationException

from segfolio.errors import SegfolioError, did_you_mean

_NOISE = re.compile(
    r"Does not validate|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but"
    r"|Expected a dot import path|Subclass types expect|^\s*- (?:a class path \(str\)|a dict with)"
)
_LEAST = {
    "seed_everything": 0,
    "trainer.accumulate_grad_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.val_check_interval": 1e-9,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.gradient_clip_val": 0,
    "trainer.num_sanity_val_steps": -1,
}
"""What numbers are at least that Lightning does not look at before it counts with them."""
_PACKAGE = re.compile(r"No module named '([\w.]+)'|Neither `([\w-]+)` nor|Requirement '([\w-]+)\S*' not met")
_CLASS = re.compile(r"class_path[= ]'([\w.]+)'")
_SAYS = ("class_path", "init_args", "dict_kwargs")
"""The keys of a class in a config."""


def check_numbers(config: Mapping[str, Any]) -> None:
    """Raises the one sentence on a number of a loop's config that nothing can be done with."""
    for key, least in _LEAST.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < least:
            raise SegfolioError(f"{key} is {value:g}; give {'more than 0' if 0 < least < 1 else f'at least {least}'}")


def check_classes(config: Any, key: str = "") -> None:
    """Raises the one sentence on a class of a config, as it was read, that has other keys than a class has.

    Args:
        key: of the part that `config` is; "" of the whole.
    """
    parts = enumerate(config) if isinstance(config, list) else config.items() if isinstance(config, dict) else ()
    if isinstance(config, dict) and "class_path" in config and (wrong := [k for k in config if k not in _SAYS]):
        raise SegfolioError(
            f"{key}: a class has class_path and init_args, and no {wrong[0]!r}{did_you_mean(str(wrong[0]), _SAYS)}"
        )
    for name, part in parts:
        check_classes(part, f"{key}.{name}".removeprefix("."))


@contextmanager
def told_by_class(config: Any) -> Iterator[None]:
    """What the constructor of a class of the config says against its arguments, in a sentence that names the class.

    Args:
        config: what is built.
    """
    try:
        yield
    except ValueError as error:  # the parser's, which holds all that it tried
        root, *others = _origins(error)
        if "NoneType" in str(root) and (key := next(_nulls(config), None)):
            raise SegfolioError(f"{key} is null, which it cannot be; leave it out") from error
        told = any(isinstance(each, SegfolioError) for each in (root, *others))
        if told or lacking(error) or root is error or not isinstance(root, (ValueError, MisconfigurationException)):
            raise
        raise SegfolioError(f"{_constructed(root)}: {_sentence(root)}") from error


@contextmanager
def told_of(key: str) -> Iterator[None]:
    """What is made of a part of the config says in its own words what is wrong with it: a sentence of that part."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        if isinstance(error, SegfolioError) or isinstance(error.__cause__, SegfolioError):
            raise
        raise SegfolioError(f"{key}: {_sentence(error)}") from error


def misconfigured(error: BaseException | None) -> str | None:
    """What Lightning says against its own settings, wherever it finds out; None of others."""
    unlogged = "Early stopping conditioned on metric"  # where names of losses are known once they are computed
    said = [e for e in _origins(error) if isinstance(e, MisconfigurationException) or str(e).startswith(unlogged)]
    return f"trainer: {_sentence(said[0])}" if said else None


def _nulls(config: Any, key: str = "") -> Iterator[str]:
    """The keys of arguments that are null, in place of a default that is not."""
    found = config.as_dict() if isinstance(config, Namespace) else config
    if isinstance(found, dict) and "class_path" in found:
        given = found.get("init_args") or {}
        for each in get_signature_parameters(import_object(found["class_path"]), None):
            value = given.get(each.name, ...)
            if value is None and each.default not in (None, Parameter.empty):
                yield f"{key}.{each.name}"
            elif isinstance(value, dict) and is_dataclass(each.annotation):
                lacks = (f.name for f in fields(each.annotation) if f.default is not None and f.name in value)
                yield from (f"{key}.{each.name}.{name}" for name in lacks if value[name] is None)
        found = given
    for name, part in found.items() if isinstance(found, dict) else ():
        yield from _nulls(part, f"{key}.{name}".removeprefix("."))


def _sentence(error: BaseException) -> str:
    return re.split(r"(?<=[.!]) (?=[A-Z])", " ".join(str(error).split()))[0].rstrip(".")


def _constructed(error: BaseException) -> str:
    """The class whose constructor raised."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name == "__init__")
    return next((type(frame.f_locals["self"]).__name__ for frame in frames if "self" in frame.f_locals), "config")


def explain(report: str, parser: ArgumentParser) -> str:
    """One sentence: which key, what was found, what was expected.

    Args:
        report: jsonargparse's message.
        parser: of the command.
    """
    place = ".".join(re.findall(r'Parser key "([\w.]+)"', report))
    if match := re.search(r"(?:Group '(\w+)' does not accept option|Option) '([\w.]+)'", report):
        before, after = report[: match.start()], report[match.end() :].split("\n", 1)[0]
        if classes := _CLASS.findall(after) or _CLASS.findall(before):
            wrong, accepted = ".".join(filter(None, match.groups())), _arguments(classes[-1])
            return (
                f"{place}: {classes[-1].rpartition('.')[2]} takes no {wrong!r}"
                f"{did_you_mean(wrong, [*accepted, *_SAYS])}"
                + f"; it takes {', '.join(dict.fromkeys(name.partition('.')[0] for name in accepted))}"
                * bool(accepted)
            )
    unknown = (
        r"unrecognized arguments: --([\w.]+)|(?:Group '(\w+)' does|does) not accept option '([\w.]+)'"
        r"|Option '([\w.]+)' is not accepted"
    )
    if match := re.search(unknown, report):
        key, keys = ".".join(filter(None, match.groups())), [action.dest for action in parser._actions]
        if not place:
            return f"there is no key {key!r}{did_you_mean(key, keys)}"
        return f"{place}: there is no key {key!r}{did_you_mean(key, [*_arguments(_classes(report)[-1]), *_SAYS])}"
    if match := re.search(r"Expected a dot import path string: ([A-Z]\w+)$", report, re.MULTILINE):
        return f"{place}: there is no class {match[1]}{_nearest_class(match[1], parser, report)}".removeprefix(": ")
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
    return list(_parser_of(dotted).get_defaults().keys())


def _parser_of(dotted: str) -> ArgumentParser:
    module, _, name = dotted.rpartition(".")
    parser = ArgumentParser()
    with suppress(ImportError, AttributeError, ValueError):
        parser.add_class_arguments(getattr(importlib.import_module(module), name), fail_untyped=False)
    return parser


def _classes(report: str) -> list[str]:
    """The classes within which a report found fault, the outermost first."""
    return re.findall(r"Problem with given class_path '([\w.]+)'", report) or [""]


def _nearest_class(name: str, parser: ArgumentParser, report: str) -> str:
    """The end of a sentence on the name of a class without its module, which is known where it is imported."""
    known: list[str] = []
    for key, cls in re.findall(r"Parser key \"([\w.]+)\"|Problem with given class_path '([\w.]+)'", report):
        if cls:
            parser = _parser_of(cls)
        else:
            hints = [getattr(action, "_typehint", None) for action in parser._actions if action.dest == key]
            known = [path for hint in hints for path in get_all_subclass_paths(hint)]
    own, fitting = ({path.rpartition(".")[2].lower(): path for path in paths} for paths in (_own_classes(), known))
    for classes, cutoff in ((own, 0.8), (fitting, 0.6)):
        if near := get_close_matches(name.lower(), classes, n=1, cutoff=cutoff):
            return f"; did you mean {(own | fitting)[near[0]]!r}?"
    return ""


def _own_classes() -> Iterator[str]:
    """Every class of the house, imported or not."""
    package = Path(__file__).parent
    for file in sorted(package.rglob("*.py")):
        module = ".".join(file.relative_to(package.parent).with_suffix("").parts)
        yield from (f"{module}.{name}" for name in re.findall(r"^class ([A-Z]\w+)", file.read_text(), re.MULTILINE))


def _names(module: str) -> list[str]:
    try:
        return dir(importlib.import_module(module))
    except ImportError:
        return []


def _exists(dotted: str) -> bool:
    module, _, name = dotted.rpartition(".")
    return name in _names(module)
