import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

from segfolio.data.datasets import MovingShapes, Shapes
from segfolio.data.sample import Sample
from segfolio.errors import SegfolioError

CLIPS, FRAMES = 40, 24


@pytest.fixture(scope="module")
def clips() -> list[list[Sample]]:
    dataset = MovingShapes(train=CLIPS, frames=FRAMES)
    return [[dataset[i] for i in dataset.frames_of(clip)] for clip in range(CLIPS)]


def areas(clip: list[Sample]) -> np.ndarray:
    """Visible pixels of each number in each frame, `[N, T]`; zeros of a number that is none."""
    found = np.zeros((6, len(clip)), int)
    for t, sample in enumerate(clip):
        segments = sample.target.segments
        found[segments.tracks.numpy(), t] = segments.masks.sum((1, 2)).numpy()
    return found


def test_a_frame_is_a_function_of_seed_split_clip_and_frame(clips) -> None:
    again = MovingShapes(train=100, frames=FRAMES)
    for clip, frame in ((7, 23), (3, 0), (7, 5)):  # in any order, after the scene was forgotten
        sample, before = again[clip * FRAMES + frame], clips[clip][frame]
        assert torch.equal(sample.image, before.image)
        assert torch.equal(sample.target.semantic, before.target.semantic)
        assert torch.equal(sample.target.segments.masks, before.target.segments.masks)
    others = [MovingShapes(seed=1)[0], MovingShapes(split="val")[0], clips[1][0]]
    assert all((other.image.float() - clips[0][0].image).abs().mean() > 10 for other in others)


def test_clips_have_the_lengths_asked_for_and_frames_ids_of_their_own(clips) -> None:
    dataset = MovingShapes(split="val", val=3, frames=5)
    assert (dataset.clip_count, len(dataset), list(dataset.frames_of(2))) == (3, 15, [10, 11, 12, 13, 14])
    assert [dataset[i].image_id for i in (0, 14)] == ["val_00000/00000", "val_00002/00004"]
    assert len({sample.image_id for clip in clips for sample in clip}) == CLIPS * FRAMES
    with pytest.raises(IndexError):
        dataset[15]


def test_segments_are_what_is_visible_and_keep_their_class_throughout_the_clip(clips) -> None:
    for clip in clips:
        classes: dict[int, int] = {}
        for sample in clip:
            segments, semantic = sample.target.segments, sample.target.semantic.numpy()
            masks = segments.masks.numpy()
            assert masks.any((1, 2)).all()
            assert np.array_equal(masks.sum(0), semantic >= 4)
            for track, label, mask in zip(segments.tracks.tolist(), segments.labels.tolist(), masks, strict=True):
                assert classes.setdefault(track, label) == label
                assert (semantic[mask] == label).all()


def test_an_object_keeps_its_colour(clips) -> None:
    """Its mean colour changes less from the first frame to the last than objects differ: facets turn to the light."""
    within, between = [], []
    for clip in clips:
        colors = []
        for sample in (clip[0], clip[-1]):
            segments, image = sample.target.segments, sample.image.float()
            masks = segments.masks
            pairs = zip(segments.tracks.tolist(), masks, strict=True)
            colors.append({track: image[:, mask].mean(1) for track, mask in pairs if mask.sum() > 30})
        for track, color in colors[0].items():
            for other, later in colors[1].items():
                (within if track == other else between).append(float((color - later).norm()))
    assert np.median(within) < 0.2 * np.median(between)


def test_objects_move_smoothly_by_up_to_a_twentieth_of_the_image(clips) -> None:
    """By the centres of those that are seen whole: as large as they ever are, and not at the border."""
    steps = []
    for clip in clips:
        largest = areas(clip).max(1)
        centres = []
        for sample in clip:
            tracks, masks = sample.target.segments.tracks.tolist(), sample.target.segments.masks.numpy()
            whole = masks[:, 1:-1, 1:-1].sum((1, 2)) == masks.sum((1, 2))
            whole &= masks.sum((1, 2)) > 0.95 * largest[tracks]
            pairs = zip(tracks, masks, whole, strict=True)
            centres.append({track: np.argwhere(mask).mean(0) for track, mask, is_whole in pairs if is_whole})
        for before, after in pairwise(centres):
            steps += [np.abs(after[track] - before[track]).max() for track in before.keys() & after.keys()]
    assert max(steps) < 0.05 * 96 + 1
    assert np.mean(steps) > 0.01 * 96


def test_objects_leave_come_back_and_hide_one_another(clips) -> None:
    lost, back, crossing, first, objects = 0, 0, 0, 0, 0
    for clip in clips:
        visible = areas(clip)
        visible = visible[visible.any(1)]
        for seen in visible > 0:
            objects += 1
            first += bool(seen[0])
            after = seen[seen.argmax() :]
            lost += not after.all()
            back += bool((np.diff(after.astype(int)) == 1).any())
        crossing += bool((visible[:-1] < 0.5 * visible[:-1].max(1, keepdims=True)).any())  # all but the one in front
    assert first > 0.9 * objects  # which can be followed from the first frame on
    assert lost > 0.2 * objects
    assert back > 0.1 * objects
    assert crossing > 0.5 * CLIPS


def test_the_camera_moves(clips) -> None:
    """Where no object has been, classes change."""
    moved = 0
    for clip in clips:
        first, last = (clip[t].target.semantic.numpy() for t in (0, -1))
        stuff = (first < 4) & (last < 4)
        moved += (first != last)[stuff].mean() > 0.02
    assert moved > 0.5 * CLIPS


def test_it_has_the_classes_of_shapes_and_travels_to_workers(clips) -> None:
    dataset = MovingShapes()
    assert dataset.labels == Shapes.labels
    dataset[0]
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3].image, clips[0][3].image)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(SegfolioError, match="Moving shapes has no split 'dev'; it has test, train, val"):
        MovingShapes(split="dev")
    with pytest.raises(SegfolioError, match=r"size of MovingShapes is \(16, 96\), expected at least 32"):
        MovingShapes(size=(16, 96))
    with pytest.raises(SegfolioError, match=r"numbers of clips, not -1, 32, 32, and frames is .* not 24"):
        MovingShapes(train=-1)
    with pytest.raises(SegfolioError, match="at least 1, not 0"):
        MovingShapes(frames=0)
