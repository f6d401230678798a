"""The speed card: a network of every family, training and inference, in every way to compute, ours beside a peer's.

Ours is the family: `compute_losses` and the optimiser in training, its forward pass in evaluation. The peer is the
model of a library in a bare loop, see `peers`. Both get the same batch of drawn images, which is on the device. What is
measured is kept after every line, and a second call measures what is missing.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu import peers
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.peers import Peer
from segfolio.architectures.dilated.deeplab_v3 import TORCHVISION, DeepLabV3
from segfolio.architectures.mask_classification.maskformer import MaskFormer
from segfolio.architectures.promptable.sam import SAM
from segfolio.architectures.region_based.mask_rcnn import MaskRCNN
from segfolio.architectures.transformer.segformer import SegFormer
from segfolio.data.batches import collate
from segfolio.data.datasets import Shapes
from segfolio.data.sample import Batch, Size
from segfolio.families import Detection, MaskClassification, PerPixel, Promptable
from segfolio.families.base import Family
from segfolio.losses import CrossEntropy, MaskClassificationLoss
from segfolio.speed.measure import Mode, in_turns, peak_bytes, weight_bytes
from segfolio.speed.networks import forward
from segfolio.table import table

MODES = {
    "fp32": Mode(),
    "TF32": Mode("tf32"),
    "bf16": Mode("bf16"),
    "bf16, channels_last": Mode("bf16", channels_last=True),
    "bf16, compile": Mode("bf16", compile=True),
}
TINY_MODES = ("fp32", "bf16, channels_last")
ROUNDS, WARM_UP = 10, 3
_SGD: Any = partial(torch.optim.SGD, lr=1e-6, momentum=0.9)


class Case(NamedTuple):
    """A network of a family.

    Attributes:
        make: the family; with the tiniest network of its kind, if it is told so.
        peer: likewise.
        library: that the peer is of.
        compiles: whether `torch.compile` is tried: other networks have shapes that depend on what they see.
    """

    make: Callable[[bool], Family]
    peer: Callable[[bool], Peer]
    library: str
    size: Size
    batch: int
    compiles: bool = False


def _per_pixel(architecture: Any, settings: dict[str, Any], tiny: bool) -> Family:
    network = partial(architecture, **{**settings, **(architecture.tiny if tiny else {})})
    return PerPixel(Shapes.labels, network, {"ce": CrossEntropy()}, optimizer=_SGD)


def _mask_classification(tiny: bool) -> Family:
    settings = MaskFormer.tiny if tiny else MaskFormer.variants["MaskFormer, Swin-T"]
    criterion = MaskClassificationLoss(1.0, 20.0, 1.0, mask_loss="focal", points=None)
    network = partial(MaskFormer, **settings)
    return MaskClassification(Shapes.labels, network, "semantic", criterion, optimizer=_SGD)


def _detection(tiny: bool) -> Family:
    return Detection(Shapes.labels, partial(MaskRCNN, **(MaskRCNN.tiny if tiny else {})), optimizer=_SGD)


def _promptable(tiny: bool) -> Family:
    return Promptable(Shapes.labels, partial(SAM, **(SAM.tiny if tiny else {})), optimizer=_SGD)


CASES = {
    "DeepLabV3-R50 (PerPixel)": Case(
        partial(_per_pixel, DeepLabV3, {"backbone": "resnet50", **TORCHVISION, "auxiliary": False}),
        *(peers.deeplab, "torchvision", (512, 512), 8, True),
    ),
    "SegFormer-B0 (PerPixel)": Case(
        partial(_per_pixel, SegFormer, {}), peers.segformer, "transformers", (512, 512), 8, True
    ),
    "MaskFormer Swin-T (MaskClassification)": Case(
        _mask_classification, peers.maskformer, "transformers", (512, 512), 4
    ),
    "Mask R-CNN R50-FPN (Detection)": Case(_detection, peers.mask_rcnn, "torchvision", (800, 1088), 2),
    "SAM ViT-B (Promptable)": Case(_promptable, peers.sam, "transformers", (1024, 1024), 1),
}


class Line(NamedTuple):
    """What was found of a case in a mode: images in a second, and GiB that weights, optimiser and pass hold.

    Attributes:
        loop: `training` or `inference`.
        peer: None where the library has no such loop, or it failed.
        said: why something is missing.
    """

    case: str
    loop: str
    mode: str
    ours: float | None
    ours_gib: float | None
    library: str
    peer: float | None
    peer_gib: float | None
    said: str = ""


def card(path: Path, device: torch.device, tiny: bool, budget: Budget) -> list[Line]:
    """The lines, of which those in the file are not measured again; as far as the time goes, quick modes first."""
    found = [Line(*line) for line in json.loads(path.read_text())] if path.exists() else []
    known = {(line.case, line.mode) for line in found}
    rounds, warm_up = (1, 1) if tiny else (ROUNDS, WARM_UP)
    for (mode, how), (name, case) in product(MODES.items(), CASES.items()):
        if (name, mode) in known or (how.compile and not case.compiles) or (tiny and mode not in TINY_MODES):
            continue
        if budget.left() < (60 if how.compile else 10):
            print(f"{name}, {mode}: no time is left for it; a further call goes on", flush=True)
            continue
        found += measured(name, mode, device, tiny, rounds, warm_up)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=0))
        print(shown(found[-2:]).splitlines()[-1], flush=True)
    return found


def measured(name: str, mode: str, device: torch.device, tiny: bool, rounds: int, warm_up: int) -> Iterator[Line]:
    """Both loops of a case, ours and the peer's in turns; what one of them fails with is told, and the card goes on."""
    case, how = CASES[name], MODES[mode]
    torch.manual_seed(0)
    sides: dict[str, dict[str, Callable[[], object]]] = {"inference": {}, "training": {}}
    networks: dict[str, nn.Module] = {}
    said: list[str] = []
    family = case.make(tiny).to(device)
    batch = _batch(family, (128, 128) if tiny else case.size, 2 if tiny else case.batch, device)
    for side, made in (("ours", partial(_ours, family)), ("peer", partial(_theirs, case, tiny))):
        try:
            networks[side], passes = made(batch, how)
            with how.computing(device):
                for run in passes.values():
                    run()
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            said.append(f"{side}: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
            continue
        for loop, run in passes.items():
            sides[loop][side] = run
    for loop, passes in sides.items():
        seconds = in_turns(passes, rounds, warm_up, device, dict.fromkeys(passes, how)) if passes else {}
        speed = {side: len(batch) / median(each) for side, each in seconds.items()}
        gib = {}
        for side, run in passes.items():
            with how.computing(device):
                held = peak_bytes(run, device)
            gib[side] = (held + weight_bytes(networks[side]) * (3 if loop == "training" else 1)) / 2**30
        values = speed.get("ours"), gib.get("ours"), case.library, speed.get("peer"), gib.get("peer")
        yield Line(name, loop, mode, *values, "; ".join(said))


def _batch(family: Family, size: Size, count: int, device: torch.device) -> Batch:
    """Drawn images with objects, prepared for the family."""
    rng, drawn = np.random.default_rng(0), Shapes(size=size)
    samples = [s for s in map(drawn.read, range(8 * count)) if s.target and len(s.target.segments or ()) > 1][:count]
    prepared = [family.preparation(s, rng) if family.preparation else s for s in samples]
    batch: Batch = family.transfer_batch_to_device(collate([[sample] for sample in prepared]), device, 0)
    return batch


def _ours(family: Family, batch: Batch, how: Mode) -> tuple[nn.Module, dict[str, Callable[[], object]]]:
    answer = forward(family, batch.images, how)
    optimizer = _SGD(family.network.parameters())

    def losses() -> Tensor:
        return torch.stack(list(family.compute_losses(batch).values())).sum()

    return family.network, {
        "inference": _evaluating(family, answer),
        "training": partial(_step, family, losses, optimizer),
    }


def _theirs(case: Case, tiny: bool, batch: Batch, how: Mode) -> tuple[nn.Module, dict[str, Callable[[], object]]]:
    network, answer, loss = case.peer(tiny)
    network = how.prepared(network.to(batch.images.device))
    optimizer = _SGD(network.parameters())
    passes: dict[str, Callable[[], object]] = {"inference": _evaluating(network, partial(answer, batch))}
    if loss is not None:
        passes["training"] = partial(_step, network, partial(loss, batch), optimizer)
    return network, passes


def _evaluating(module: nn.Module, answer: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        module.eval()
        with torch.inference_mode():
            return answer()

    return run


def _step(module: nn.Module, losses: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    module.train()
    optimizer.zero_grad()
    losses().backward()
    optimizer.step()


def shown(lines: list[Line]) -> str:
    """A table of the terminal; `ours / peer` above 1 is faster than the peer."""
    header = ("network", "loop", "computed in", "images/s", "GiB", "peer", "images/s", "GiB", "ours / peer")
    rows = []
    for line in lines:
        ratio = f"{line.ours / line.peer:.2f}" if line.ours and line.peer else "-"
        ours, peer = (
            (_number(line.ours, 1), _number(line.ours_gib, 2)),
            (_number(line.peer, 1), _number(line.peer_gib, 2)),
        )
        rows.append((line.case, line.loop, line.mode, *ours, line.library, *peer, ratio))
    said = dict.fromkeys(f"{line.case}, {line.mode}: {line.said}" for line in lines if line.said)
    return "\n".join([table(header, rows, right=(3, 4, 6, 7, 8)), *said])


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
