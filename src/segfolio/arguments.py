"""The command line before it is parsed: what a run's checkpoint already says need not be typed."""

import re
from collections.abc import Sequence
from pathlib import Path

from segfolio.errors import SegfolioError
from segfolio.families.checkpoint import read_checkpoint
from segfolio.runs import experiment_name, run_of
from segfolio.yaml_file import read_yaml


def with_config_of_run(arguments: Sequence[str]) -> list[str]:
    """Put the path of the run's newest checkpoint in place of `--ckpt_path last`, and add
    `-c <run>/config.yaml` where a checkpoint of a run is given and no config.

    Raises:
        SegfolioError: no such checkpoint, or one that cannot be read.
    """
    arguments = _null_in_braces(arguments)
    checkpoint, config = _given(arguments, "--ckpt_path"), _given(arguments, "-c", "--config")
    if not {"-c", "--config", "--ckpt_path", "--model", "-h", "--help"} & {a.partition("=")[0] for a in arguments}:
        raise SegfolioError(f"`segfolio {arguments[0]}` needs an experiment: -c CONFIG, or --ckpt_path of a run")
    if config:
        read_yaml(Path(config), "paper, model, data, trainer")
    if checkpoint in (None, "null"):
        return arguments
    path = Path(str(checkpoint))
    if checkpoint == "last":
        latest = Path("runs", experiment_name(Path(config or "config.yaml")), "latest")
        path = Path(_given(arguments, "--output") or latest) / "checkpoints" / "last.ckpt"
        arguments += ["--ckpt_path", str(path)]
    read_checkpoint(path)
    if config:
        return arguments
    above = run_of(path)
    if above is None:
        raise SegfolioError(f"there is no config.yaml above {path}; give the experiment with -c CONFIG")
    # its `output` was the folder of the training
    return [arguments[0], "-c", str(above / "config.yaml"), "--output=null", *arguments[1:]]


def _null_in_braces(arguments: Sequence[str]) -> list[str]:
    """`--a.architecture.init_args.b null` as `--a.architecture={"init_args": {"b": null}}`.

    jsonargparse 4.53 takes null for the text "None" where a class is called with further arguments.
    """
    joined = "\n".join(arguments)
    pattern = r"^(--.*\.architecture)\.init_args\.(\w+)(?:=|\n)null$"
    return re.sub(pattern, r'\1={"init_args": {"\2": null}}', joined, flags=re.MULTILINE).split("\n")


def _given(arguments: Sequence[str], *names: str) -> str | None:
    """The value of `--name value` or `--name=value`; the last one counts."""
    found = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        name, equals, value = argument.partition("=")
        if name in names:
            found = value if equals else following
    return found
