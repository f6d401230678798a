"""`segfolio inspect`: reads a whole dataset before training, and says what it holds and what is wrong."""

import json
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from segfolio.data.checks.problems import Problem
from segfolio.data.module import DataModule
from segfolio.empty_keys import keep_empty_keys
from segfolio.errors import SegfolioError
from segfolio.files import check_page, write_atomically
from segfolio.inspection.report import Report
from segfolio.inspection.scan import inspect_dataset
from segfolio.inspection.summary import text
from segfolio.ledger.command import Parser
from segfolio.mistakes import check_classes, explain
from segfolio.yaml_file import read_yaml

keep_empty_keys()


def inspect(arguments: Sequence[str]) -> int:
    """`CONFIG | --data DATASET [--json] [--html FILE] [--data.root DIR] ...`; returns the exit status, 1 where
    training would fail or be wrong.

    Raises:
        SegfolioError: a mistake in the arguments or in the config.
    """
    parser = Parser("inspect")
    parser.add_argument("config", type=Path, nargs="?", help="YAML with a data: block, or with its keys alone")
    parser.add_argument("--data", metavar="DATASET", help="in place of a config, the class of a dataset: CocoInstances")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with examples of each class")
    parser.epilog = "Every key of the data block can be given as well: --data.root DIR"
    own, overrides = divided(arguments)
    given, others = parser.parse_known_args(own)
    overrides += others
    check_page(given.html)
    if (given.config is None) == (given.data is None):
        raise SegfolioError("`segfolio inspect` needs CONFIG, or --data DATASET and --data.root DIR")
    config = _of_dataset(given.data) if given.data else read_yaml(given.config, "data: or dataset:")
    report = _report(data_module(config, given.config or given.data, overrides))
    print(json.dumps(report.as_dict(), indent=2) if given.json else text(report))
    if given.html:
        from segfolio.inspection.page import page

        write_atomically(given.html, page(report).encode())
    return 1 if report.fatal else 0


def divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is said to inspect itself, and the keys of the data block with their values."""
    own, overrides, rest = list[str](), list[str](), iter(arguments)
    for argument in rest:
        if not argument.startswith("--data."):
            own.append(argument)
        elif "=" in argument:
            overrides.append(argument)
        else:
            overrides += [argument, next(rest, "")]
    return own, overrides


def _of_dataset(name: str) -> dict[str, Any]:
    """The config of a dataset alone, by its class path or its name in `segfolio.data.datasets`."""
    return {"dataset": {"class_path": name if "." in name else f"segfolio.data.datasets.{name}"}}


def data_module(content: Mapping[str, Any], source: Path | str, overrides: Sequence[str] = ()) -> DataModule:
    """The data module of a config, its dataset not yet opened.

    Args:
        source: of the config, for errors.

    Raises:
        SegfolioError: a mistake in it or in the overrides, in one sentence.
    """
    block = content.get("data", content)
    check_classes(block, "data" if block is not content else "")
    if not isinstance(block, dict) or not {"data", "dataset"} & content.keys():
        raise SegfolioError(f"{source} holds neither data: with keys below it nor dataset:; give one that `fit` takes")
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(DataModule, "data")
    try:
        parsed = parser.parse_args(list(overrides), namespace=parser.parse_object({"data": block}))
    except ArgumentError as error:
        raise SegfolioError(f"{source}: {explain(str(error), parser)}") from error
    return parser.instantiate(parsed).data


def _report(data: DataModule) -> Report:
    """Of the splits of training, validation and test; `test` may be missing, as fit needs none."""
    trained_on, *evaluated = data.train_split, data.val_split, data.test_split
    names = dict.fromkeys((trained_on, *evaluated))
    optional = {"test"} - {trained_on, data.val_split}
    report = inspect_dataset({name: partial(data.split, name) for name in names}, optional)
    if trained_on in evaluated:
        report.problems.append(Problem("split", "both trained and evaluated on", trained_on))
    return report
