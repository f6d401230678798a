"""Objects are followed through a video as transformers follows them, and as the release does where that is not right.

Weights are such that a mask depends on what is remembered by far more than the tolerance. What is remembered is rounded
to bfloat16, which can go to either side of a step: they are compared in float64, and without, but for one test.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.sam2_video import modeling_sam2_video

from segfolio.architectures.promptable.sam2 import SAM2
from segfolio.data.image_space import IMAGENET_MEAN, IMAGENET_STD
from segfolio.data.prompts import NOT_OBJECT, OBJECT, PADDING, Prompts
from segfolio.errors import SegfolioError
from segfolio.inference.prompting import EmbeddedImages, Embedder
from segfolio.inference.track import Tracked, Tracker, filled
from tests.architectures.promptable.transformers_sam2 import transformers_sam2_video
from tests.devices import DEVICE, PretendedDevice
from tests.inference.transformers_tracker import TransformersTracker

SIZE = (128, 128)
POINTS, KINDS = torch.tensor([[40.5, 50.5], [90.0, 30.0]]), torch.tensor([OBJECT, NOT_OBJECT])
BOX = torch.tensor([20.0, 30.0, 80.0, 90.0])
NONE = (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


class _Unrounded:
    """torch, whose bfloat16 is float64."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "bfloat16" else getattr(torch, name)


@pytest.fixture(autouse=True)
def unrounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers remembers what it has computed."""
    monkeypatch.setattr(modeling_sam2_video, "torch", _Unrounded())


def pair(folder: Path, version: str = "2.1", dtype: torch.dtype = torch.float64) -> tuple[SAM2, Any]:
    """Ours and transformers'."""
    theirs = transformers_sam2_video(version)
    if dtype == torch.float64:
        theirs.memory_encoder.mask_downsampler.final_conv.weight *= 10
        for layer in theirs.memory_attention.layers:
            layer.cross_attn_image.q_proj.weight *= 4
            layer.cross_attn_image.o_proj.weight *= 3
    show((theirs,), True)
    torch.save(theirs.state_dict(), folder / "sam2.pt")
    ours = SAM2(1, **SAM2.tiny, version=version, weights=str(folder / "sam2.pt"))
    return ours.eval().to(dtype), theirs.to(dtype)


def show(networks: tuple[Any, ...], there: bool) -> None:
    """Every object is there from now on, or none."""
    for network in networks:
        head = network.mask_decoder.pred_obj_score_head
        last = head.layers[-1] if isinstance(network, SAM2) else head.proj_out
        last.bias.fill_(9 if there else -9)


