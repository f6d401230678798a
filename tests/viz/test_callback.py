import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.tv_tensors import Image, Mask

from segfolio.data.datasets import Shapes
from segfolio.data.formats.images import read_id_map, read_image
from segfolio.data.image_space import RGB
from segfolio.data.labels import LabelSpace
from segfolio.data.module import DataModule
from segfolio.data.sample import Batch, Prediction, Sample, Target
from segfolio.errors import SegfolioError
from segfolio.families import MaskClassification
from segfolio.layers.outputs import MaskOutput
from segfolio.losses import MaskClassificationLoss
from segfolio.tracking import build_loggers
from segfolio.viz.callback import PredictionPictures

LABELS = LabelSpace(("road", "tree", "sky"), void_ids=(255,))
SIZE = (24, 40)
KEYS = ["masks/city/0", "masks/city/6", "pictures/city/0/semantic", "pictures/city/6/semantic"]
STEPS = ["step_00000004.png", "step_00000008.png"]


class Constant(LightningModule):
    """Says `tree` everywhere, at the original size, whatever it sees."""

    labels, image_space = LABELS, RGB

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.weight**2

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        tree = torch.ones(SIZE, dtype=torch.uint8)
        return [Prediction(n, s, tree) for n, s in zip(batch.image_ids, batch.original_sizes, strict=True)]

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def truth(i: int) -> np.ndarray:
    indices = np.random.default_rng(i).integers(0, 3, SIZE).astype(np.uint8)
    indices[0] = 255
    return indices


def sample(i: int) -> Sample:
    image = Image(torch.full((3, 12, 20), 10 * i, dtype=torch.uint8))  # half the original size
    return Sample(image, f"city/{i}", SIZE, Target(Mask(torch.from_numpy(truth(i)))))


def collate(samples: list[Sample]) -> Batch:
    return Batch(
        torch.stack([s.image for s in samples]),
        [s.image_id for s in samples],
        [s.original_size for s in samples],
        [s.target for s in samples if s.target],
    )


def loader() -> DataLoader[Any]:
    return DataLoader([sample(i) for i in range(7)], 2, collate_fn=collate)  # type: ignore[arg-type]


