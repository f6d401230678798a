import pytest
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.datasets import Shapes
from segfolio.data.labels import LabelSpace
from segfolio.data.panoptic_truth import panoptic_losses, panoptic_truth
from segfolio.data.sample import Segments, Target

SKY, GRASS, CAT, VOID = 0, 1, 2, 255
LABELS = LabelSpace(("sky", "grass", "cat"), things=("cat",))
SEMANTIC = [[SKY, SKY, CAT], [GRASS, CAT, CAT], [VOID, CAT, SKY]]


def semantic(rows):
    return Mask(torch.tensor(rows, dtype=torch.uint8))


def segments(rows, labels, crowd=None):
    crowd = crowd or [False] * len(labels)
    return Segments(torch.tensor(rows, dtype=torch.int32), torch.tensor(labels), torch.tensor(crowd))


def content(truth):
    return truth.form.tolist(), truth.labels.tolist(), truth.crowd.tolist()


def test_stuff_of_the_semantic_map_joins_things():
    """The cat at the top has no segment: it is void."""
    things = segments([[0, 0, 0], [0, 1, 1], [0, 2, 0]], [CAT, CAT], [False, True])
    truth = panoptic_truth(Target(semantic(SEMANTIC), things), LABELS)
    assert content(truth) == (
        [[3, 3, 0], [4, 1, 1], [0, 2, 3]],
        [CAT, CAT, SKY, GRASS],
        [False, True, False, False],
    )


def test_objects_keep_their_tracks_and_stuff_has_none():
    things = segments([[0, 0, 0], [0, 3, 3], [0, 2, 0]], [CAT, CAT, CAT])
    things.tracks = torch.tensor([5, 9, 4])  # the first has no pixel
    truth = panoptic_truth(Target(semantic(SEMANTIC), things), LABELS)
    assert truth.tracks.tolist() == [9, 4, -1, -1]
    assert truth.labels.tolist() == [CAT, CAT, SKY, GRASS]


def test_things_lie_over_stuff():
    things = segments([[1, 1, 1], [1, 0, 0], [0, 0, 0]], [CAT])
    truth = panoptic_truth(Target(semantic(SEMANTIC), things), LABELS)
    assert content(truth) == ([[1, 1, 1], [1, 0, 0], [0, 0, 2]], [CAT, SKY], [False, False])


def test_a_semantic_map_alone_has_stuff_alone():
    truth = panoptic_truth(Target(semantic(SEMANTIC)), LABELS)
    assert content(truth) == ([[1, 1, 0], [2, 0, 0], [0, 0, 1]], [SKY, GRASS], [False, False])


def test_segments_with_stuff_are_the_truth_as_they_are():
    given = segments([[2, 0, 0], [1, 1, 1], [0, 0, 0]], [CAT, SKY], [True, False])
    truth = panoptic_truth(Target(semantic(SEMANTIC), given), LABELS)
    assert content(truth) == content(given)


def test_segments_alone_are_the_truth_and_no_segment_is_one_too():
    assert content(panoptic_truth(Target(segments=segments([[0, 1]], [CAT])), LABELS)) == ([[0, 1]], [CAT], [False])
    none = Segments(torch.zeros(2, 2, dtype=torch.int32), torch.zeros(0).long(), torch.zeros(0).bool())
    assert content(panoptic_truth(Target(segments=none), LABELS)) == ([[0, 0], [0, 0]], [], [])


@pytest.mark.parametrize("form", ["masks", "rles"])
def test_of_masks_that_overlap_the_later_is_seen_and_a_hidden_one_is_dropped(form):
    masks = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 0]], [[0, 0, 1, 1]]]).bool()
    given = Segments(Mask(masks), torch.tensor([CAT, SKY, GRASS]), torch.tensor([False, False, True]))
    if form == "rles":
        given = Segments(given.rles, given.labels, given.crowd, given.size)
    truth = panoptic_truth(Target(segments=given), LABELS)
    assert content(truth) == ([[1, 1, 2, 2]], [SKY, GRASS], [False, True])
    assert truth.form.dtype == torch.int32


def test_wide_label_spaces_have_wide_maps():
    labels = LabelSpace(tuple(map(str, range(400))), ignore_index=65535)
    wide = Mask(torch.tensor([[399, 65535, 7]], dtype=torch.uint16))
    assert content(panoptic_truth(Target(wide), labels)) == ([[2, 0, 1]], [7, 399], [False, False])


def test_neither_segments_nor_a_map_is_an_error():
    with pytest.raises(ValueError, match="this dataset has neither"):
        panoptic_truth(Target(), LABELS)


def test_every_pixel_of_shapes_has_a_segment_of_its_class():
    dataset = Shapes(train=20)
    for target in (dataset[i].target for i in range(20)):
        truth = panoptic_truth(target, dataset.labels)
        assert torch.equal(truth.labels[truth.form.long() - 1], target.semantic.long())
        assert len(truth) == len(target.segments) + len(target.semantic[target.semantic < 4].unique())


def lost(target):
    return [(problem.what.split(",")[0], problem.where) for problem in panoptic_losses(target, LABELS, "train 7")]


@pytest.mark.parametrize("form", ["masks", "rles"])
def test_pixels_that_two_segments_claim_are_told(form):
    """Those of a crowd aside."""
    masks = torch.tensor([[[1, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 1, 1, 1]]]).bool()
    given = Segments(Mask(masks), torch.tensor([CAT, CAT, CAT]), torch.tensor([False, False, True]))
    if form == "rles":
        given = Segments(given.rles, given.labels, given.crowd, given.size)
    assert lost(Target(segments=given)) == [("whose segments overlap", "train 7 (1 pixels)")]
    assert lost(Target(segments=given[torch.tensor([0, 2])])) == []


def test_things_that_no_segment_covers_are_told():
    things = segments([[0, 0, 0], [0, 1, 1], [0, 2, 0]], [CAT, CAT], [False, True])
    ((what, where),) = lost(Target(semantic(SEMANTIC), things))
    assert (what, where) == ("with things outside all segments", "train 7 (cat)")
    whole = segments([[3, 3, 1], [4, 1, 1], [0, 2, 3]], [CAT, CAT, SKY, GRASS])
    assert lost(Target(semantic(SEMANTIC), whole)) == []


def test_stuff_that_no_segment_covers_beside_stuff_that_one_covers_is_told():
    part = segments([[3, 3, 1], [4, 1, 1], [0, 2, 0]], [CAT, CAT, SKY, GRASS])
    ((what, where),) = lost(Target(semantic(SEMANTIC), part))
    assert (what, where) == ("with stuff outside all segments", "train 7 (sky)")


def test_two_segments_of_one_stuff_class_are_told():
    given = segments([[1, 1, 2]], [SKY, SKY])
    assert lost(Target(segments=given)) == [
        ("with several segments of one class that is stuff (is it a thing?)", "train 7 (sky)")
    ]


def test_shapes_lose_nothing():
    dataset = Shapes(train=10)
    assert not [p for i in range(10) for p in panoptic_losses(dataset[i].target, dataset.labels, f"{i}")]
