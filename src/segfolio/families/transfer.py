"""Starting from the weights of another run, whichever classes it had."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from segfolio.families.checkpoint import architecture_of, plain_weights, read_checkpoint

_NAMED = 3  # weights that a message names


@dataclass(frozen=True)
class Classes:
    """What tells the rows of classes from other weights.

    Attributes:
        labels: of the network.
        architecture: what made the network. Where the old classes are others, it is called once more, with one class
            more: this shows which dimensions are theirs, and how many rows each class has in them.
        rows: the class of each row, of a label space; None of what is no class, such as the background.
    """

    labels: LabelSpace
    architecture: Callable[[int], nn.Module]
    rows: Callable[[LabelSpace], tuple[str | None, ...]]


def transfer(checkpoint: Path, network: nn.Module, classes: Classes | None = None) -> None:
    """Take over into `network` what fits of a run's checkpoint, and say in one sentence what did.

    Weights of equal name and shape are taken as they are. Of those with rows per class, in one dimension or several,
    the rows of classes of equal name are taken, and other classes keep their initialisation; all do where the run was
    one without labels.

    Args:
        classes: of `network`; None of one without.

    Raises:
        SegfolioError: no checkpoint of a run, or one of which at most the rows of classes fit.
    """
    content = read_checkpoint(checkpoint)
    there = content.get("segfolio")
    if there is None:
        raise SegfolioError(f"{checkpoint} does not say which network it is of; expected the checkpoint of a run")
    stored, built = plain_weights(content), network.state_dict()
    new = classes.rows(classes.labels) if classes else ()
    old = classes.rows(LabelSpace(**there["labels"])) if classes and "labels" in there else ()
    wider = _with_one_class_more(classes) if classes and old != new else built

    common = [name for name in new if name in old]
    there_at, here_at = (torch.tensor([rows.index(n) for n in common], dtype=torch.int64) for rows in (old, new))
    taken: dict[str, Tensor] = {}
    misfits: list[str] = []
    heads: set[str] = set()
    for name, value in built.items():
        sizes = zip(value.shape, wider.get(name, value).shape, strict=True)
        dims = {d: more - size for d, (size, more) in enumerate(sizes) if size != more}  # rows per class
        expected: list[int | None] = list(value.shape)
        for d, rows in dims.items():
            expected[d] = rows * len(old) if value.shape[d] == rows * len(new) else None  # not rows of classes alone
        found = list(stored[name].shape) if name in stored else None
        if found != expected:
            misfits.append(f"{name} is {list(value.shape)} here and {found or 'missing'} there")
        elif dims:
            heads.add(name)
            taken[name] = value.clone()
            taken[name][_at(value, dims, here_at)] = stored[name][_at(stored[name], dims, there_at)].to(value)
        else:
            taken[name] = stored[name]
    told = "; ".join(misfits[:_NAMED]) + ("; ..." if len(misfits) > _NAMED else "")
    of_classes = heads | {name for name, value in taken.items() if old == new and len(new) in value.shape}
    if not any(value.ndim and name not in of_classes for name, value in taken.items()):
        raise SegfolioError(
            f"nothing of {checkpoint} ({there['architecture']}) fits {architecture_of(network)}: "
            f"{told}; init_from takes a run of the same architecture, or of a part of it under the same names"
        )
    network.load_state_dict(taken, strict=False)
    carried = [name for name in common if name and (heads or old == new)]
    fresh = [name for name in new if name and name not in carried]
    said = [f"{len(taken)} of {len(built)} weights are taken from {checkpoint}"]
    if classes:
        said.append(f"classes taken over: {', '.join(carried) or 'none'}; new: {', '.join(fresh) or 'none'}")
    if misfits:
        said.append(f"not taken: {told}")
    rank_zero_info("; ".join(said))


def _with_one_class_more(classes: Classes) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the network at hand has said it all
        return classes.architecture(classes.labels.num_classes + 1).state_dict()


def _at(value: Tensor, dims: Mapping[int, int], classes: Tensor) -> tuple[Tensor, ...]:
    """The index of the rows of `classes` in each of `dims`, so many per class, and of everything in the others."""
    chosen = [
        (classes[:, None] * dims[d] + torch.arange(dims[d])).flatten() if d in dims else torch.arange(size)
        for d, size in enumerate(value.shape)
    ]
    return torch.meshgrid(*chosen, indexing="ij")
