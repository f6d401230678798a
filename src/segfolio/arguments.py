"""The command line before it is parsed: what a run's checkpoint already says need not be typed."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from segfolio.errors import SegfolioError
from segfolio.families.checkpoint import read_checkpoint
from segfolio.mistakes import check_classes
from segfolio.runs import experiment_name, run_of
from segfolio.yaml_file import read_yaml

_GROUPS = ("test", "parameters", "lora", "prompts")
"""Arguments of families that are no classes and have keys of their own."""


def with_config_of_run(arguments: Sequence[str]) -> list[str]:
    """Put a path in place of `--ckpt_path last`, `best` and of a run's folder, and add `-c <run>/config.yaml` where a
    checkpoint of a run is given and no config.

    `last` and `best` are of the run in `--output`, or of the latest of the config's. Of a folder `fit` takes the last
    checkpoint, as going on does, and the others the best, if there is one.

    Raises:
        SegfolioError: no such checkpoint, or one that cannot be read.
    """
    arguments = _null_in_braces(arguments)
    checkpoint, config = _given(arguments, "--ckpt_path"), _given(arguments, "-c", "--config")
    names = {argument.partition("=")[0] for argument in arguments}
    asks = any(name == "-h" or name.split(".")[-1] in ("--help", "help") for name in names)
    if not asks and not {"-c", "--config", "--ckpt_path", "--model"} & names:
        raise SegfolioError(f"`segfolio {arguments[0]}` needs an experiment: -c CONFIG, or --ckpt_path of a run")
    for each in _all_given(arguments, "-c", "--config"):
        check_classes(read_yaml(Path(each), "paper, model, data, trainer"))
    if checkpoint in (None, "null"):
        return arguments
    path = Path(str(checkpoint))
    if checkpoint in ("last", "best"):
        latest = Path("runs", experiment_name(Path(config or "config.yaml")), "latest")
        path = Path(_given(arguments, "--output") or latest) / "checkpoints" / f"{checkpoint}.ckpt"
        arguments += ["--ckpt_path", str(path)]
    elif path.is_dir():
        path = _of_run(path, arguments[0])
        rank_zero_info(f"checkpoint: {path}")
        arguments += ["--ckpt_path", str(path)]
    read_checkpoint(path)
    if config:
        return arguments
    above = run_of(path)
    if above is None:
        raise SegfolioError(f"there is no config.yaml above {path}; give the experiment with -c CONFIG")
    # its `output` was the folder of the training
    return [arguments[0], "-c", str(above / "config.yaml"), "--output=null", *_place(above), *arguments[1:]]


def _place(run: Path) -> list[str]:
    """What puts another machine in place of the run's, where this one has no such device."""
    trained_on = (read_yaml(run / "config.yaml", "trainer").get("trainer") or {}).get("accelerator", "auto")
    if trained_on not in ("gpu", "cuda") or torch.cuda.is_available():
        return []
    rank_zero_info(f"the run was on {trained_on}, which is not here; this goes on with what is, on one device")
    return [f"--trainer.{key}" for key in ("accelerator=auto", "devices=1", "strategy=auto", "num_nodes=1")]


def _of_run(folder: Path, loop: str) -> Path:
    """The checkpoint that a loop works with, of a run or of its folder of checkpoints."""
    best = (folder if folder.name == "checkpoints" else folder / "checkpoints") / "best.ckpt"
    return best if loop != "fit" and best.is_file() else best.with_name("last.ckpt")


def _null_in_braces(arguments: Sequence[str]) -> list[str]:
    """`--a.architecture.init_args.b null` as `--a.architecture={"init_args": {"b": null}}`, and
    `--model.test.also null` as `--model.test={"also": null}`.

    jsonargparse 4.53 takes null for the text "None" where a class is called with further arguments, and in what is
    no class but has keys of its own.
    """
    joined = "\n".join(arguments)
    model = r"--model\.(?:init_args\.)?(?!init_args\.)"
    for pattern, braces in (
        (
            rf"^(--.*\.architecture|{model}\w+(?:\.\w+)*?)\.init_args\.(\w+)(?:=|\n)null$",
            r'\1={"init_args": {"\2": null}}',
        ),
        (rf"^({model}(?:{'|'.join(_GROUPS)}))\.(\w+)(?:=|\n)null$", r'\1={"\2": null}'),
    ):
        joined = re.sub(pattern, braces, joined, flags=re.MULTILINE)
    return joined.split("\n")


def _given(arguments: Sequence[str], *names: str) -> str | None:
    """The value of `--name value` or `--name=value`; the last one counts."""
    return next(reversed(_all_given(arguments, *names)), None)


def _all_given(arguments: Sequence[str], *names: str) -> list[str]:
    found = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in names:
            found.append(value if equals else following)
    return found
