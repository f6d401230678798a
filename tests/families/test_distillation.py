"""`Distillation`: what the student learns in each mode, embeddings that are kept, and what is refused."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from segfolio.architectures.promptable.mobile_sam import MobileSAM
from segfolio.data.batches import collate
from segfolio.data.datasets import ImageFolder, Shapes
from segfolio.data.formats.images import write_image
from segfolio.data.module import DataModule
from segfolio.data.prompts import OBJECT, Prompts
from segfolio.data.sample import Batch
from segfolio.data.transforms import RandomWindow
from segfolio.errors import SegfolioError
from segfolio.families import Distillation, Promptable
from segfolio.inference.prompting import EmbeddedImages
from segfolio.layers.prompting import Embedding
from segfolio.metrics.teacher_agreement import TeacherAgreement
from tests.conftest import REPOSITORY
from tests.devices import DEVICE, PretendedAccelerator, PretendedDevice
from tests.test_distributed import command

SIDE = 64
STUDENT = {"encoder": "test_efficientnet", "image_size": SIDE}
TEACHER = {"encoder": "test_vit", "image_size": SIDE}
LAST = "checkpoints/last.ckpt"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """Of a teacher."""
    torch.manual_seed(1)
    path = tmp_path / "teacher.pth"
    torch.save(MobileSAM(1, **TEACHER).state_dict(), path)
    return str(path)


def distillation(weights: str, student: Any = None, teacher: Any = None, **arguments: Any) -> Distillation:
    torch.manual_seed(0)
    return Distillation(
        student or partial(MobileSAM, **STUDENT),
        teacher or partial(MobileSAM, **TEACHER, weights=weights),
        **{"optimizer": partial(torch.optim.AdamW, lr=2e-3), **arguments},
    )


def shapes(**arguments: Any) -> DataModule:
    dataset = partial(Shapes, size=(48, 64), train=2, val=2, test=2)
    given = {"batch_size": 2, "num_workers": 0, **arguments}
    return DataModule(lambda root, split: dataset(root, split), **given)


def trainer(folder: Path, **arguments: Any) -> Trainer:
    loops = {"accelerator": "cpu", "logger": False, "max_steps": 2, "max_epochs": -1, "default_root_dir": folder}
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**{**loops, **quiet, **arguments})


def decoder(network: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in network.state_dict().items() if not k.startswith("image_encoder.")}


def fitted(model: Distillation, folder: Path, **arguments: Any) -> list[float]:
    """The loss of each step."""
    losses: list[float] = []
    model.on_train_batch_end = lambda out, *_: losses.append(float(out["loss"]))  # type: ignore[method-assign]
    trainer(folder, **arguments).fit(model, shapes())
    return losses


@pytest.mark.parametrize(
    ("mode", "falls_to"), [("decoupled", 0.4), ("semi_coupled", 0.8), ("coupled", 0.8)], ids=lambda x: str(x)
)
def test_the_student_learns_two_images(weights: str, tmp_path: Path, mode: Any, falls_to: float) -> None:
    model = distillation(weights, mode=mode, embeddings=str(tmp_path / "kept"), points=4)
    before = decoder(model.network)
    theirs = decoder(model.teacher)
    losses = fitted(model, tmp_path, max_steps=40, limit_val_batches=0)
    assert np.mean(losses[-5:]) < falls_to * np.mean(losses[:3])
    after = decoder(model.network)
    if mode == "coupled":
        assert any(not torch.equal(after[name], before[name]) for name in after)
    else:
        torch.testing.assert_close(after, theirs, rtol=0, atol=0)


def test_the_student_of_a_decoupled_distillation_masks_as_its_teacher(weights: str, tmp_path: Path) -> None:
    model = distillation(weights)
    loops = trainer(tmp_path, max_steps=100, overfit_batches=1, check_val_every_n_epoch=100)
    loops.validate(model, shapes(val_split="train"), verbose=False)
    before = {name: float(value) for name, value in loops.callback_metrics.items()}
    loops.fit(model, shapes(val_split="train"))
    after = {name: float(loops.callback_metrics[name]) for name in before}
    assert before.keys() == {"val/teacher_mIoU", "val/unexplained_variance"}
    assert after["val/unexplained_variance"] < 0.3 < 0.9 < before["val/unexplained_variance"]
    assert after["val/teacher_mIoU"] > before["val/teacher_mIoU"] + 0.1


@pytest.mark.slow
def test_the_student_of_a_coupled_distillation_masks_as_its_teacher(weights: str, tmp_path: Path) -> None:
    model = distillation(weights, mode="coupled", points=8)
    loops = trainer(tmp_path, max_steps=200, overfit_batches=1, check_val_every_n_epoch=200)
    loops.validate(model, shapes(val_split="train"), verbose=False)
    before = float(loops.callback_metrics["val/teacher_mIoU"])
    loops.fit(model, shapes(val_split="train"))
    assert float(loops.callback_metrics["val/teacher_mIoU"]) > max(before, 0.3) + 0.1, before


def test_a_teacher_agrees_with_itself(weights: str, tmp_path: Path) -> None:
    model = distillation(weights, student=partial(MobileSAM, **TEACHER, weights=weights))
    (figures,) = trainer(tmp_path).test(model, shapes(), verbose=False)
    assert figures["test/teacher_mIoU"] == 1
    assert figures["test/unexplained_variance"] == pytest.approx(0, abs=1e-9)


def test_kept_embeddings_teach_what_the_teacher_does_and_it_is_asked_once(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    embed = MobileSAM.embed

    def counting(network: MobileSAM, images: Tensor) -> Embedding:
        if not next(network.parameters()).requires_grad:
            asked.append(len(images))
        return embed(network, images)

    monkeypatch.setattr(MobileSAM, "embed", counting)
    live = fitted(distillation(weights), tmp_path, max_steps=3, limit_val_batches=0)
    assert asked == [2, 2, 2]
    asked.clear()
    kept = fitted(distillation(weights, embeddings=str(tmp_path / "kept")), tmp_path, max_steps=3)
    assert asked == [1, 1, 1, 1, 1]  # an empty image, and the four of training and validation
    assert kept == pytest.approx(live, rel=1e-3)
    again = fitted(distillation(weights, embeddings=str(tmp_path / "kept"), mode="coupled"), tmp_path)
    assert len(again) == 2
    assert len(asked) == 5


def test_a_pass_that_was_cut_off_goes_on(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = distillation(weights, embeddings=str(tmp_path / "kept"))
    keep, kept = model._embedding_to_keep, list[str]()

    def cut(batch: Batch) -> Embedding:
        if kept:
            raise OSError("power cut")
        kept.extend(batch.image_ids)
        return keep(batch)

    monkeypatch.setattr(model, "_embedding_to_keep", cut)
    with pytest.raises(OSError, match="power cut"):
        fitted(model, tmp_path)
    model = distillation(weights, embeddings=str(tmp_path / "kept"))
    keep_again, then = model._embedding_to_keep, list[str]()
    monkeypatch.setattr(
        model,
        "_embedding_to_keep",
        lambda batch: then.extend(batch.image_ids) or keep_again(batch),  # type: ignore[func-returns-value]
    )
    fitted(model, tmp_path)
    assert len(kept) == 1
    assert len(then) == 3
    assert not set(kept) & set(then)


def test_a_dry_run_keeps_nothing(weights: str, tmp_path: Path) -> None:
    model = distillation(weights, embeddings=str(tmp_path / "kept"))
    trainer(tmp_path, fast_dev_run=True).fit(model, shapes())
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("mode", ["decoupled", "coupled"])
def test_images_of_several_sizes_make_a_padded_batch(weights: str, tmp_path: Path, mode: Any) -> None:
    """And one is learned as it is by itself."""
    rng = np.random.default_rng(0)
    for i, size in enumerate([(40, 60), (90, 70)]):
        write_image(tmp_path / "images" / f"{i}.png", rng.integers(256, size=(*size, 3), dtype=np.uint8))
    model = distillation(weights, mode=mode).eval()
    data = DataModule(lambda root, split: ImageFolder(root, split), str(tmp_path / "images"), num_workers=0)
    samples = [model.preparation(data.split("train")[i], np.random.default_rng(i)) for i in range(2)]
    together, alone = collate([samples], padded=True), [collate([[sample]]) for sample in samples]
    assert together.images.shape[-2:] == (90, 70)
    with torch.no_grad():
        each = [model.compute_losses(batch) for batch in alone]
        for name, loss in model.compute_losses(together).items():
            torch.testing.assert_close(loss, torch.stack([losses[name] for losses in each]).mean())


def config(folder: Path, weights: str, **model: Any) -> Path:
    content = {
        "seed_everything": 3,
        "model": {
            "class_path": "segfolio.families.Distillation",
            "init_args": {
                "architecture": {"class_path": "segfolio.architectures.promptable.mobile_sam.MobileSAM"}
                | {"init_args": {"encoder": "test_vit", "image_size": SIDE}},  # without batch normalisation
                "teacher": {"class_path": "segfolio.architectures.promptable.mobile_sam.MobileSAM"}
                | {"init_args": {**TEACHER, "weights": weights}},
                "embeddings": str(folder / "kept"),
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}},
                **model,
            },
        },
        "data": {
            "dataset": {"class_path": "segfolio.data.datasets.Shapes"}
            | {"init_args": {"size": [48, 64], "train": 12, "val": 3, "test": 2}},
            **{"batch_size": 4, "num_workers": 0},
        },
        "trainer": {
            **{"max_steps": 4, "max_epochs": -1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False},
            **{"val_check_interval": 4, "check_val_every_n_epoch": None},
        },
    }
    (path := folder / "distillation.yaml").write_text(yaml.safe_dump(content))
    return path


def state(run: str) -> dict[str, Tensor]:
    return torch.load(Path(run, LAST), weights_only=True)["state_dict"]


@pytest.mark.parametrize("mode", ["decoupled", "semi_coupled"])
def test_a_run_that_goes_on_is_as_one_that_was_never_cut(segfolio, tmp_path: Path, weights: str, mode: str) -> None:
    path = config(tmp_path, weights, mode=mode)
    assert segfolio("fit", "-c", path, "--output=whole") == 0
    assert segfolio("fit", "-c", path, "--output=cut", "--trainer.max_steps=2") == 0
    assert segfolio("fit", "-c", path, "--output=cut", f"--ckpt_path=cut/{LAST}") == 0
    torch.testing.assert_close(state("cut"), state("whole"), rtol=0, atol=0)
    assert not any("teacher" in name for name in state("whole"))


@pytest.mark.parametrize("mode", ["decoupled", pytest.param("coupled", marks=pytest.mark.slow)])
def test_one_process_and_two_learn_the_same(segfolio, tmp_path: Path, weights: str, monkeypatch, mode: str) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{REPOSITORY / 'src'}")
    path = config(tmp_path, weights, mode=mode)
    two = ("--trainer.devices=2", "--trainer.strategy=ddp")
    command(Path(), "fit", "-c", str(path), "--output=two", *two)
    assert segfolio("fit", "-c", path, "--output=one") == 0
    torch.testing.assert_close(state("two"), state("one"), rtol=1e-3, atol=1e-5)
    best = [
        torch.load(Path(run, LAST), weights_only=True)["callbacks"]["Checkpoints"]["best"] for run in ("one", "two")
    ]
    assert best[0] == pytest.approx(best[1], abs=2e-3)


def test_what_was_distilled_is_prompted(segfolio, tmp_path: Path, weights: str) -> None:
    assert segfolio("fit", "-c", config(tmp_path, weights), "--output=run") == 0
    assert segfolio("test", "--ckpt_path=run") == 0
    started = Promptable(
        Shapes.labels,
        partial(MobileSAM, **TEACHER),
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
        init_from=f"run/{LAST}",
    )
    loaded = MobileSAM(1, **TEACHER, weights=f"run/{LAST}")
    prompts = Prompts(torch.tensor([-1]), torch.tensor([[[20.0, 30.0]]]), torch.tensor([[OBJECT]]))
    answers = []
    for network in (started.network, loaded):
        with torch.no_grad():
            embedding = network.eval().embed(torch.ones(1, 3, 48, 64))
            answers.append(EmbeddedImages(network, embedding, [(48, 64)]).ask(prompts, torch.tensor([0])))
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)
    torch.testing.assert_close(
        decoder(loaded), {k: v for k, v in torch.load(weights).items() if not k.startswith("image_encoder.")}
    )


def test_embeddings_of_another_teacher_are_refused(segfolio, tmp_path: Path, weights: str, capsys) -> None:
    assert segfolio("fit", "-c", config(tmp_path, weights), "--output=run") == 0
    torch.save(MobileSAM(1, **TEACHER).state_dict(), weights)
    assert segfolio("fit", "-c", config(tmp_path, weights), "--output=other") == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("segfolio: ")]
    assert re.search(r"kept holds embeddings of another network or other preprocessing \(weights .*, here", message)


def test_transforms_of_training_images_are_refused_with_kept_embeddings(weights: str, tmp_path: Path) -> None:
    data = shapes(train_transforms=[RandomWindow((48, 64), hflip=0.5)])
    with pytest.raises(SegfolioError, match=r"data.train_transforms change the images, and the embeddings in .*kept"):
        trainer(tmp_path).fit(distillation(weights, embeddings=str(tmp_path / "kept")), data)
    trainer(tmp_path).fit(distillation(weights), data)


def test_an_embedding_that_was_removed_is_named(weights: str, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    fitted(distillation(weights, embeddings=str(folder)), tmp_path)
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(SegfolioError, match=r"kept has no embedding of .*; remove the files all_of_\* there"):
        fitted(distillation(weights, embeddings=str(folder)), tmp_path)
    for file in folder.glob("all_of_*"):
        file.unlink()
    fitted(distillation(weights, embeddings=str(folder)), tmp_path)


class Wide(MobileSAM):
    """With embeddings of another shape."""

    def embed(self, images: Tensor) -> Embedding:
        (embedding,) = super().embed(images)
        return (torch.cat([embedding, embedding], 1),)


class Other(MobileSAM):
    """With a decoder of another shape."""

    def __init__(self, num_classes: int, **arguments: Any) -> None:
        super().__init__(num_classes, **arguments)
        self.mask_decoder.iou_token = nn.Embedding(2, 256)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"student": partial(MobileSAM, encoder="test_vit", image_size=96)},
            "sees images of 64 pixels and the student",
        ),
        ({"teacher": partial(nn.Conv2d, 3, kernel_size=1)}, "model.teacher is Conv2d, which cannot be prompted"),
        ({"student": partial(Other, **STUDENT)}, "decoder: mask_decoder.iou_token.weight is not the same in both"),
        ({"points": 0}, "model.points is 0; give at least 1"),
        ({"teacher": partial(MobileSAM, **TEACHER, in_channels=4)}, "MobileSAM takes images of 4 channels"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(weights: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SegfolioError, match=re.escape(sentence)) as told:
        distillation(weights, **arguments)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "live"])
def test_embeddings_of_another_shape_are_refused(weights: str, tmp_path: Path, kept: bool) -> None:
    model = distillation(weights, teacher=partial(Wide, **TEACHER), embeddings=str(tmp_path / "kept") if kept else None)
    with pytest.raises(SegfolioError, match=r"embedding of an image is \[\[256, 4, 4\]\] and the teacher's \[\[512"):
        fitted(model, tmp_path)


@pytest.mark.parametrize("mode", ["decoupled", "semi_coupled"])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "live"])
def test_it_computes_on_its_device(weights: str, tmp_path: Path, mode: Any, kept: bool) -> None:
    def run(model: Distillation, **place: Any) -> list[Any]:
        loops = trainer(tmp_path, **place)
        loops.fit(model, shapes())
        (figures,) = loops.test(model, shapes(), verbose=False)
        return [value for _, value in sorted(figures.items())]

    host, device = (
        distillation(weights, mode=mode, embeddings=str(tmp_path / name) if kept else None)
        for name in ("host", "device")
    )
    expected = run(host)
    with PretendedDevice():
        place = {"accelerator": PretendedAccelerator(), "strategy": SingleDeviceStrategy(device=DEVICE)}
        assert run(device, **place) == expected


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_it_computes_in_every_precision(weights: str, tmp_path: Path, precision: Any) -> None:
    """What is kept and what is asked alike."""
    outcomes = []
    for kept in (str(tmp_path / "kept"), None):
        model = distillation(weights, mode="semi_coupled", embeddings=kept, points=2)
        loops = trainer(tmp_path, precision=precision)
        loops.fit(model, shapes())
        outcomes.append(float(loops.callback_metrics["train/loss"]))
        loops.test(model, shapes(), verbose=False)
    assert outcomes[0] == pytest.approx(outcomes[1], rel=0.02)


def test_agreement_by_hand() -> None:
    metric = TeacherAgreement()
    nothing, left = torch.zeros(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    left[:, :2] = True
    whole = ~nothing
    theirs = torch.tensor([[1.0, 3.0], [10.0, 10.0]])  # two channels of two values
    metric.update("a", (torch.stack([left, nothing]), torch.stack([whole, nothing])), ((theirs + 1,), (theirs,)))
    metric.update("b", (left[None], (whole & ~left)[None]), ((theirs,), (theirs + 2,)))
    found = metric.compute()
    assert float(found["teacher_mIoU"]) == pytest.approx((0.5 + 1 + 0) / 3)
    # around the channels' means over both images, 3 and 11: 4 + 0 + 0 + 4 and 1 + 1 + 1 + 1
    assert float(found["unexplained_variance"]) == pytest.approx((4 * 1 + 4 * 4) / 12)


def test_agreement_is_of_the_set_of_images() -> None:
    """However they are divided over processes, whose records are joined."""
    torch.manual_seed(0)

    def seen_by(*images: int) -> TeacherAgreement:
        metric = TeacherAgreement()
        for i in images:
            rng = torch.Generator().manual_seed(i)
            masks = torch.rand(2, 3, 8, 8, generator=rng) > 0.5
            own, theirs = torch.randn(2, 4, 5, 5, generator=rng)
            metric.update(str(i), (masks[0], masks[1]), ((own,), (theirs,)))
        return metric

    whole, joined, other = seen_by(0, 1, 2), seen_by(0, 2), seen_by(1, 2)  # as samplers do that need equal shares
    joined.state = [*joined.state, *other.state]
    found, expected = joined.compute(), whole.compute()
    assert {k: float(v) for k, v in found.items()} == pytest.approx({k: float(v) for k, v in expected.items()})
