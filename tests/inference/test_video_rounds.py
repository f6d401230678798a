"""A simulated user corrects an object frame by frame: which frame comes next, what is clicked, and what it changes."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segfolio.data.datasets import MovingShapes
from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.prompts import NOT_OBJECT, OBJECT
from segfolio.data.sample import to_pixels
from segfolio.inference.clicks import Click, first_click, next_click
from segfolio.inference.interactive import Interactive
from segfolio.inference.video_rounds import FrameByFrame, offline, online
from segfolio.metrics.video import jaccard
from tests.inference.prompted import Discs

FRAMES, SIZE = 10, (40, 60)
Masks = NDArray[np.bool_]


def square(left: int) -> Masks:
    mask = np.zeros(SIZE, np.bool_)
    mask[10:22, left : left + 12] = True
    return mask


TRUTH = [square(10 + t) for t in range(FRAMES)]


def coded(masks: Sequence[Masks | None]) -> list[RLE | None]:
    return [None if mask is None else rle.encode(mask[None])[0] for mask in masks]


class Drifting:
    """Knows the object where it was prompted, after the second click exactly, and loses it by a pixel with each frame
    that lies between a frame and the last prompted one before it."""

    def __init__(self, truth: Sequence[Masks] = TRUTH, drift: int = 1) -> None:
        self.truth, self.drift = truth, drift
        self.prompted: dict[int, int] = {}
        self.asked: list[tuple[int, list[Click]]] = []
        self.order: list[int] = []

    def click(self, frame: int, clicks: Sequence[Click]) -> Masks:
        self.asked.append((frame, list(clicks)))
        self.prompted[frame] = len(clicks)
        return self.follow(frame)

    def follow(self, frame: int) -> Masks:
        self.order.append(frame)
        last = max((at for at in self.prompted if at <= frame), default=None)
        if last is None:
            return np.zeros(SIZE, np.bool_)
        return np.roll(self.truth[frame], self.drift * (frame - last) + (self.prompted[last] < 2), 1)


def values(found: Sequence[RLE], truth: Sequence[Masks] = TRUTH) -> list[float]:
    return [jaccard(mask, true) for mask, true in zip(found, coded(truth), strict=True)]  # type: ignore[arg-type]


def drifted(pixels: int) -> float:
    """J of a square of 12 pixels that is moved."""
    return (12 - pixels) / (12 + pixels)


def test_offline_the_frame_of_the_lowest_j_is_prompted_next_and_all_is_followed_again() -> None:
    follower = Drifting()
    rounds = offline(follower, coded(TRUTH), 3)
    assert [len(each) for each in rounds] == [FRAMES] * 3
    assert [frame for frame, clicks in follower.asked if len(clicks) == 1] == [0, 9, 8]
    assert values(rounds[0]) == pytest.approx([drifted(t) for t in range(10)])
    assert values(rounds[1]) == pytest.approx([*(drifted(t) for t in range(9)), 1])
    assert values(rounds[2]) == pytest.approx([*(drifted(t) for t in range(8)), 1, 1])


def test_the_user_clicks_as_in_an_image_and_no_more_where_the_mask_is_right() -> None:
    follower = Drifting()
    offline(follower, coded(TRUTH), 2)
    (frame, first), (_, second), (other, third), *_ = follower.asked
    assert (frame, other) == (0, 9)
    assert first == [first_click(TRUTH[0])]
    assert second == [*first, next_click(TRUTH[0], np.roll(TRUTH[0], 1, 1))]
    assert third == [next_click(TRUTH[9], np.roll(TRUTH[9], 9, 1))]
    assert max(len(clicks) for _, clicks in follower.asked) == 2  # after which it is right

    class Stubborn(Drifting):
        def follow(self, frame: int) -> Masks:
            return np.roll(self.truth[frame], 3, 1)

    stubborn = Stubborn()
    offline(stubborn, coded(TRUTH), 1, clicks=3)
    assert [len(clicks) for _, clicks in stubborn.asked] == [1, 2, 3]
    assert {click.kind for click in stubborn.asked[-1][1]} <= {OBJECT, NOT_OBJECT}


def test_online_the_user_stops_below_three_quarters_and_what_was_seen_stays() -> None:
    """A square that is off by 2 pixels has 10 / 14, below 0.75: every second frame is corrected."""
    assert drifted(1) > 0.75 > drifted(2)
    followers = list[Drifting]()

    def start() -> Drifting:
        followers.append(Drifting())
        return followers[-1]

    rounds = online(start, coded(TRUTH), 4)
    assert [sorted(follower.prompted) for follower in followers] == [[0], [0, 2], [0, 2, 4], [0, 2, 4, 6]]
    assert values(rounds[1]) == pytest.approx([1, drifted(1), *(drifted(t) for t in range(8))])
    assert values(rounds[3]) == pytest.approx([1, drifted(1)] * 3 + [drifted(t) for t in range(4)])
    assert all(np.all(np.diff(follower.order) >= 0) for follower in followers)  # it is gone through once


def test_rounds_that_nothing_is_left_for_repeat_the_last() -> None:
    follower = Drifting(drift=0)
    rounds = offline(follower, coded(TRUTH), 5)
    assert len(rounds) == 5
    assert follower.prompted == {0: 2}
    assert all(values(each) == [1] * FRAMES for each in rounds)
    started = list[Drifting]()
    rounds = online(lambda: started.append(Drifting(drift=0)) or started[-1], coded(TRUTH), 5)  # type: ignore[func-returns-value]
    assert len(rounds) == 5
    assert len(started) == 2
    assert all(values(each) == [1] * FRAMES for each in rounds)


def test_an_object_is_prompted_first_where_it_is_first_seen_and_nowhere_before() -> None:
    nothing = np.zeros(SIZE, np.bool_)
    truth = [nothing, nothing, *TRUTH[2:]]
    for rounds in (offline(Drifting(truth), coded(truth), 2), online(lambda: Drifting(truth), coded(truth), 2)):
        assert values(rounds[0], truth)[:3] == [1, 1, 1]
        assert rle.areas(rounds[0][:3]).tolist() == [0, 0, 144]
    with pytest.raises(ValueError, match="seen in no frame"):
        offline(Drifting(), coded([nothing] * 3))


def test_where_it_is_gone_the_user_clicks_it_away() -> None:
    """A network that goes on seeing the object, in the frame where it is not."""
    nothing = np.zeros(SIZE, np.bool_)
    truth = [TRUTH[0], nothing, TRUTH[2]]

    class Stays(Drifting):
        def follow(self, frame: int) -> Masks:
            return nothing if frame == 1 and frame in self.prompted else TRUTH[frame]

    follower = Stays()
    rounds = offline(follower, coded(truth), 2)
    assert values(rounds[0], truth) == [1, 0, 1]
    assert values(rounds[1], truth) == [1, 1, 1]
    assert [click.kind for click in follower.asked[-1][1]] == [NOT_OBJECT]


def test_frames_without_annotation_are_followed_and_never_prompted() -> None:
    truth = [mask if t % 2 == 0 else None for t, mask in enumerate(TRUTH)]
    follower = Drifting()
    rounds = offline(follower, coded(truth), 3)
    assert list(follower.prompted) == [0, 8, 6]
    assert len(rounds[0]) == FRAMES
    followers = list[Drifting]()
    online(lambda: followers.append(Drifting()) or followers[-1], coded(truth), 2)  # type: ignore[func-returns-value]
    assert sorted(followers[-1].prompted) == [0, 2]


def test_frame_by_frame_a_network_of_images_knows_what_it_was_told_in_each() -> None:
    torch.manual_seed(0)
    dataset = MovingShapes(size=(64, 64), frames=6, train=1)
    samples = [dataset[t] for t in range(6)]
    frames = [to_pixels(sample.image) for sample in samples]
    track = samples[0].target.segments.tracks[0]
    masks = []
    for sample in samples:
        segments = sample.target.segments
        masks.append(segments.masks[segments.tracks == track].any(0).numpy())
    network = Discs()
    rounds = offline(FrameByFrame(Interactive(network), frames), coded(masks), 3)
    seen = [(rle.areas(each) > 0).sum() for each in rounds]
    assert seen == [1, 2, 3]  # elsewhere it is nowhere
    assert len(network.embedded) == 3  # each prompted frame once
    alone = Interactive(Discs())
    alone.set_image(frames[0])
    shown = np.zeros((64, 64), np.bool_)
    for _ in range(3):
        if (click := next_click(masks[0], shown)) is None:
            break
        shown = alone.click(click.x - 0.5, click.y - 0.5, click.kind).mask
    assert np.array_equal(rle.decode(rounds[0][:1], (64, 64))[0], shown)