def trainer(run: Path, callback: PredictionPictures, **kwargs: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(
        accelerator="cpu", default_root_dir=run, callbacks=[callback], **{"logger": False, **quiet, **kwargs}
    )


def files(folder: Path) -> dict[str, list[str]]:
    """File names by folder, relative to the given one."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.png")):
        found.setdefault(str(file.parent.relative_to(folder)), []).append(file.name)
    return found


def test_the_same_evenly_spaced_images_at_every_validation(tmp_path: Path) -> None:
    t = trainer(tmp_path, PredictionPictures(count=3), max_epochs=2)
    t.fit(Constant(), loader(), loader())
    assert files(tmp_path / "pictures") == {f"val/city/{i}/semantic": STEPS for i in (0, 4, 6)}
    t.test(Constant(), loader(), verbose=False)
    assert files(tmp_path / "pictures" / "test") == {f"city/{i}": ["semantic.png"] for i in (0, 4, 6)}


def test_a_picture_is_the_panel_at_the_original_size(tmp_path: Path) -> None:
    trainer(tmp_path, PredictionPictures(count=8)).test(Constant(), loader(), verbose=False)
    drawn = read_image(tmp_path / "pictures" / "test" / "city" / "3" / "semantic.png")
    scale = 320 // SIZE[1]
    assert (drawn == 30).all(-1).sum() == SIZE[0] * SIZE[1] * scale**2
    assert len(files(tmp_path / "pictures/test")) == 7


def test_every_second_validation(tmp_path: Path) -> None:
    callback = PredictionPictures(count=1, every_n_validations=2)
    trainer(tmp_path, callback, max_epochs=3).fit(Constant(), loader(), loader())
    assert files(tmp_path / "pictures" / "val") == {"city/0/semantic": ["step_00000004.png", "step_00000012.png"]}


def test_nothing_is_drawn_in_a_dry_run_or_without_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer(tmp_path, PredictionPictures(), fast_dev_run=True).fit(Constant(), loader(), loader())
    monkeypatch.setattr(Constant, "test_step", lambda self, batch, i: [Prediction(n, SIZE) for n in batch.image_ids])
    trainer(tmp_path, PredictionPictures()).test(Constant(), loader(), verbose=False)
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("argument", ["count", "every_n_validations"])
def test_arguments_below_one_are_refused(argument: str) -> None:
    with pytest.raises(SegfolioError, match=f"{argument} is 0, expected 1 or more"):
        PredictionPictures(**{argument: 0})


@pytest.mark.parametrize("score", [-0.1, 1.5])
def test_a_score_that_no_object_can_have_is_refused(score: float) -> None:
    with pytest.raises(SegfolioError, match=f"min_score is {score}, expected 0 to 1"):
        PredictionPictures(min_score=score)


class ThreeQueries(torch.nn.Module):
    """One for the left half, one for the right, one that says it is no object."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        masks = torch.full((3, 12, 16), -9.0)
        masks[0, :, :8], masks[1, :, 8:] = 9.0, 9.0
        self.masks = torch.nn.Parameter(masks)
        classes = torch.zeros(3, num_classes + 1)
        classes[0, 0], classes[1, 4], classes[2, -1] = 9.0, 9.0, 9.0  # sky, circle
        self.classes = torch.nn.Parameter(classes)

    def forward(self, images: Tensor) -> MaskOutput:
        batch = len(images)
        return MaskOutput(self.classes.expand(batch, -1, -1), self.masks.expand(batch, -1, -1, -1), [])


def test_a_panoptic_model_gives_three_readings_and_its_queries(tmp_path: Path) -> None:
    import wandb

    dataset = partial(Shapes, size=(48, 64), train=2, val=2, test=2)
    data = DataModule(lambda root, split: dataset(root, split), batch_size=1, num_workers=0)
    sgd = partial(torch.optim.SGD, lr=0.1)
    model = MaskClassification(Shapes.labels, ThreeQueries, "panoptic", MaskClassificationLoss(), optimizer=sgd)
    callback = PredictionPictures(count=1, max_width=600, min_score=0.9)
    options: dict[str, Any] = {"logger": build_loggers(tmp_path, "a run"), "use_distributed_sampler": False}
    try:
        loops = trainer(tmp_path, callback, **options)
        loops.test(model, data, verbose=False)
        run: Any = loops.loggers[1].experiment  # type: ignore[attr-defined]
        summary = json.loads(json.dumps(dict(run.summary), default=lambda value: dict(value)))
        folder = Path(run.dir)
    finally:
        wandb.finish()
    readings = ["instances", "panoptic", "queries", "semantic"]
    assert files(tmp_path / "pictures") == {"test/test_00000": [f"{name}.png" for name in readings]}
    assert sorted(k for k in summary if "/pictures/" in k) == [f"test/pictures/test_00000/{name}" for name in readings]
    logged = summary["test/masks/test_00000"]
    roles = [f"{name}_{role}" for name in ("instances", "panoptic", "semantic") for role in ("prediction", "truth")]
    assert sorted(logged["masks"]) == roles
    assert sorted(logged["boxes"]) == ["prediction", "truth"]
    (box,) = json.loads((folder / logged["boxes"]["prediction"]["path"]).read_text())["box_data"]
    assert (box["class_id"], box["position"]) == (4, {"minX": 0.5, "minY": 0.0, "maxX": 1.0, "maxY": 1.0})
    semantic = read_id_map(folder / logged["masks"]["semantic_prediction"]["path"])
    assert np.array_equal(semantic, np.where(np.arange(64) < 32, 1, 5) * np.ones((48, 1)))


def test_wandb_gets_panels_and_aligned_masks(tmp_path: Path) -> None:
    import wandb

    try:
        t = trainer(tmp_path, PredictionPictures(count=2), max_epochs=2, logger=build_loggers(tmp_path, "a run"))
        t.fit(Constant(), loader(), loader())
        run: Any = t.loggers[1].experiment  # type: ignore[attr-defined]
        summary = json.loads(json.dumps(dict(run.summary), default=lambda value: dict(value)))
        keys = sorted(k for k in summary if k.startswith("val/"))
        assert keys == [f"val/{key}" for key in KEYS]
        assert summary["trainer/global_step"] == 8
        logged = summary["val/masks/city/6"]
        folder = Path(run.dir)
    finally:
        wandb.finish()
    base = read_image(folder / logged["path"])
    assert base.shape == (*SIZE, 3)
    assert np.abs(base.astype(int) - 60).max() <= 2  # JPEG
    masks = {key: read_id_map(folder / mask["path"]) for key, mask in logged["masks"].items()}
    assert np.array_equal(masks["semantic_truth"], np.where(truth(6) == 255, 255, truth(6) + 1))
    assert np.array_equal(masks["semantic_prediction"], np.full(SIZE, 2))
    stored = sorted(re.sub(r"_\d+_\w+\.png", "", str(f.relative_to(folder))) for f in folder.rglob("pictures/**/*.png"))
    assert stored == [f"media/images/val/pictures/city/{i}/semantic" for i in (0, 0, 6, 6)]
