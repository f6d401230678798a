"""Protocols of clips against following by hand: a tracker, what it is told, and the measures."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segfolio.architectures.promptable.sam import SAM
from segfolio.data.batches import ForEvaluation, collate
from segfolio.data.datasets import MovingShapes, Shapes
from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.prompts import OBJECT, Prompts
from segfolio.data.sample import Batch, Prediction, Sample, Target, to_pixels
from segfolio.data.transforms import Resize
from segfolio.errors import SegfolioError
from segfolio.families import Promptable, Video
from segfolio.inference.clicks import first_click, next_click
from segfolio.inference.interactive import Interactive
from segfolio.inference.prompt_protocols import PRESETS, find
from segfolio.inference.track import Tracker
from segfolio.inference.video_protocols import FromFirstFrame, OfClips, Rounds
from segfolio.inference.video_rounds import FrameByFrame, Remembering, offline, online
from segfolio.metrics.video import VideoMetric, boundary_f, jaccard
from tests.families.test_video_training import SMALL, TINY

FRAMES, SIZE = 5, (64, 64)
SGD = partial(torch.optim.SGD, lr=0.1)


class Few(MovingShapes):
    """Two of the objects are annotated, the one in front from the second frame on."""

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        assert sample.target is not None
        assert sample.target.segments is not None
        tracks = sample.target.segments.tracks
        assert tracks is not None
        others = sorted(tracks.tolist())[-2:]
        wanted = others[:1] if index % FRAMES == 0 else others
        sample.target.segments = sample.target.segments[torch.isin(tracks, torch.tensor(wanted))]
        return sample


def shapes(cls: type[MovingShapes] = Few) -> MovingShapes:
    return cls(None, "val", size=SIZE, frames=FRAMES, val=3)


def clip(*numbers: int, dataset: MovingShapes | None = None) -> Batch:
    evaluated = ForEvaluation(dataset or shapes(), [])
    return collate([evaluated[number] for number in numbers])


def family(network: Any = TINY, cls: type[Video | Promptable] = Video, **arguments: Any) -> Any:
    """In evaluation, of weights that draw masks of objects that are there."""
    torch.manual_seed(0)
    made = cls(Shapes.labels, network, optimizer=SGD, **arguments).eval()
    if hasattr(made.network.mask_decoder, "pred_obj_score_head"):
        with torch.no_grad():
            made.network.mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(9)
    return made


def answer(protocol: OfClips, given: Batch, asked: Any = None) -> list[Prediction]:
    with torch.no_grad():
        return protocol.answer(asked or family(), given)


def truth(given: Batch, frame: int) -> dict[int, RLE]:
    segments = given.targets[frame].segments
    assert segments is not None
    assert segments.tracks is not None
    return dict(zip(segments.tracks.tolist(), segments.rles, strict=True))


def masks(found: Any) -> dict[int, np.ndarray]:
    decoded = rle.decode(found.rles, SIZE)
    return {track: mask for track, mask in zip(found.tracks.tolist(), decoded, strict=True) if mask.any()}


Say = Callable[[Tracker, int, Any, dict[int, RLE]], Any]


@torch.no_grad()
def by_hand(given: Batch, say: Say, overlap: bool = False) -> list[dict[int, np.ndarray]]:
    """A tracker that is told of each object where it is first seen."""
    asked, told, found = family(), set[int](), []
    tracker = Tracker(asked.network, FRAMES, holes=0)
    for frame in range(FRAMES):
        image = asked.embedded(given.images[frame : frame + 1], [SIZE])
        new = {track: mask for track, mask in truth(given, frame).items() if track not in told}
        told |= new.keys()
        if new:
            say(tracker, frame, image, new)
        tracked = tracker.follow(frame, image)
        logits = image.enlarge(tracked.masks, 0).numpy()
        drawn = logits > 0
        if not overlap:
            drawn &= logits == logits.max(0)
        found.append({track: mask for track, mask in zip(tracked.objects, drawn, strict=True) if mask.any()})
    return found


def by_masks(tracker: Tracker, frame: int, image: Any, new: dict[int, RLE]) -> None:
    given = torch.from_numpy(rle.decode(list(new.values()), SIZE))
    tracker.prompt(frame, image, Prompts(torch.tensor(list(new)), masks=given))


def by_boxes(tracker: Tracker, frame: int, image: Any, new: dict[int, RLE]) -> None:
    for track, mask in new.items():
        rows, columns = (np.flatnonzero(rle.decode([mask], SIZE)[0].any(axis)) for axis in (1, 0))
        box = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]).float()
        tracker.prompt(frame, image, Prompts(torch.tensor([track]), boxes=box))


def by_clicks(count: int) -> Say:
    def say(tracker: Tracker, frame: int, image: Any, new: dict[int, RLE]) -> None:
        for track, coded in new.items():
            mask = rle.decode([coded], SIZE)[0]
            made = [first_click(mask)]
            for _ in range(count):
                points = torch.tensor([[click[:2] for click in made]])  # type: ignore[index]
                kinds = torch.tensor([[click[2] for click in made]])  # type: ignore[index]
                found = tracker.prompt(frame, image, Prompts(torch.tensor([track]), points, kinds))
                made.append(next_click(mask, (image.enlarge(found.masks, 0)[0] > 0).numpy()))

    return say


@pytest.mark.parametrize(
    ("protocol", "say"),
    [
        (FromFirstFrame(rules="sav", overlap=False), by_masks),
        (FromFirstFrame("box", rules="sav", overlap=False), by_boxes),
        (FromFirstFrame("clicks", rules="sav", overlap=False), by_clicks(1)),
        (FromFirstFrame("clicks", 3, rules="sav", overlap=False), by_clicks(3)),
    ],
    ids=["mask", "box", "click", "3 clicks"],
)
def test_objects_are_followed_from_where_they_are_first_seen_as_by_hand(protocol: FromFirstFrame, say: Say) -> None:
    given = clip(1)
    assert len({track for frame in range(FRAMES) for track in truth(given, frame)} - truth(given, 0).keys()) == 1
    found, expected = answer(protocol, given), by_hand(given, say)
    assert sum(len(each) for each in expected) > FRAMES
    for prediction, wanted in zip(found, expected, strict=True):
        here = masks(prediction.tracked)
        assert here.keys() == wanted.keys()
        for track, mask in wanted.items():
            assert (here[track] != mask).sum() <= 2  # several objects are one batch


def test_by_davis_only_objects_of_the_first_frame_are_followed_and_none_takes_pixels_of_theirs() -> None:
    given = clip(1)
    known = truth(given, 0).keys()
    alone = [
        replace(t, segments=t.segments[torch.isin(t.segments.tracks, torch.tensor(list(known)))])  # type: ignore
        for t in given.targets
    ]
    found = [masks(p.tracked) for p in answer(FromFirstFrame(), given)]
    expected = [masks(p.tracked) for p in answer(FromFirstFrame(), replace(given, targets=alone))]
    assert found[0]
    assert all(here.keys() <= known for here in found)
    for here, wanted in zip(found, expected, strict=True):
        assert all(np.array_equal(here[track], mask) for track, mask in wanted.items())


def test_a_pixel_is_of_one_object_or_of_several() -> None:
    """Where the masks of two objects overlap, that of the higher logit has it."""
    given = clip(1)
    overlapping = by_hand(given, by_masks, overlap=True)
    by_itself = FromFirstFrame(rules="sav", overlap=False)
    shared = [sum(each.values()).max() for each in (masks(p.tracked) for p in answer(by_itself, given))]  # type: ignore[union-attr]
    assert max(shared) == 1
    assert max(sum(mask.astype(int) for mask in each.values()).max() for each in overlapping) > 1  # type: ignore[union-attr]
    for prediction, wanted in zip(answer(FromFirstFrame(rules="sav"), given), overlapping, strict=True):
        here = masks(prediction.tracked)
        assert here.keys() == wanted.keys()
        assert all((here[track] != mask).sum() <= 2 for track, mask in wanted.items())


def test_figures_are_those_of_the_measures_by_hand() -> None:
    """Of the objects of the first frame, over the frames but the first and the last."""
    given, protocol = clip(1), FromFirstFrame()
    (metric,) = protocol.evaluators(Shapes.labels)
    found = answer(protocol, given)
    metric.update_clip(found, given.targets)  # type: ignore[attr-defined]
    empty = rle.from_counts([SIZE[0] * SIZE[1]], SIZE)
    each = []
    for track in truth(given, 0):
        pairs = []
        for frame in range(1, FRAMES - 1):
            here = dict(zip(found[frame].tracked.tracks.tolist(), found[frame].tracked.rles, strict=True))  # type: ignore[union-attr]
            pairs.append((here.get(track, empty), truth(given, frame).get(track, empty)))
        each.append([np.mean([measure(*pair) for pair in pairs]) for measure in (jaccard, boundary_f)])
    j, f = np.mean(each, 0)
    figures = metric.compute()
    assert figures["J"].item() == pytest.approx(j, abs=1e-9)
    assert figures["F"].item() == pytest.approx(f, abs=1e-9)
    assert figures["J_and_F"].item() == pytest.approx((j + f) / 2, abs=1e-9)


@pytest.mark.parametrize("protocol", [FromFirstFrame(), Rounds(rounds=2), Rounds(memory=False, rounds=2)])
def test_clips_of_a_batch_are_as_by_themselves(protocol: OfClips) -> None:
    together = answer(protocol, clip(0, 1))
    alone = [prediction for number in (0, 1) for prediction in answer(protocol, clip(number))]
    for one, other in zip(together, alone, strict=True):
        assert one.image_id == other.image_id
        assert one.tracked is not None
        assert other.tracked is not None
        assert one.tracked.rles == other.tracked.rles
        assert torch.equal(one.tracked.labels, other.tracked.labels)


def of_object(given: Batch, track: int) -> list[RLE]:
    empty = rle.from_counts([SIZE[0] * SIZE[1]], SIZE)
    return [truth(given, frame).get(track, empty) for frame in range(FRAMES)]


def rounds_of(found: Sequence[Prediction], track: int, rounds: int) -> list[list[RLE]]:
    return [
        [p.tracked_rounds[k].rles[p.tracked_rounds[k].tracks.tolist().index(track)] for p in found]  # type: ignore[union-attr]
        for k in range(rounds)
    ]


def test_rounds_are_those_of_a_user_with_a_tracker_or_with_each_frame_by_itself() -> None:
    given, asked = clip(1), family()
    frames = [to_pixels(image) for image in given.images]
    with torch.no_grad():
        images = [asked.embedded(image[None], [SIZE]) for image in given.images]

    def remembering() -> Remembering:
        return Remembering(asked.network, images.__getitem__, FRAMES)

    def by_itself() -> FrameByFrame:
        return FrameByFrame(Interactive(asked), frames)

    tracks = sorted({track for frame in range(FRAMES) for track in truth(given, frame)})
    expected: dict[Rounds, Callable[[int], list[list[RLE]]]] = {
        Rounds(rounds=3): lambda track: offline(remembering(), of_object(given, track), 3),
        Rounds("online", rounds=3): lambda track: online(remembering, of_object(given, track), 3),
        Rounds(memory=False, rounds=3): lambda track: offline(by_itself(), of_object(given, track), 3),
        Rounds("online", False, 3): lambda track: online(by_itself, of_object(given, track), 3),
        Rounds(rounds=2, clicks=1): lambda track: offline(remembering(), of_object(given, track), 2, 1),
    }
    for protocol, wanted in expected.items():
        found = answer(protocol, given, asked)
        assert [len(prediction.tracked_rounds) for prediction in found] == [protocol.rounds] * FRAMES
        for track in tracks:
            assert rounds_of(found, track, protocol.rounds) == wanted(track)


def test_what_is_kept_of_a_clip_changes_nothing() -> None:
    few, all_of_them = (answer(Rounds(rounds=2, kept_frames=n), clip(1)) for n in (1, 128))
    for one, other in zip(few, all_of_them, strict=True):
        assert [each.rles for each in one.tracked_rounds] == [each.rles for each in other.tracked_rounds]


def test_memory_needs_fewer_frames_than_none_where_the_network_remembers() -> None:
    """Each frame by itself is empty where nobody clicked."""
    given = clip(1)
    (without,) = (answer(Rounds(memory=False, rounds=1), given),)
    track = next(iter(truth(given, 0)))
    masks_ = rounds_of(without, track, 1)[0]
    assert rle.areas(masks_).astype(bool).tolist() == [True, False, False, False, False]
    assert rle.areas(rounds_of(answer(Rounds(rounds=1), given), track, 1)[0]).all()


def test_a_network_of_images_is_asked_in_each_frame_by_itself() -> None:
    network = partial(SAM, **{**SAM.tiny, "image_size": 64, "width": 16, "depth": 1, "global_blocks": (0,)})
    asked = family(network, Promptable)
    found = answer(find("frame_by_frame"), clip(0), asked)  # type: ignore[arg-type]
    assert {len(prediction.tracked_rounds) for prediction in found} == {8}
    for protocol in (FromFirstFrame(), Rounds()):
        with pytest.raises(SegfolioError, match=r"SAM has no memory by which to follow objects; ask it in each frame"):
            answer(protocol, clip(0), asked)


def test_frames_without_annotation_are_followed_and_not_asked_about() -> None:
    given = clip(1)
    sparse = replace(given, targets=[t if i % 2 == 0 else Target() for i, t in enumerate(given.targets)])
    found = answer(FromFirstFrame(), sparse)
    first = [masks(prediction.tracked).keys() & truth(given, 0).keys() for prediction in found]
    assert all(first)
    whole = answer(FromFirstFrame(), given)
    assert [p.tracked.rles for p in found] == [p.tracked.rles for p in whole]  # type: ignore[union-attr]
    (metric,) = Rounds(rounds=2).evaluators(Shapes.labels)
    metric.update_clip(answer(Rounds(rounds=2), sparse), sparse.targets)  # type: ignore[attr-defined]
    assert metric.compute()["J_and_F_rounds"].isfinite()


def test_a_clip_that_begins_without_an_object_is_followed_from_its_first_one() -> None:
    given = clip(1)
    none = given.targets[0].segments[torch.zeros(0, dtype=torch.int64)]  # type: ignore[index]
    later = replace(given, targets=[replace(given.targets[0], segments=none), *given.targets[1:]])
    found = answer(FromFirstFrame(rules="sav"), later)
    assert not masks(found[0].tracked)
    assert masks(found[1].tracked)
    metric = VideoMetric(Shapes.labels)
    metric.update(found, later.targets)
    assert metric.compute()["J"].isnan()  # by DAVIS there is no object then


def test_frames_that_were_resized_are_followed_and_not_asked_about_by_themselves() -> None:
    evaluated = ForEvaluation(shapes(), [Resize((48, 48))])
    given = collate([evaluated[1]])
    assert {tuple(p.tracked.size) for p in answer(FromFirstFrame(), given)} == {SIZE}  # type: ignore[union-attr]
    with pytest.raises(SegfolioError, match=r"val_00001/00000 is resized before it is asked about by itself"):
        answer(Rounds(memory=False), given)


def test_splits_that_cannot_be_followed_are_refused() -> None:
    class Unannotated(MovingShapes):
        def read(self, index: int) -> Any:
            return replace(super().read(index), target=Target())

    for protocol in (FromFirstFrame(), Rounds()):
        protocol.check(shapes(), "val")
        with pytest.raises(SegfolioError, match=r"val of Shapes holds images by themselves; take a dataset of videos"):
            protocol.check(Shapes(None, "val", val=2), "val")
        with pytest.raises(SegfolioError, match=r"val_00000/00000 does not say which object is which"):
            protocol.check(shapes(Unannotated), "val")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: FromFirstFrame("points"), r"prompt of FromFirstFrame is 'points', expected mask, box or clicks"),  # type: ignore[arg-type]
        (lambda: FromFirstFrame("clicks", 0), r"0 clicks and holes of 0 cells; give at least 1 and 0"),
        (lambda: Rounds("both"), r"mode of Rounds is 'both', expected offline or online"),  # type: ignore[arg-type]
        (lambda: Rounds(rounds=0), r"Rounds: rounds is 0; give at least 1"),
    ],
)
def test_arguments_that_make_no_protocol_are_refused(made: Callable[[], Any], said: str) -> None:
    with pytest.raises(SegfolioError, match=said):
        made()


def test_presets_say_what_they_do() -> None:
    assert PRESETS["first_click"].words == (
        "1 clicks at most of each object in the first frame that shows it, J and F by the rules of DAVIS"
    )
    assert PRESETS["frame_by_frame"].words == (
        "8 prompted frames of each object at most, offline, 3 clicks in each, each frame by itself"
    )


def test_clicks_are_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in the middle of each object, of the kind that says so."""
    given, told = clip(0), list[Prompts]()
    prompt = Tracker.prompt

    def listen(self: Tracker, frame: int, image: Any, prompts: Prompts) -> Any:
        told.append(prompts)
        return prompt(self, frame, image, prompts)

    monkeypatch.setattr(Tracker, "prompt", listen)
    answer(FromFirstFrame("clicks"), given)
    for track, point, kind in zip(told[0].of.tolist(), told[0].points, told[0].kinds, strict=True):  # type: ignore[arg-type]
        click = first_click(rle.decode([truth(given, 0)[track]], SIZE)[0])
        assert click is not None
        assert point.tolist() == [[click.x, click.y]]
        assert kind.tolist() == [OBJECT]
    assert isinstance(told[0].points, Tensor)
    assert SMALL["image_size"] == SIZE[0]
