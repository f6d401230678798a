"""Starting from the weights of another run, whichever classes it had."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from segfolio.families.checkpoint import describe, network_weights, read_checkpoint

_NAMED = 3  # weights that a message names


def transfer(
    checkpoint: Path, network: nn.Module, labels: LabelSpace, architecture: Callable[[int], nn.Module]
) -> None:
    """Take over into `network` what fits of a run's checkpoint, and say in one sentence what did.

    Weights of equal name and shape are taken as they are. Of those with a place per class, in one dimension or
    several, the places of classes of equal name are taken, and other classes keep their initialisation.

    Args:
        labels: of `network`.
        architecture: what made `network`. Where the old classes are others but as many, it is called once more,
            with another number: this shows which dimensions are theirs.

    Raises:
        SegfolioError: no checkpoint of a run, or one of which at most the places of classes fit.
    """
    content = read_checkpoint(checkpoint)
    there = content.get("segfolio", {})
    if "labels" not in there:
        raise SegfolioError(f"{checkpoint} does not say of which classes it is; expected the checkpoint of a run")
    old, new = tuple(there["labels"]["names"]), labels.names
    stored, built = network_weights(content), network.state_dict()
    other = {name: value.shape for name, value in (built if old == new else stored).items()}
    if old != new and len(old) == len(new):
        with torch.random.fork_rng(devices=[]):
            other = {name: value.shape for name, value in architecture(len(new) + 1).state_dict().items()}

    common = [name for name in new if name in old]
    there_at, here_at = (torch.tensor([names.index(n) for n in common], dtype=torch.int64) for names in (old, new))
    taken: dict[str, Tensor] = {}
    misfits: list[str] = []
    for name, value in built.items():
        pairs = zip(value.shape, other.get(name, ()), strict=False)
        dims = [d for d, (size, changed) in enumerate(pairs) if size != changed]
        expected: list[int | None] = list(value.shape)
        for d in dims:
            expected[d] = len(old) if value.shape[d] == len(new) else None  # not places of classes alone
        found = list(stored[name].shape) if name in stored else None
        if found != expected:
            misfits.append(f"{name} is {list(value.shape)} here and {found or 'missing'} there")
        elif dims:
            taken[name] = value.clone()
            taken[name][_at(value, dims, here_at)] = stored[name][_at(stored[name], dims, there_at)].to(value)
        else:
            taken[name] = stored[name]
    told = "; ".join(misfits[:_NAMED]) + ("; ..." if len(misfits) > _NAMED else "")
    if not any(value.ndim and len(new) not in value.shape for value in taken.values()):  # at most heads
        raise SegfolioError(
            f"nothing of {checkpoint} ({there['architecture']}) fits {describe(network, labels)['architecture']}: "
            f"{told}; init_from takes a run of the same architecture"
        )
    network.load_state_dict(taken, strict=False)
    fresh = [name for name in new if name not in old]
    rank_zero_info(
        f"{len(taken)} of {len(built)} weights are taken from {checkpoint}; classes taken over: "
        f"{', '.join(common) or 'none'}; new: {', '.join(fresh) or 'none'}{f'; not taken: {told}' if misfits else ''}"
    )


def _at(value: Tensor, dims: Sequence[int], places: Tensor) -> tuple[Tensor, ...]:
    """The index of `places` in each of `dims` and of everything in the others."""
    chosen = [places if d in dims else torch.arange(size) for d, size in enumerate(value.shape)]
    return torch.meshgrid(*chosen, indexing="ij")
