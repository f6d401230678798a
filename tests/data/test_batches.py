"""From a split to batches: clips, mixing, preparation, and the one batch that comes of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from torchvision.tv_tensors import Image

from segfolio.data import transforms
from segfolio.data.batches import Augmented, ForEvaluation, collate
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.datasets import Shapes
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.data.prompts import Prompts
from segfolio.data.remap import Remapped
from segfolio.data.sample import Batch, Sample
from segfolio.data.samplers import Draw
from segfolio.data.transforms import ColorJitter, Mixing, RandomWindow, Resize
from segfolio.errors import SegfolioError

SIZE = (48, 64)
SHAPES = partial(Shapes, size=SIZE, train=7, val=3, test=3)
DRAW = Draw(2, (0, 0, 0))


class Videos(SegmentationDataset):
    """Eight frames of 16 x 20 in three clips; frame i is of the value i."""

    labels = LabelSpace(("thing",), things=("thing",))
    clips = (range(3), range(3, 4), range(4, 8))

    def __init__(self, root: str | None = None, split: str = "train") -> None:
        pass

    def __len__(self) -> int:
        return 8

    def read(self, index: int) -> Sample:
        return Sample(Image(torch.full((3, 16, 20), index, dtype=torch.uint8)), str(index), (16, 20))


class Images(Videos):
    """The same frames, each by itself."""

    clips = None


class Mosaic(Mixing):
    """Four samples as the quarters of one; which goes where is drawn."""

    samples = 4

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
        a, b, c, d = (samples[i].image[:, ::2, ::2] for i in rng.permutation(4))
        whole = torch.cat([torch.cat([a, b], 2), torch.cat([c, d], 2)], 1)
        return replace(samples[0], image=Image(whole))


class Noise:
    """Adds one drawn number to all pixels."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return replace(sample, image=Image(sample.image + int(rng.integers(10, 200))))


def values(sample: Sample) -> list[int]:
    return sample.image.unique().tolist()


def test_all_frames_of_a_clip_are_augmented_alike() -> None:
    """A gradient in place of one value shows where pixels come from."""

    class Still(Videos):
        def read(self, index: int) -> Sample:
            pixels = torch.arange(3 * 16 * 20).reshape(3, 16, 20).to(torch.uint8)
            return Sample(Image(pixels), str(index), (16, 20))

    transforms = [RandomWindow((12, 12), scale=(0.5, 2.0), hflip=0.5, rotation=20), ColorJitter(0.4, 0.4, 0.4, 0.1)]
    clip = Augmented(Still(), transforms)[DRAW]
    assert [sample.image_id for sample in clip] == ["4", "5", "6", "7"]
    assert all(torch.equal(sample.image, clip[0].image) for sample in clip)
    other = Augmented(Still(), transforms)[DRAW._replace(key=(0, 0, 1))]
    assert not torch.equal(clip[0].image, other[0].image)


@pytest.mark.parametrize("remap", [None, {"thing": "object"}], ids=["plain", "remapped"])
def test_clips_stay_whole_in_training_and_evaluation(remap: dict[str, str | None] | None) -> None:
    data = DataModule(Videos, remap=remap, batch_size=3, eval_batch_size=2, num_workers=0)
    (train,) = data.train_dataloader()
    assert sorted(train.clips) == [1, 3, 4]
    ids = iter(map(int, train.image_ids))
    assert all((clip := [next(ids) for _ in range(n)]) == list(range(clip[0], clip[0] + n)) for n in train.clips)
    batches = list(data.val_dataloader())
    assert [(b.image_ids, b.clips) for b in batches] == [(["0", "1", "2", "3"], [3, 1]), (["4", "5", "6", "7"], [4])]
    assert [len(b.images) for b in batches] == [4, 4]


def test_more_processes_than_clips_are_refused() -> None:
    data = DataModule(Videos, num_workers=0)
    data.trainer = type("T", (), {"global_rank": 0, "world_size": 4, "num_devices": 4})  # type: ignore[assignment]
    with pytest.raises(SegfolioError, match="3 clips cannot be shared by 4 processes"):
        data.val_dataloader()