def a_video(frames: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(frames, 3, *SIZE).to(dtype)


def frame(network: SAM2, video: Tensor, number: int) -> EmbeddedImages:
    return EmbeddedImages(network, network.embed(video[number : number + 1]), [SIZE])


def clicks(number: int, points: Tensor = POINTS, kinds: Tensor = KINDS) -> Prompts:
    return Prompts(torch.tensor([number]), points[None], kinds[None])


def a_box(number: int) -> Prompts:
    return Prompts(torch.tensor([number]), boxes=BOX[None])


def both(number: int, other: int) -> Prompts:
    """Points of one, a box of another."""
    kinds = torch.stack([KINDS, torch.full_like(KINDS, PADDING)])
    boxes = torch.stack([torch.full_like(BOX, torch.nan), BOX])
    return Prompts(torch.tensor([number, other]), POINTS.expand(2, -1, -1), kinds, boxes)


def begun(
    ours: SAM2, theirs: Any, video: Tensor, at: int = 0, as_released: bool = False, keep: int | None = 0
) -> tuple[Tracker, TransformersTracker]:
    """Object 7 is prompted by points in a frame and object 3 by a box."""
    tracker = Tracker(ours, len(video), keep, video.dtype, holes=0)
    other = TransformersTracker(theirs, video, as_released)
    found = tracker.prompt(at, frame(ours, video, at), both(7, 3))
    expected = torch.stack([other.points(at, 7, POINTS, KINDS), other.points(at, 3, *NONE, box=BOX)])
    torch.testing.assert_close(found.masks, expected, atol=1e-5, rtol=1e-5)
    return tracker, other


def assert_followed(
    tracker: Tracker,
    other: TransformersTracker,
    video: Tensor,
    frames: range,
    backwards: bool = False,
) -> list[Tracked]:
    followed = []
    for number in frames:
        found = tracker.follow(number, frame(tracker.network, video, number), backwards)  # type: ignore[arg-type]
        masks, score = other.follow(number, backwards)
        torch.testing.assert_close(found.masks, masks, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.object_score, score, atol=1e-5, rtol=1e-5)
        followed.append(found)
    return followed


@pytest.mark.parametrize("version", ["2.1", "2.0"])
def test_two_objects_by_points_and_by_a_box_are_transformers(tmp_path: Path, version: str) -> None:
    ours, theirs = pair(tmp_path, version)
    video = a_video(9)
    followed = assert_followed(*begun(ours, theirs, video), video, range(9))
    assert all(found.objects == [7, 3] for found in followed)
    assert all((found.masks[0] - found.masks[1]).abs().max() > 5e-3 for found in followed)  # each has its own memory


def test_they_are_in_float32_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is remembered in bfloat16, as it comes, and weights by which that is not amplified."""
    monkeypatch.setattr(modeling_sam2_video, "torch", torch)
    ours, theirs = pair(tmp_path, dtype=torch.float32)
    video, other = a_video(dtype=torch.float32), Tracker(ours, 5, holes=0)
    _, reference = begun(ours, theirs, video)
    other.prompt(0, frame(ours, video, 0), both(7, 3))
    assert_followed(other, reference, video, range(5))
    assert other._frames._held[0].dtype == torch.bfloat16


def test_backwards_and_forwards_from_a_frame_in_the_middle_is_transformers(tmp_path: Path) -> None:
    """With all that was met on the way back, as it is remembered there."""
    ours, theirs = pair(tmp_path)
    video = a_video(6)
    tracker, other = begun(ours, theirs, video, at=3, keep=None)
    assert_followed(tracker, other, video, range(3, -1, -1), backwards=True)
    assert_followed(tracker, other, video, range(3, 6))


def test_frames_before_the_one_that_was_prompted_are_transformers(tmp_path: Path) -> None:
    """Which have no pointer to it, as the video is followed forwards."""
    ours, theirs = pair(tmp_path)
    video = a_video(4)
    assert_followed(*begun(ours, theirs, video, at=2), video, range(4))


def test_an_object_that_comes_later_is_transformers(tmp_path: Path) -> None:
    ours, theirs = pair(tmp_path)
    video = a_video(6)
    tracker, other = begun(ours, theirs, video)
    assert_followed(tracker, other, video, range(3))
    found = tracker.prompt(3, frame(ours, video, 3), a_box(5))
    torch.testing.assert_close(found.masks[0], other.points(3, 5, *NONE, box=BOX), atol=1e-5, rtol=1e-5)
    followed = assert_followed(tracker, other, video, range(3, 6))
    assert followed[-1].objects == [7, 3, 5]


def test_an_object_that_disappears_and_comes_back_is_transformers(tmp_path: Path) -> None:
    ours, theirs = pair(tmp_path)
    video = a_video(7)
    tracker, other = begun(ours, theirs, video)
    assert_followed(tracker, other, video, range(2))
    show((ours, theirs), False)
    (away,) = assert_followed(tracker, other, video, range(2, 3))
    show((ours, theirs), True)
    back = assert_followed(tracker, other, video, range(3, 7))
    assert (away.masks == -1024).all()
    assert (away.object_score < 0).all()
    assert all((found.masks > 0).any() for found in back)


def test_a_correction_is_as_the_release_has_it(tmp_path: Path) -> None:
    """It has the mask that it corrects, and changes what follows, of that object alone."""
    ours, theirs = pair(tmp_path)
    video = a_video(7)
    tracker, other = begun(ours, theirs, video, as_released=True)
    followed = assert_followed(tracker, other, video, range(4))
    more = (torch.tensor([[100.0, 80.0]]), torch.tensor([OBJECT]))
    found = tracker.prompt(3, frame(ours, video, 3), clicks(7, *more))
    torch.testing.assert_close(found.masks[0], other.points(3, 7, *more), atol=1e-5, rtol=1e-5)
    assert (found.masks[0] - followed[3].masks[0]).abs().max() > 0.1
    again = tracker.follow(3, frame(ours, video, 3))
    expected = torch.stack([found.masks[0], followed[3].masks[1]])
    torch.testing.assert_close(again.masks, expected, atol=1e-9, rtol=1e-9)
    assert_followed(tracker, other, video, range(4, 7))


def test_transformers_corrects_without_the_mask(tmp_path: Path) -> None:
    """Why it is not compared with as it is."""
    ours, theirs = pair(tmp_path)
    video = a_video(4)
    tracker, other = begun(ours, theirs, video)
    assert_followed(tracker, other, video, range(4))
    more = (torch.tensor([[100.0, 80.0]]), torch.tensor([OBJECT]))
    found = tracker.prompt(3, frame(ours, video, 3), clicks(7, *more))
    assert (found.masks[0] - other.points(3, 7, *more)).abs().max() > 0.01


def test_a_second_click_in_the_first_frame_has_the_first_answer(tmp_path: Path) -> None:
    ours, theirs = pair(tmp_path)
    video = a_video(3)
    tracker, other = Tracker(ours, 3, dtype=video.dtype, holes=0), TransformersTracker(theirs, video, as_released=True)
    for count in (1, 2):
        found = tracker.prompt(0, frame(ours, video, 0), clicks(1, POINTS[:count], KINDS[:count]))
        expected = other.points(0, 1, POINTS[:count], KINDS[:count])
        torch.testing.assert_close(found.masks[0], expected, atol=1e-5, rtol=1e-5)
    assert_followed(tracker, other, video, range(3))


@pytest.mark.parametrize("empty", [False, True], ids=["a mask", "an empty mask"])
def test_a_mask_that_is_given_is_as_the_release_has_it(tmp_path: Path, empty: bool) -> None:
    ours, theirs = pair(tmp_path)
    video, mask = a_video(4), torch.zeros(SIZE, dtype=torch.bool)
    if not empty:
        mask[21:90, 30:77] = True
    tracker, other = Tracker(ours, 4, dtype=video.dtype, holes=0), TransformersTracker(theirs, video, as_released=True)
    found = tracker.prompt(0, frame(ours, video, 0), Prompts(torch.tensor([1]), masks=mask[None]))
    torch.testing.assert_close(found.masks[0], other.mask(0, 1, mask), atol=1e-5, rtol=1e-5)
    assert found.object_score.tolist() == [-10 if empty else 10]
    assert_followed(tracker, other, video, range(4))


def test_objects_are_one_batch_and_each_as_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompted in different frames, so that they do not have as much to remember."""
    ours, _ = pair(tmp_path)
    video, calls = a_video(6), []
    attention = type(ours.memory_attention).forward

    def counted(self: Any, image: Tensor, memory: Tensor, *rest: Any) -> Tensor:
        calls.append(len(memory))
        return attention(self, image, memory, *rest)

    def follow(said: dict[int, list[Prompts]]) -> list[Tracked]:
        tracker, found = Tracker(ours, dtype=video.dtype), []
        for number in range(6):
            for prompts in said.get(number, ()):
                tracker.prompt(number, frame(ours, video, number), prompts)
            found.append(tracker.follow(number, frame(ours, video, number))) if tracker.objects else None
        return found

    monkeypatch.setattr(type(ours.memory_attention), "forward", counted)
    together = follow({0: [clicks(1)], 2: [a_box(2)], 3: [clicks(3, POINTS + 9)]})
    assert calls == [1, 1, 2, 3, 3]
    for place, said in enumerate(({0: [clicks(1)]}, {2: [a_box(2)]}, {3: [clicks(3, POINTS + 9)]})):
        for one, other in zip(reversed(follow(said)), reversed(together), strict=False):
            torch.testing.assert_close(one.masks[0], other.masks[place], atol=1e-6, rtol=1e-6)


def test_what_is_held_does_not_grow(tmp_path: Path) -> None:
    """Of 40 frames no more than of 20."""
    ours, _ = pair(tmp_path, dtype=torch.float32)
    video, tracker, held = a_video(2, torch.float32), Tracker(ours), []
    tracker.prompt(0, frame(ours, video, 0), both(1, 2))
    for number in range(40):
        tracker.follow(number, frame(ours, video, number % 2))
        shelves = (tracker._frames, tracker._pointers)
        held.append(sum(each.nbytes for shelf in shelves for each in shelf._held))
    assert len(set(held[20:])) == 1
    rows = len(tracker._frames._held[0]) - len(tracker._frames._free)
    assert rows == 2 * (1 + 6 + 1)  # of each object the frame that was prompted, the last six and this one


def test_all_that_is_kept_is_remembered_from_where_one_goes_back_to(tmp_path: Path) -> None:
    ours, _ = pair(tmp_path)
    video, found = a_video(12), {}
    for keep in (None, 0):
        tracker = Tracker(ours, keep=keep, dtype=video.dtype)
        tracker.prompt(0, frame(ours, video, 0), a_box(1))
        first = [tracker.follow(number, frame(ours, video, number)).masks for number in range(12)]
        found[keep] = (tracker.follow(4, frame(ours, video, 4)).masks - first[4]).abs().max()
    assert found[None] < 1e-6
    assert found[0] > 1e-3


def test_a_prompt_for_a_frame_that_is_not_remembered_any_more_is_a_first_one(tmp_path: Path) -> None:
    ours, _ = pair(tmp_path, dtype=torch.float32)
    video, tracker, other = a_video(10, torch.float32), Tracker(ours), Tracker(ours)
    tracker.prompt(0, frame(ours, video, 0), clicks(1))
    for number in range(10):
        tracker.follow(number, frame(ours, video, number))
    image = frame(ours, video, 2)
    found = tracker.prompt(2, image, a_box(1))
    assert torch.equal(found.masks, other.prompt(2, image, a_box(1)).masks)
    assert torch.equal(tracker.follow(2, image).masks, found.masks)
    assert sorted(tracker._known[1].prompted) == [0, 2]


def test_an_object_that_is_forgotten_leaves_nothing(tmp_path: Path) -> None:
    ours, _ = pair(tmp_path, dtype=torch.float32)
    video, tracker = a_video(3, torch.float32), Tracker(ours)
    tracker.prompt(0, frame(ours, video, 0), both(1, 2))
    tracker.follow(1, frame(ours, video, 1))
    tracker.forget(1)
    assert tracker.follow(2, frame(ours, video, 2)).objects == [2]
    tracker.forget(2)
    assert all(len(shelf._free) == len(shelf._held[0]) for shelf in (tracker._frames, tracker._pointers))
    with pytest.raises(SegfolioError, match="object 2 was never prompted"):
        tracker.forget(2)


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    ours, _ = pair(tmp_path, dtype=torch.float32)
    video, tracker = a_video(2, torch.float32), Tracker(ours, frames=2)
    image = frame(ours, video, 0)
    with pytest.raises(SegfolioError, match="frame 0: no object was prompted yet"):
        tracker.follow(0, image)
    with pytest.raises(SegfolioError, match="there is no frame 2; frames are counted from 0, and the video has 2"):
        tracker.prompt(2, image, a_box(1))
    with pytest.raises(SegfolioError, match="frame 1: a prompt mask is 64x64 pixels, expected 128x128"):
        tracker.prompt(1, image, Prompts(torch.tensor([1]), masks=torch.ones(1, 64, 64, dtype=torch.bool)))
    with pytest.raises(SegfolioError, match="frame 1: an object has two prompts"):
        tracker.prompt(1, image, both(1, 1))
    with pytest.raises(SegfolioError, match="frame 1: an object has a mask, and points or a box"):
        tracker.prompt(1, image, Prompts(torch.tensor([1]), boxes=BOX[None], masks=torch.ones(1, *SIZE).bool()))


def test_a_tracker_computes_where_its_network_is(tmp_path: Path) -> None:
    """Nothing is left in host memory: objects with unequal memories, a correction, a mask."""
    network = SAM2(1, **SAM2.tiny).eval()
    video, mask = a_video(3, torch.float32), torch.ones(1, *SIZE, dtype=torch.bool)
    with PretendedDevice():
        network, video = network.to(DEVICE), video.to(DEVICE)
        tracker, two = Tracker(network), both(1, 2)
        assert two.points is not None
        assert two.kinds is not None
        assert two.boxes is not None
        there = Prompts(two.of, two.points.to(DEVICE), two.kinds.to(DEVICE), two.boxes.to(DEVICE))
        tracker.prompt(0, frame(network, video, 0), there)
        tracker.follow(1, frame(network, video, 1))
        tracker.prompt(1, frame(network, video, 1), there)
        tracker.prompt(1, frame(network, video, 1), Prompts(torch.tensor([3]), masks=mask.to(DEVICE)))
        found = tracker.follow(2, frame(network, video, 2))
        assert found.objects == [1, 2, 3]
        assert found.masks.device == found.object_score.device == DEVICE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_network_of_half_the_bits_follows_too(dtype: torch.dtype) -> None:
    network, video = SAM2(1, **SAM2.tiny).eval(), a_video(3, torch.float32)
    found = {}
    for kind in (torch.float32, dtype):
        tracker = Tracker(network.to(kind))
        tracker.prompt(0, frame(network, video.to(kind), 0), both(1, 2))
        for number in (1, 2):
            tracked = tracker.follow(number, frame(network, video.to(kind), number))
        found[kind] = tracked.masks
        assert tracked.masks.dtype == torch.float32
    assert (found[dtype] - found[torch.float32]).abs().mean() < 0.1 * found[torch.float32].std()


def test_small_holes_are_filled(tmp_path: Path) -> None:
    """Each of its mask, diagonal neighbours are of one hole; transformers fills none."""
    masks = torch.ones(2, 32, 32)
    masks[0, 3:5, 3:7] = -1  # 8 cells
    masks[0, 10:13, 10:13] = -1  # 9
    masks[0, 20, 20] = masks[1, 20, 21] = masks[1, 21, 22] = 0
    masks[1, 25:, 25:] = -2
    expected = masks.clone()
    expected[0, 3:5, 3:7] = expected[0, 20, 20] = expected[1, 20, 21] = expected[1, 21, 22] = 0.1
    assert torch.equal(filled(masks, 8), expected)
    assert torch.equal(filled(masks, 1)[1], masks[1])
    assert filled(masks, 0) is masks
    ours, _ = pair(tmp_path, dtype=torch.float32)
    video, found = a_video(3, torch.float32), {}
    for holes in (0, 8):
        tracker = Tracker(ours, holes=holes)
        tracker.prompt(0, frame(ours, video, 0), both(1, 2))
        found[holes] = [tracker.follow(number, frame(ours, video, number)).masks for number in range(3)]
    assert torch.equal(found[8][0], filled(found[0][0], 8))
    assert all((filled(masks, 8) == masks).all() for masks in found[8])
    assert (found[8][1] != filled(found[0][1], 8)).any()  # a frame that was prompted is remembered without holes


@pytest.mark.parametrize("size", [(96, 171), (400, 300)], ids=str)
def test_frames_are_resized_as_the_release_resizes_them(size: tuple[int, int]) -> None:
    """By Pillow, bicubically, from uint8 and to uint8, to a square; transformers does it bilinearly, as with images."""
    network = SAM2(1, **SAM2.tiny).eval()
    image = torch.randint(256, (3, *size), dtype=torch.uint8)
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(SIZE[::-1])
    expected = torch.from_numpy(np.array(pillow)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    apart = {}
    for bicubic in (True, False):
        found = Embedder(network, bicubic=bicubic).embedded(image[None], [size])
        other = network.embed(((expected - mean) / std)[None])
        apart[bicubic] = (found.embedding[0] - other[0]).abs().mean() / other[0].std()
    assert apart[True] < 0.005  # a step of uint8 in some pixels
    assert apart[False] > 0.05


def test_two_objects_may_be_prompted_in_one_frame_one_after_the_other(tmp_path: Path) -> None:
    """Which transformers refuses."""
    ours, theirs = pair(tmp_path)
    video, found = a_video(2), []
    for prompts in ([both(1, 2)], [clicks(1), a_box(2)]):
        tracker = Tracker(ours, dtype=video.dtype)
        for each in prompts:
            tracker.prompt(0, frame(ours, video, 0), each)
        found.append(tracker.follow(1, frame(ours, video, 1)).masks)
    torch.testing.assert_close(*found, atol=1e-9, rtol=1e-9)
    session = TransformersTracker(theirs, video).session
    for number in (1, 2):
        session.add_mask_inputs(session.obj_id_to_idx(number), 0, torch.ones(1, 1, *SIZE))
        session.obj_with_new_inputs = [number]  # so its processor leaves it
    with pytest.raises(ValueError, match="maskmem_features in conditioning outputs cannot be empty"):
        theirs(session, frame_idx=0)
