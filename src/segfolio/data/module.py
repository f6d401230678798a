"""The one `DataModule`: any dataset, its loaders, transforms and batches."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import cv2
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader, Dataset

from segfolio.data.batches import Augmented, Clip, ForEvaluation, collate
from segfolio.data.checks.shared import shared_splits
from segfolio.data.checks.truth import expect_truth
from segfolio.data.clips import ClipFrames
from segfolio.data.dataset import SegmentationDataset, UnknownSplit
from segfolio.data.datasets.image_folder import ImageFolder
from segfolio.data.image_space import ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.data.remap import Remapped
from segfolio.data.samplers import EvaluationSampler, OverfitSampler, TrainSampler
from segfolio.data.transforms import Mixing, Transform
from segfolio.errors import SegfolioError


class DataModule(LightningDataModule):
    """Loads any dataset of the house.

    Training images are augmented by `train_transforms`; the randomness of each is a function of
    (seed, epoch, position) alone. In evaluation `eval_transforms` change the image and not its truth, which
    stays at the original size, where predictions are compared with it.

    Args:
        dataset: a `SegmentationDataset` class; it is called with `(root, split)`.
        root: the folder of the dataset's files; not needed by procedural datasets.
        remap: the new name of each class, null for none, or the name of a preset; of all splits, see `Remapped`.
        batch_size: training images of one optimiser step, of a dataset of videos clips; processes (trainer.devices)
            and accumulated passes divide it.
        eval_batch_size: of one process; larger than 1 only where all images of the split have one size, or are padded.
        pad_batches: images of several sizes make a batch, padded to the largest height and width among them; for
            families that know what to do with it (`Detection`).
        test_transforms: in place of `eval_transforms` in tests and predictions, where a test protocol wants images of
            another size than validation.
        clip_frames: of a dataset of videos, which frames of a clip a training step sees; all if not given.
        num_workers: processes of a machine that load, shared by those that train there, of which each has at least
            one; by default one per core but one, at most 8 each. 0 loads in the training process.
        images: a folder of plain images for `predict`, or one; by default `test_split` is predicted.
        images_labels, images_space: of what was learned, so that `images` need no dataset; `segfolio predict`
            takes them from the checkpoint.
        cache: keep the decoded images of the training split in memory (each process and worker its own).
        seed: of order and augmentation; `seed_everything` unless given.

    Raises:
        SegfolioError: whatever is wrong with the files, as far as headers tell, before training starts.
    """

    def __init__(
        self,
        dataset: Callable[[str | None, str], SegmentationDataset],
        root: str | None = None,
        remap: dict[str, str | None] | str | None = None,
        batch_size: int = 4,
        eval_batch_size: int = 1,
        pad_batches: bool = False,
        train_transforms: Sequence[Transform | Mixing] = (),
        eval_transforms: Sequence[Transform] = (),
        test_transforms: Sequence[Transform] | None = None,
        clip_frames: ClipFrames | None = None,
        num_workers: int | None = None,
        train_split: str = "train",
        val_split: str = "val",
        test_split: str = "test",
        images: str | None = None,
        images_labels: LabelSpace | None = None,
        images_space: ImageSpace | None = None,
        cache: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dataset, self.root, self.remap, self.images = dataset, root, remap, images
        for name, value, least in (
            *(("batch_size", batch_size, 1), ("eval_batch_size", eval_batch_size, 1)),
            ("num_workers", num_workers or 0, 0),
        ):
            if value < least:
                raise SegfolioError(f"data.{name} is {value}; give at least {least}")
        self.batch_size, self.eval_batch_size, self.pad_batches = batch_size, eval_batch_size, pad_batches
        self.train_transforms, self.eval_transforms = train_transforms, eval_transforms
        self.test_transforms = eval_transforms if test_transforms is None else test_transforms
        self.clip_frames, self.num_workers = clip_frames, num_workers
        self.train_split, self.val_split, self.test_split = train_split, val_split, test_split
        self.cache, self.seed = cache, seed
        self.images_labels, self.images_space = images_labels, images_space
        self.skip_unreadable = False  # of `images`
        self.model: Any = None  # who asks, and whether it validates, before there is a trainer
        self.validates = True
        self._checked: set[str] = set()
        self._compared: set[str] = set()
        self._splits: dict[str, SegmentationDataset] = {}

    @property
    def labels(self) -> LabelSpace:
        return self.images_labels or self._any_split.labels

    @property
    def image_space(self) -> ImageSpace:
        return self.images_space or self._any_split.image_space

    @property
    def _any_split(self) -> SegmentationDataset:
        try:
            return self.split(next(iter(self._splits), self.train_split))
        except SegfolioError:  # what is tested or predicted need not have a training split
            with suppress(SegfolioError):
                return self.split(self.test_split)
            raise

    def split(self, name: str) -> SegmentationDataset:
        """The dataset of one split, its files found."""
        if name not in self._splits:
            dataset = self.dataset(self.root, name)
            self._splits[name] = dataset if self.remap is None else Remapped(dataset, self.remap)
        return self._splits[name]

    def setup(self, stage: str) -> None:
        """Find the files of the stage's splits, read their headers, and see that there is a truth, if it is needed."""
        if self.pad_batches and self.trainer and not self._of_model("takes_padding", False):
            raise SegfolioError(
                f"data.pad_batches is true, but {type(self.trainer.lightning_module).__name__} would take padding for "
                "image; leave it out, and add a RandomWindow with a `size` where images have several sizes"
            )
        names = set(self.splits_of(stage))
        for name in sorted(names - self._checked):
            self.split(name).check()
        self._checked |= names
        evaluated = self.eval_transforms if stage in ("fit", "validate") else self.test_transforms
        for transform in (*(self.train_transforms if stage == "fit" else ()), *evaluated):
            if check := getattr(transform, "check", None):
                check(self.image_space)
        if stage == "predict":
            return
        if stage == "fit":
            self._expect_test_split()
        if self._of_model("needs_truth", True):
            masks = self.trainer is not None and self._of_model("needs_masks", True)
            for name in sorted(names):
                expect_truth(self.split(name), name, masks)
        self._compare(names & {"fit": {self.val_split}, "test": {self.test_split}}.get(stage, set()))

    def _expect_test_split(self) -> None:
        """Before training: a `test_split` of one's own is one. Its files need not be here yet, nor a `test` at all."""
        if self.test_split in ("test", self.train_split, self.val_split):
            return
        try:
            self.split(self.test_split)
        except UnknownSplit as error:
            raise SegfolioError(f"data.test_split: {error}") from None
        except SegfolioError as error:
            rank_zero_warn(f"data.test_split {self.test_split} cannot be tested on: {error}")

    def splits_of(self, stage: str) -> Sequence[str]:
        """The splits that a stage reads; to train without validation needs no `val_split`."""
        if stage == "fit":
            validates = self.trainer.enable_validation if self.trainer else self.validates
            return [self.train_split, self.val_split] if validates else [self.train_split]
        if stage == "predict" and self.images:
            return []
        return [self.val_split if stage == "validate" else self.test_split]

    def _of_model(self, name: str, default: bool) -> bool:
        """What the module that is trained declares; it may be none of the house."""
        return getattr(self.trainer.lightning_module if self.trainer else self.model, name, default)

    def _compare(self, evaluated: set[str]) -> None:
        """Say, once, whether what is evaluated on is trained on."""
        for name in evaluated - self._compared:
            self._compared.add(name)
            with suppress(SegfolioError):  # a test needs no training split
                if said := shared_splits(self.train_split, name, self.split):
                    rank_zero_warn(said)

    def train_dataloader(self) -> DataLoader[Any]:
        sampler, preparation = self.train_sampler(self.trainer), None
        if self.trainer:
            preparation = getattr(self.trainer.lightning_module, "preparation", None)
        split = self.split(self.train_split)
        dataset = Augmented(split, self.train_transforms, preparation, self.cache, self.clip_frames)
        return self._loader(dataset, sampler.share, sampler)

    def train_sampler(self, trainer: Trainer | None) -> TrainSampler:
        """Who draws what, from where the trainer is; raises a `SegfolioError` where a step cannot be drawn."""
        sampler, accumulate, done = TrainSampler, 1, (0, 0)
        if trainer:
            accumulate = trainer.accumulate_grad_batches
            sampler = OverfitSampler if trainer.overfit_batches else TrainSampler  # type: ignore[attr-defined]
            done = (trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready)
        length = self.split(self.train_split).clip_count
        return sampler(length, self.batch_size, self.seed, *_rank(trainer), accumulate, done)

    def statistics_dataloader(self) -> DataLoader[Any]:
        """The training images once, as in evaluation but in whole batches of a step; all of one size."""
        dataset = self.split(self.train_split)
        sampler = EvaluationSampler(dataset.clip_count, *_rank(self.trainer), turn=self.batch_size)
        return self._loader(ForEvaluation(dataset, self.eval_transforms), self.batch_size, sampler)

    def stored_images(self, split: str) -> DataLoader[Any]:
        """The images of a split once, as they are stored, one by one, shared by the processes."""
        dataset = self.split(split)
        sampler = EvaluationSampler(dataset.clip_count, *_rank(self.trainer))
        return self._loader(ForEvaluation(dataset, ()), 1, sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._evaluation(self.split(self.val_split), self.eval_transforms)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._evaluation(self.split(self.test_split), self.test_transforms)

    def predict_dataloader(self) -> DataLoader[Any]:
        if self.images is None:
            return self.test_dataloader()
        images = ImageFolder(self.images, "predict", self.labels, self.image_space)
        if self.skip_unreadable:
            images.leave_out_unreadable()
        try:
            images.check()
        except SegfolioError as error:
            raise SegfolioError(f"{error}; `--skip` goes on without them") from None
        return self._evaluation(images, self.test_transforms, batch_size=1)  # sizes differ

    def _evaluation(
        self, dataset: SegmentationDataset, transforms: Sequence[Transform], batch_size: int | None = None
    ) -> DataLoader[Any]:
        rank, world_size = _rank(self.trainer)
        if (count := dataset.clip_count) < world_size:
            what = "images" if dataset.clips is None else "clips"
            raise SegfolioError(f"{count} {what} cannot be shared by {world_size} processes; use fewer devices")
        sampler = EvaluationSampler(count, rank, world_size)
        return self._loader(ForEvaluation(dataset, transforms), batch_size or self.eval_batch_size, sampler)

    def _loader(
        self, dataset: Dataset[Clip], batch_size: int, sampler: TrainSampler | EvaluationSampler
    ) -> DataLoader[Any]:
        workers = workers_each(self.num_workers, self.trainer.num_devices if self.trainer else 1)
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=partial(collate, padded=self.pad_batches),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0 and isinstance(sampler, TrainSampler),
            worker_init_fn=_one_thread,
        )


def workers_each(wanted: int | None, processes: int) -> int:
    """What one of a machine's training processes gets of the loading processes that are wanted on it."""
    if wanted is None:
        return min(8, max(1, ((os.cpu_count() or 2) - 1) // processes))
    return wanted and max(1, wanted // processes)


def _rank(trainer: Trainer | None) -> tuple[int, int]:
    """Which process this is, and of how many."""
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


def _one_thread(worker: int) -> None:
    """Workers are the parallelism; OpenCV's own threads on top of them only compete."""
    cv2.setNumThreads(0)