def test_an_image_by_itself_is_a_clip_of_one() -> None:
    assert collate(list(map(Augmented(Images(), []).__getitem__, [DRAW, DRAW]))).clips == [1, 1]


def test_what_is_mixed_in_is_drawn_from_the_split_behind_the_transforms_before_it() -> None:
    seen = set()
    for position in range(40):
        (sample,) = Augmented(Images(), [Mosaic()])[DRAW._replace(key=(0, 0, position))]
        assert sample.image_id == "2"
        assert sample.image.shape == (3, 16, 20)
        assert 2 in values(sample)
        seen |= set(values(sample))
    assert seen == set(range(8))
    (before,) = Augmented(Images(), [Noise(), Mosaic()])[DRAW]
    (behind,) = Augmented(Images(), [Mosaic(), Noise()])[DRAW]
    assert max(values(behind)) - min(values(behind)) < 8 < max(values(before)) - min(values(before))


def test_one_that_mixes_is_named_in_a_config_beside_the_others() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DataModule, "data")
    names = ["tests.data.test_batches.Mosaic", "segfolio.data.transforms.ColorJitter"]
    content = {"dataset": "tests.data.test_batches.Images", "train_transforms": [{"class_path": n} for n in names]}
    data = parser.instantiate_classes(parser.parse_object({"data": content})).data
    assert [type(transform).__name__ for transform in data.train_transforms] == ["Mosaic", "ColorJitter"]


def test_a_mosaic_of_mosaics_has_up_to_sixteen_sources() -> None:
    counts = [len(values(Augmented(Images(), [Mosaic(), Mosaic()])[Draw(0, (0, 0, i))][0])) for i in range(20)]
    assert max(counts) > 4


def test_a_frame_is_mixed_with_the_frames_at_its_place_in_other_clips() -> None:
    clip = Augmented(Videos(), [Mosaic()])[DRAW]
    sources = [[0, 1, 2, 2], [3] * 4, [4, 5, 6, 7]]  # of each clip, at each place; a shorter one stays at its end
    for place, frame in enumerate(clip):
        mixed = {[source[place] for source in sources].index(value) for value in values(frame)}
        assert 2 in mixed
        assert mixed == {[source[0] for source in sources].index(value) for value in values(clip[0])}


class Part(NamedTuple):
    """What a training process draws of an epoch: which one it is, of how many, and how many steps are behind it."""

    rank: int = 0
    processes: int = 1
    done: int = 0

    def batches(self, mixing: Mixing, **arguments: Any) -> list[Batch]:
        data = DataModule(
            SHAPES, train_transforms=[RandomWindow((40, 40)), mixing], **{"batch_size": 2, "num_workers": 0} | arguments
        )
        progress = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=self.done)))
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=self.rank,
            world_size=self.processes,
            num_devices=self.processes,
            accumulate_grad_batches=1,
            overfit_batches=0,
            lightning_module=None,
            current_epoch=0,
            fit_loop=SimpleNamespace(epoch_loop=progress),
        )
        return list(data.train_dataloader())


