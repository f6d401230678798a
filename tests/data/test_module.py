"""The one `DataModule`: what reaches training, what evaluation keeps, what workers and processes may not change."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segfolio.data.datasets import CamVid, Shapes
from segfolio.data.formats.images import write_image
from segfolio.data.image_space import GREY
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule, workers_each
from segfolio.data.sample import Batch, Sample
from segfolio.data.transforms import ColorJitter, RandomWindow, Resize
from segfolio.errors import SegfolioError
from tests.fake import camvid

SIZE = (48, 64)
SHAPES = partial(Shapes, size=SIZE, train=7, val=3, test=3)


def module(**arguments: Any) -> DataModule:
    return DataModule(**{"dataset": SHAPES, "batch_size": 2, "num_workers": 0, **arguments})


def paint(value: int) -> Any:
    """A transform that fills the image."""
    return lambda sample, rng: replace(sample, image=torch.full_like(sample.image, value))


def blind(sample: Sample, rng: Any) -> Sample:
    assert sample.target is None
    return sample


def content(batches: Iterable[Batch]) -> list[tuple[list[str], Tensor, Tensor]]:
    return [(batch.image_ids, batch.images, batch.semantic()) for batch in batches]


def same(a: Iterable[Batch], b: Iterable[Batch]) -> bool:
    pairs = zip(content(a), content(b), strict=True)
    return all(i == j and torch.equal(x, y) and torch.equal(s, t) for (i, x, s), (j, y, t) in pairs)


def test_each_loader_has_its_own_transforms() -> None:
    data = module(train_transforms=[paint(1)], eval_transforms=[paint(2)])
    seen = {
        name: torch.cat([batch.images.flatten() for batch in getattr(data, f"{name}_dataloader")()]).unique().tolist()
        for name in ("train", "statistics", "val", "test", "predict")
    }
    assert seen == {"train": [1], "statistics": [2], "val": [2], "test": [2], "predict": [2]}


def test_a_test_may_have_transforms_of_its_own() -> None:
    data = module(eval_transforms=[paint(2)], test_transforms=[])
    val, test = (
        torch.cat([batch.images.flatten() for batch in loader()])
        for loader in (data.val_dataloader, data.test_dataloader)
    )
    assert val.unique().tolist() == [2]
    assert len(test.unique()) > 2


def test_evaluation_transforms_change_the_image_and_not_the_truth() -> None:
    batches = list(module(eval_transforms=[blind, Resize((24, 40))], eval_batch_size=3).val_dataloader())
    assert batches[0].images.shape == (3, 3, 24, 40)
    assert batches[0].original_sizes == [SIZE] * 3
    for i, target in enumerate(batches[0].targets):
        truth: Any = SHAPES(None, "val").read(i).target
        assert target.segments is not None
        assert torch.equal(batches[0].semantic()[i], truth.semantic.long())
        assert torch.equal(target.segments.masks, truth.segments.masks)


def test_padding_is_refused_to_a_family_that_does_not_know_of_it() -> None:
    data = module(pad_batches=True)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(takes_padding=True), enable_validation=True)  # type: ignore[assignment]
    data.setup("fit")
    data.trainer = SimpleNamespace(lightning_module=Tensor())  # type: ignore[assignment]
    with pytest.raises(SegfolioError, match=r"data\.pad_batches is true, but Tensor would take padding for image"):
        data.setup("fit")


def test_labels_open_no_more_files_than_the_loop_needs() -> None:
    opened: list[str] = []

    def dataset(root: str | None, split: str) -> Shapes:
        opened.append(split)
        return SHAPES(root, split)

    assert module(dataset=dataset).labels is Shapes.labels
    data = module(dataset=dataset)
    data.setup("validate")
    assert data.labels is Shapes.labels
    assert opened == ["train", "val"]


AUGMENTATION = [RandomWindow((32, 40), scale=(0.5, 2.0), hflip=0.5), ColorJitter(0.4, 0.4, 0.4, 0.1)]


@pytest.mark.parametrize("other", [{"num_workers": 2}, {"cache": True}], ids=lambda x: next(iter(x)))
def test_training_batches_do_not_depend_on_how_they_are_loaded(other: dict[str, Any]) -> None:
    loaders = [module(train_transforms=AUGMENTATION, **more).train_dataloader() for more in ({}, other)]
    epochs = []
    for epoch in range(2):
        for loader in loaders:
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        epochs.append([list(loader) for loader in loaders])
        assert same(*epochs[-1])
        assert len(epochs[-1][0]) == 3
    assert not same(epochs[0][0], epochs[1][0])


def test_the_same_image_is_augmented_anew_in_every_epoch_and_under_every_seed() -> None:
    views = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        one = {"dataset": partial(SHAPES, train=1), "batch_size": 1, "seed": seed}
        loader = module(train_transforms=AUGMENTATION, **one).train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        views.append(next(iter(loader)).images)
    assert [torch.equal(views[0], view) for view in views] == [True, False, False, True]


def test_evaluation_batches_do_not_depend_on_workers() -> None:
    loaders = [module(num_workers=n, eval_batch_size=2).val_dataloader() for n in (0, 2)]
    assert same(*loaders)
    assert [batch.image_ids for batch in loaders[0]] == [["val_00000", "val_00001"], ["val_00002"]]


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_the_batches_of_statistics_do_not_depend_on_the_number_of_processes(world_size: int) -> None:
    def batches(rank: int, of: int) -> list[Batch]:
        data = module()
        data.trainer = SimpleNamespace(global_rank=rank, world_size=of, num_devices=of)  # type: ignore[assignment]
        return list(data.statistics_dataloader())

    one = batches(0, 1)
    assert [len(batch) for batch in one] == [2, 2, 2, 1]
    shares = chain.from_iterable(batches(rank, world_size) for rank in range(world_size))
    assert same(one, sorted(shares, key=lambda batch: batch.image_ids))


@pytest.mark.parametrize(
    ("wanted", "processes", "each"), [(8, 1, 8), (8, 4, 2), (7, 2, 3), (2, 4, 1), (0, 4, 0), (None, 10**6, 1)]
)
def test_the_processes_of_a_machine_share_what_loads(wanted: int | None, processes: int, each: int) -> None:
    assert workers_each(wanted, processes) == each


def test_a_loader_has_its_share_of_the_processes_that_load() -> None:
    data = module(num_workers=2)
    data.trainer = SimpleNamespace(global_rank=0, world_size=2, num_devices=2)  # type: ignore[assignment]
    assert data.val_dataloader().num_workers == 1


def test_by_default_the_cores_of_a_machine_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 33)
    assert [workers_each(None, processes) for processes in (1, 4, 8, 16)] == [8, 8, 4, 2]


def test_more_processes_than_images_are_refused() -> None:
    data = module()
    data.trainer = SimpleNamespace(global_rank=3, world_size=4)  # type: ignore[assignment]
    with pytest.raises(SegfolioError, match="3 images cannot be shared by 4 processes; use fewer devices"):
        data.val_dataloader()


def test_plain_images_are_predicted_one_by_one_at_their_own_sizes(tmp_path: Path) -> None:
    sizes = {"a": (40, 50), "deep/b": (30, 70)}
    for value, (name, size) in enumerate(sizes.items(), 1):
        write_image(tmp_path / f"{name}.png", np.full((*size, 3), value, np.uint8))
    data = module(images=str(tmp_path), eval_batch_size=4, eval_transforms=[Resize((32, 32))])
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [(b.image_ids, b.original_sizes) for b in batches] == [([name], [size]) for name, size in sizes.items()]
    assert [b.images.unique().tolist() for b in batches] == [[1], [2]]
    assert all(b.images.shape == (1, 3, 32, 32) and b.targets == [] for b in batches)


def test_with_labels_and_channels_plain_images_are_predicted_without_the_dataset(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((8, 9, 3), 7, np.uint8))
    labels = LabelSpace(("cell",))
    data = module(dataset=None, images=str(tmp_path), images_labels=labels, images_space=GREY)
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert data.labels is labels
    assert batch.images.tolist() == torch.full((1, 1, 8, 9), 7).tolist()


def test_a_truncated_mask_is_named_before_training_and_by_the_loops_that_read_it(tmp_path: Path) -> None:
    camvid.write(tmp_path)
    mask = tmp_path / "trainannot" / "fake_train_0002.png"
    mask.write_bytes(mask.read_bytes()[:-20])
    data = module(dataset=CamVid, root=str(tmp_path))
    data.setup("validate")
    data.setup("test")
    with pytest.raises(SegfolioError, match=r"^4 images: 1 mask .*cut short.*: \S*fake_train_0002\.png$"):
        data.setup("fit")


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(SegfolioError, match="Shapes has no split 'validation'; it has test, train, val"):
        module(val_split="validation").setup("fit")
