"""What travels: a batch into page-locked memory and to a device, whole."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torchvision.tv_tensors import Mask

from segfolio.data.prompts import Prompts
from segfolio.data.sample import Batch, Prompted, Target
from segfolio.data.segments import Segments


@pytest.fixture
def batch() -> Batch:
    """Two images of 4 x 5, the frames of one clip; the second with run lengths."""
    ids, one = Mask(torch.ones(4, 5, dtype=torch.int32)), torch.tensor([1])
    segments = Segments(ids, one, one > 1, boxes=torch.ones(1, 4), areas=torch.ones(1), tracks=one)
    targets = [
        Target(Mask(torch.zeros(4, 5, dtype=torch.uint8)), segments, Mask(torch.ones(4, 5))),
        Target(segments=Segments(segments.rles, one, one > 1, (4, 5))),
    ]
    asked = Prompts(one, torch.ones(1, 2, 2), torch.ones(1, 2), torch.ones(1, 4), torch.ones(1, 4, 5), ["cat"])
    extras: dict[str, Any] = {"tokens": torch.ones(2, 3), "views": [torch.ones(2, 8), torch.ones(2, 4)]}
    images, sizes = torch.zeros(2, 3, 4, 5), [(4, 5)] * 2
    return Batch(images, ["a", "b"], sizes, targets, prompts=[asked, asked], clips=[2], extras=extras)


def tensors(nested: Any) -> list[Tensor]:
    if isinstance(nested, Tensor):
        return [nested]
    nested = vars(nested) if hasattr(nested, "__dict__") else nested
    values = nested.values() if isinstance(nested, dict) else nested if isinstance(nested, list) else ()
    return [tensor for value in values for tensor in tensors(value)]


def test_every_tensor_of_a_batch_is_pinned(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    there = batch.pin_memory()
    assert len(pinned) == len(tensors(batch)) == 24
    assert {id(t) for t in tensors(there)} == {id(t) for t in pinned}
    assert (there.clips, there.image_ids, there.prompts[0].texts) == ([2], ["a", "b"], ["cat"])
    assert there.targets[1].segments is not None
    assert there.targets[1].segments.rles == batch.targets[1].segments.rles  # type: ignore[union-attr]


def test_every_tensor_of_a_batch_goes_to_the_device(batch: Batch) -> None:
    there = move_data_to_device(batch, torch.device("meta"))
    assert {t.device.type for t in tensors(there)} == {"meta"}
    assert len(tensors(there)) == 24
    assert (there.clips, there.sizes, there.prompts[0].texts) == ([2], [(4, 5)] * 2, ["cat"])
    assert there.targets[0].segments.masks.shape == (1, 4, 5)


def test_images_are_clips_of_one_unless_told() -> None:
    assert Batch(torch.zeros(2, 3, 4, 5), ["a", "b"], [(4, 5)] * 2).clips == [1, 1]


def test_an_answer_says_which_segment_each_belongs_to() -> None:
    answer = Prompted([[], []], torch.zeros(2, 0), torch.tensor([1, -1]))
    assert answer.of.tolist() == [1, -1]
    with pytest.raises(ValueError, match="2 prompts have 2 estimates and 1 segments"):
        replace(answer, of=torch.tensor([1]))