def images_of(batches: Sequence[Batch]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each image its pixels, masks and labels."""
    return [
        (image, target.segments.masks, target.segments.labels)  # type: ignore[union-attr]
        for batch in batches
        for image, target in zip(batch.images, batch.targets, strict=True)
    ]


@pytest.mark.parametrize(
    "mixing", [transforms.Mosaic((32, 32)), transforms.MixUp(), transforms.CopyPaste()], ids=lambda m: type(m).__name__
)
def test_an_epoch_of_mixtures_is_the_same_however_it_is_divided(mixing: Mixing) -> None:
    """Over workers, over processes, and into a run and its resumption."""
    whole = Part().batches(mixing)
    assert len(whole) == 3
    first, second = (Part(rank, 2).batches(mixing) for rank in (0, 1))
    turns = [batch for pair in zip(first, second, strict=True) for batch in pair]
    for found, expected in (
        (Part().batches(mixing, num_workers=2), whole),
        (Part().batches(mixing, cache=True), whole),
        (turns, whole),
        (Part(done=1).batches(mixing), whole[1:]),
    ):
        for ours, theirs in zip(images_of(found), images_of(expected), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_preparation_comes_last_and_has_a_stream_of_its_own() -> None:
    drawn = []

    def prepare(sample: Sample, rng: np.random.Generator) -> Sample:
        drawn.append((values(sample), float(rng.random())))
        return replace(sample, image_id="prepared")

    (sample,) = Augmented(Images(), [Noise()], prepare)[DRAW]
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(DRAW.key)))
    own = np.random.Generator(np.random.Philox(np.random.SeedSequence(DRAW.key, spawn_key=(2,))))
    assert drawn == [([2 + int(rng.integers(10, 200))], own.random())]
    assert sample.image_id == "prepared"


def test_prompts_that_do_not_fit_the_image_are_refused_where_they_are_made() -> None:
    def click(x: float) -> Callable[..., Sample]:
        prompts = Prompts(torch.tensor([0]), torch.tensor([[[x, 3.0]]]), torch.tensor([[1]]))
        return lambda sample, rng: replace(sample, prompts=prompts)

    batch = collate([Augmented(Images(), [], click(19.5))[DRAW]])
    assert batch.prompts[0].points is not None
    with pytest.raises(SegfolioError, match=r"^2: a click is at x 20, y 3, outside the image of 20x16 pixels$"):
        Augmented(Images(), [], click(20.0))[DRAW]


@pytest.mark.parametrize("transforms", [[], [Resize((24, 40))]], ids=["none", "resize"])
def test_a_sample_that_the_dataset_keeps_is_not_changed(transforms: list[Any]) -> None:
    dataset = SHAPES(None, "val")
    kept = dataset.read(0)
    dataset.read = lambda index: kept  # type: ignore[method-assign]
    image, target = kept.image.clone(), kept.target
    results = [sample for _ in range(2) for sample in ForEvaluation(dataset, transforms)[0]]
    assert [r.target for r in results] == [target, target]
    assert kept.target is target
    assert torch.equal(kept.image, image)


def test_a_batch_of_several_sizes_is_refused_with_images_and_remedy() -> None:
    clips = [[Shapes(split="val", size=size).read(i)] for i, size in enumerate([(32, 40), (32, 40), (50, 33)])]
    assert collate(clips[:2]).images.shape == (2, 3, 32, 40)
    message = r"images of 2 sizes \(val_00000 40x32, val_00001 40x32, val_00002 33x50\); add a RandomWindow"
    with pytest.raises(SegfolioError, match=message):
        collate(clips)


def test_a_batch_of_several_sizes_is_padded_where_it_is_asked_for() -> None:
    clips = [[Shapes(split="val", size=size).read(i)] for i, size in enumerate([(32, 40), (50, 33)])]
    batch = collate(clips, padded=True)
    assert batch.images.shape == (2, 3, 50, 40)
    assert batch.sizes == [(32, 40), (50, 33)]
    for image, (sample,), (height, width) in zip(batch.images, clips, batch.sizes, strict=True):
        assert torch.equal(image[:, :height, :width], sample.image.as_subclass(Tensor))
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
    assert [target.segments.size for target in batch.targets if target.segments] == [(32, 40), (50, 33)]
    assert collate(clips[:1]).sizes == [(32, 40)]


def test_samples_without_truth_make_a_batch_without_targets() -> None:
    sample = replace(SHAPES(None, "val").read(0), target=None)
    assert collate([[sample], [sample]]).targets == []


def test_a_truth_or_prompts_of_some_images_alone_are_refused() -> None:
    whole = SHAPES(None, "val").read(0)
    asked = replace(whole, image_id="asked", prompts=Prompts(torch.tensor([0])))
    assert len(collate([[asked], [asked]]).prompts) == 2
    with pytest.raises(SegfolioError, match=r"^val_00000 has no prompts, and other images of its batch have"):
        collate([[whole], [asked]])
    with pytest.raises(SegfolioError, match=r"^b has no target, and other images of its batch have"):
        collate([[whole], [replace(whole, image_id="b", target=None)]])


def test_extras_are_stacked_by_name_and_element_by_element() -> None:
    def prepare(sample: Sample, rng: np.random.Generator) -> Sample:
        views = [sample.image, sample.image[:, ::2, ::2]]
        return replace(sample, extras={"views": views, "token": torch.tensor([int(sample.image_id)])})

    dataset = Augmented(Images(), [], prepare)
    clips = [dataset[Draw(i, (0, 0, 0))] for i in (3, 5)]
    batch = collate(clips)
    assert [view.shape for view in batch.extras["views"]] == [(2, 3, 16, 20), (2, 3, 8, 10)]
    assert [view[:, 0, 0, 0].tolist() for view in batch.extras["views"]] == [[3, 5], [3, 5]]
    assert batch.extras["token"].tolist() == [[3], [5]]  # type: ignore[union-attr]
    clips[1][0] = replace(clips[1][0], extras={"views": [], "token": torch.tensor([5])})
    with pytest.raises(SegfolioError, match=r"^the extra 'views' of 3 is .*8, 10\]\] and of 5 \[\]; a preparation"):
        collate(clips)


class Greedy(Mixing):
    """Draws as many numbers as its first frame says."""

    samples = 1

    def __init__(self, until_epoch: int | None = None) -> None:
        self.until_epoch = until_epoch

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
        rng.random(int(samples[0].image.max()))
        return replace(samples[0], image=Image(samples[0].image + 1))


def test_what_draws_by_what_it_sees_leaves_the_transforms_of_all_frames_alike() -> None:
    def greedy(sample: Sample, rng: np.random.Generator) -> Sample:
        rng.random(int(sample.image.max()))
        return sample

    plain, noisy = (Augmented(Videos(), transforms, greedy)[DRAW] for transforms in ([Noise()], [Greedy(), Noise()]))
    added = [values(frame)[0] - place for place, frame in enumerate(plain, 4)]
    assert len(set(added)) == 1
    assert [values(frame)[0] - place - 1 for place, frame in enumerate(noisy, 4)] == added


def test_a_mixing_is_left_out_from_an_epoch_on() -> None:
    mixed = [values(Augmented(Images(), [Greedy(2)])[Draw(5, (0, epoch, 0))][0]) for epoch in range(4)]
    assert mixed == [[6], [6], [5], [5]]


class Some(Videos):
    """Two frames of each clip, drawn in training."""

    def frames_of(self, clip: int, rng: np.random.Generator | None = None) -> Sequence[int]:
        frames = super().frames_of(clip)
        return frames if rng is None else sorted(rng.choice(frames, 2).tolist())


@pytest.mark.parametrize("remap", [None, {"thing": "object"}], ids=["plain", "remapped"])
def test_frames_are_drawn_in_training_alone(remap: dict[str, str | None] | None) -> None:
    dataset = Some() if remap is None else Remapped(Some(), remap)
    drawn = {tuple(s.image_id for s in Augmented(dataset, [])[Draw(2, (0, 0, i))]) for i in range(40)}
    assert {len(frames) for frames in drawn} == {2}
    assert {frame for frames in drawn for frame in frames} == set("4567")
    assert [sample.image_id for sample in ForEvaluation(dataset, [])[2]] == list("4567")


def test_a_preparation_of_clips_gets_all_frames_at_once() -> None:
    class Last:
        def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
            raise AssertionError

        def of_clip(self, samples: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
            return [replace(sample, extras={"last": samples[-1].image}) for sample in samples]

    clip = Augmented(Videos(), [], Last())[DRAW]
    assert [int(sample.extras["last"].max()) for sample in clip] == [7] * 4  # type: ignore[union-attr]
