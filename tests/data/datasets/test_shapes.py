import numpy as np
import pytest
import torch

from segfolio.data.datasets import Shapes
from segfolio.errors import SegfolioError


@pytest.fixture(scope="module")
def samples():
    dataset = Shapes(train=200)
    return [dataset[i] for i in range(len(dataset))]


def test_a_sample_is_a_function_of_seed_split_and_index(samples):
    again = Shapes(train=300)[57]
    assert torch.equal(again.image, samples[57].image)
    assert torch.equal(again.target.semantic, samples[57].target.semantic)
    assert torch.equal(again.target.segments.masks, samples[57].target.segments.masks)
    others = [Shapes(seed=1)[57], Shapes(split="val")[57], samples[58]]
    assert all((other.image.float() - again.image).abs().mean() > 10 for other in others)


def test_splits_have_the_lengths_asked_for_and_unique_ids(samples):
    assert [len(Shapes(split=split, train=7, val=5, test=3)) for split in ("train", "val", "test")] == [
        7,
        5,
        3,
    ]
    assert len({sample.image_id for sample in samples}) == 200
    assert (samples[0].image_id, Shapes(split="test")[3].image_id) == ("train_00000", "test_00003")
    with pytest.raises(IndexError):
        Shapes(split="val", val=5)[5]


@pytest.mark.parametrize("size", [(96, 96), (64, 160)])
def test_images_are_bytes_of_the_size_asked_for(size):
    sample = Shapes(size=size)[0]
    assert (sample.image.dtype, sample.image.shape) == (torch.uint8, (3, *size))
    assert (sample.target.semantic.shape, sample.original_size) == (size, size)


def test_segments_are_the_things_of_the_semantic_map_and_do_not_overlap(samples):
    for sample in samples:
        segments, semantic = sample.target.segments, sample.target.semantic.numpy()
        masks, labels = segments.masks.numpy(), segments.labels.numpy()
        assert len(masks) == len(labels) == len(segments.crowd)
        assert np.array_equal(masks.sum(0), semantic >= 4)  # each pixel of a thing belongs to one segment
        assert np.array_equal((masks * labels[:, None, None]).sum(0), np.where(semantic >= 4, semantic, 0))
        assert masks.any((1, 2)).all()
        assert not segments.crowd.any()


def test_scenes_vary_from_empty_to_crowded(samples):
    counts = torch.bincount(torch.tensor([len(sample.target.segments) for sample in samples]))
    assert counts[0] > 10
    assert (counts[3:7] > 10).all()


def test_classes_are_as_frequent_as_others_of_their_kind(samples):
    pixels = sum(torch.bincount(sample.target.semantic.reshape(-1).long(), minlength=8) for sample in samples)
    share = pixels / pixels.sum()
    assert len(share) == Shapes.labels.num_classes
    assert (share[:4] - 0.187).abs().max() < 0.07
    assert (share[4:] - 0.0635).abs().max() < 0.015


def test_colour_alone_does_not_tell_the_classes_apart(samples):
    """The best guess from a pixel's colour (8 bins per channel) is right less than half of the time."""
    bins = torch.cat(
        [(s.image.long() // 32 * torch.tensor([64, 8, 1])[:, None, None]).sum(0).reshape(-1) for s in samples]
    )
    classes = torch.cat([s.target.semantic.reshape(-1).long() for s in samples])
    table = torch.bincount(bins * 8 + classes, minlength=512 * 8).reshape(512, 8)
    assert table.amax(1).sum() / len(classes) < 0.5


def test_the_edges_of_things_are_where_the_truth_says(samples):
    """Grey levels change across the outline of a thing more than twice as much as elsewhere."""
    at_edges, elsewhere = [], []
    for sample in samples[:50]:
        step = np.abs(np.diff(sample.image.numpy().astype(int), axis=2)).sum(0)
        semantic = sample.target.semantic.numpy()
        edge = (semantic[:, 1:] != semantic[:, :-1]) & (np.maximum(semantic[:, 1:], semantic[:, :-1]) >= 4)
        at_edges.append(step[edge])
        elsewhere.append(step[~edge])
    assert np.concatenate(at_edges).mean() > 2 * np.concatenate(elsewhere).mean()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(SegfolioError, match="Shapes has no split 'dev'; it has test, train, val"):
        Shapes(split="dev")
    with pytest.raises(SegfolioError, match=r"size of Shapes is \(16, 96\), expected at least 32"):
        Shapes(size=(16, 96))
    with pytest.raises(SegfolioError, match="train, val and test of Shapes are numbers of images, not -1, 128, 128"):
        Shapes(train=-1)
