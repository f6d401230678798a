"""`RecordMetric`: a metric whose state is one record per image."""

import io
import pickle
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from segfolio.figure import Figure


class RecordMetric(Metric):
    """Keeps what a figure needs of each image until `compute`, under the image's id.

    Figures are then a function of the set of images: an image that is seen twice counts once, and order,
    batches and processes do not matter. A subclass declares its `figures`, calls `keep` in `update` and `records` in
    `compute`.
    Records lie in host memory, packed; they are small (run lengths, counts), never maps of pixels.
    """

    full_state_update = False
    figures: tuple[Figure, ...]
    state: list[Tensor]

    def __init__(self) -> None:
        super().__init__(dist_sync_fn=_gather)
        self.add_state("state", [], dist_reduce_fx="cat")

    def keep(self, image_id: str, record: Any, number: int | None = None) -> None:
        """Keep the record of an image.

        Args:
            record: what pickle takes; best numpy arrays, numbers and bytes.
            number: of the image in its annotation file, if it has one; the official tools go by it.
        """
        packed = pickle.dumps((number is None, number or 0, image_id, record), protocol=5)
        self.state.append(torch.frombuffer(bytearray(packed), dtype=torch.uint8))

    def records(self) -> dict[str, Any]:
        """Every image's record, by number and then by id; after a gathering, those of all processes."""
        stream = io.BytesIO(dim_zero_cat(self.state).numpy().tobytes() if len(self.state) else b"")
        found: dict[str, tuple[Any, ...]] = {}
        while stream.tell() < stream.getbuffer().nbytes:
            unnumbered, number, image_id, record = pickle.load(stream)
            found.setdefault(image_id, (unnumbered, number, image_id, record))
        return {key[2]: key[3] for key in sorted(found.values(), key=lambda kept: kept[:3])}

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """The records stay where they are when the network moves."""
        state, self.state = self.state, []
        moved = super()._apply(*args, **kwargs)
        self.state = state
        return moved


def _gather(packed: Tensor, group: Any = None) -> list[Tensor]:
    """The bytes of all processes, through the device that their backend needs."""
    on_gpu = torch.distributed.get_backend(group) == "nccl"
    packed = packed.to("cuda" if on_gpu else "cpu", torch.uint8)  # what is empty comes as float
    return [part.cpu() for part in gather_all_tensors(packed, group)]
