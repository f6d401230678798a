"""`Trained`: a training without labels, and what a training with labels takes from it."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segfolio.architectures.encoder_decoder.unet import UNet
from segfolio.data.formats.images import write_image
from segfolio.data.sample import Batch
from segfolio.errors import SegfolioError
from segfolio.families.trained import Trained
from segfolio.figure import Figure
from tests.conftest import REPOSITORY
from tests.families.test_per_pixel import shapes, trainer
from tests.families.test_transfer import NETWORKS, OLD, family

LAST = Path("run/checkpoints/last.ckpt")
SMALL = {"size": [32, 48], "train": 4, "val": 2, "test": 2}
CONFIG: dict[str, Any] = {
    "model": {
        "class_path": "tests.families.test_trained.Reconstruction",
        "init_args": {
            "architecture": {"class_path": "tests.families.test_trained.Autoencoder"},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            "parameters": {"lr_factors": {"head": 10.0}},
        },
    },
    "data": {
        "dataset": {"class_path": "segfolio.data.datasets.Shapes", "init_args": SMALL},
        **{"batch_size": 2, "num_workers": 0},
    },
    "trainer": {"max_steps": 1, "max_epochs": -1, "accelerator": "cpu", "logger": False},
}


class Autoencoder(nn.Module):
    """A U-Net's first stage, under its names, and a head that U-Net has not."""

    def __init__(self) -> None:
        super().__init__()
        self.down = UNet(4, width=4, depth=2).down[:1]
        self.head = nn.Conv2d(4, 3, 1)
        self.classifier = nn.Conv2d(4, len(OLD), 1)  # of the name and shape of U-Net's, and of no classes

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.down[0](images))


class Colour(nn.Module):
    """A network that takes no arguments of its own."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(3, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(images)


class Reconstruction(Trained):
    main_metric = "none"

    def __init__(self, architecture: Callable[[], nn.Module], **recipe: Any) -> None:
        super().__init__(architecture(), **recipe)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        images = self.normalize(batch.images)
        return {"l1": (interpolate(self(batch.images), images.shape[-2:], mode="bilinear") - images).abs().mean()}


class Cut(Reconstruction):
    """Breaks off in its third step."""

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        if self.global_step == 2:
            raise OSError("power cut")
        return super().compute_losses(batch)


class Measured(Reconstruction):
    """With a figure of its own, of which less is better."""

    declared = {"error": Figure("error", "levels", higher_is_better=False)}  # type: ignore[assignment]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        self.log("val/error", 255 * self.compute_losses(batch)["l1"], batch_size=len(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        self.log("test/error", 255 * self.compute_losses(batch)["l1"], batch_size=len(batch))


def written(folder: Path, name: str = "Reconstruction", **trainer: Any) -> Path:
    """The config of one of these families."""
    model = {**CONFIG["model"], "class_path": f"tests.families.test_trained.{name}"}
    (path := folder / f"{name}.yaml").write_text(
        yaml.safe_dump({**CONFIG, "model": model, "trainer": {**CONFIG["trainer"], **trainer}})
    )
    return path


def reconstruction(**arguments: Any) -> Reconstruction:
    return Reconstruction(Autoencoder, **{"optimizer": partial(torch.optim.SGD, lr=0.05), **arguments})


def saved(model: Trained, path: Path) -> str:
    checkpoint: dict[str, Any] = {"state_dict": model.state_dict(), "pytorch-lightning_version": lightning.__version__}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `transfer` says."""
    sentences: list[str] = []
    monkeypatch.setattr("segfolio.families.transfer.rank_zero_info", sentences.append)
    return sentences


def test_its_losses_are_logged_by_name_and_fall() -> None:
    torch.manual_seed(0)
    model, first = reconstruction(optimizer=partial(torch.optim.AdamW, lr=0.02)), {}
    loops = trainer(max_steps=60)
    model.on_train_batch_end = lambda *_: first.setdefault("loss", float(loops.callback_metrics["train/loss_l1"]))  # type: ignore[method-assign]
    loops.fit(model, shapes())
    assert loops.callback_metrics["train/loss"] == loops.callback_metrics["train/loss_l1"] < 0.7 * first["loss"]


def test_its_checkpoint_names_the_network_and_no_classes_and_fits_it_alone(tmp_path: Path) -> None:
    path = saved(reconstruction(), tmp_path / "a.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["segfolio"].keys() == {"version", "architecture", "image_space"}
    assert checkpoint["segfolio"]["architecture"].endswith("test_trained.Autoencoder")
    reconstruction().on_load_checkpoint(checkpoint)
    other = Reconstruction(partial(nn.Conv2d, 3, 3, 1), optimizer=partial(torch.optim.SGD, lr=0.05))
    with pytest.raises(SegfolioError, match=r"the checkpoint holds .*Autoencoder but the config builds .*Conv2d"):
        other.on_load_checkpoint(checkpoint)


def test_the_command_trains_it_and_goes_on(segfolio, tmp_path: Path) -> None:
    assert segfolio("fit", "-c", written(tmp_path), "--output=run") == 0
    assert segfolio("fit", "--ckpt_path", LAST, "--trainer.max_steps=3") == 0
    checkpoint = torch.load(LAST, weights_only=True)
    assert checkpoint["global_step"] == 3
    assert sorted(group["lr"] for group in checkpoint["optimizer_states"][0]["param_groups"]) == [0.1, 1.0]


def test_a_training_with_labels_starts_from_what_fits_and_no_class_is_taken_over(tmp_path: Path, said) -> None:
    old = reconstruction()
    path = saved(old, tmp_path / "a.ckpt")
    stored, unet = old.network.state_dict(), NETWORKS["U-Net"]
    new, fresh = (family(unet, seed=1, init_from=start).network.state_dict() for start in (path, None))
    for name, value in new.items():
        assert torch.equal(value, stored[name] if name.startswith("down.0.") else fresh[name]), name
    taken = sum(name.startswith("down.0.") for name in new)
    assert said == [
        f"{taken} of {len(new)} weights are taken from {path}; classes taken over: none; new: {', '.join(OLD)}; "
        "not taken: down.1.0.weight is [8, 4, 3, 3] here and missing there; down.1.0.bias is [8] here and missing "
        "there; down.1.2.weight is [8, 8, 3, 3] here and missing there; ..."
    ]


def test_it_starts_from_a_training_with_labels_too(tmp_path: Path, said) -> None:
    old = family(NETWORKS["U-Net"])
    path = saved(old, tmp_path / "a.ckpt")
    new = reconstruction(init_from=path)
    assert torch.equal(new.network.down[0][0].weight, old.network.down[0][0].weight)
    assert "classes" not in said[0]


def test_what_needs_classes_says_that_there_are_none(segfolio, tmp_path: Path, capsys) -> None:
    says = (
        r"holds .*Autoencoder trained without labels, and there are no classes to evaluate or to predict; .*init_from"
    )
    checkpoint = torch.load(path := saved(reconstruction(), tmp_path / "a.ckpt"), weights_only=True)
    with pytest.raises(SegfolioError, match=says):
        family(NETWORKS["U-Net"]).on_load_checkpoint(checkpoint)
    config = REPOSITORY / "experiments/unet/shapes_small.yaml"
    for arguments in (["test"], ["predict", "--data.images=images"]):
        small = ["--data.num_workers=0", "--data.dataset.init_args.size=[32, 32]", "--trainer.accelerator=cpu"]
        assert segfolio(*arguments, "-c", config, "--ckpt_path", path, "--output=out", *small) == 2
        (message,) = capsys.readouterr().err.strip().splitlines()
        assert "trained without labels" in message


@pytest.mark.parametrize("loop", ["validate", "test", "predict"])
def test_a_loop_without_its_step_is_one_sentence(segfolio, tmp_path: Path, capsys, loop: str) -> None:
    assert segfolio(loop, "-c", written(tmp_path)) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("segfolio: ")]
    step = {"validate": "validation"}.get(loop, loop)
    assert f"`segfolio {loop}` needs a {step}_step, which Reconstruction does not have; write one" in message


def test_figures_of_its_own_are_reported_and_choose_the_best(segfolio, tmp_path: Path, capsys) -> None:
    config = written(tmp_path, "Measured")
    own = "--model.init_args.main_metric"
    assert segfolio("fit", "-c", config, f"{own}=eror", "--output=run") == 2
    assert (
        "model.main_metric is 'eror', which is not measured; did you mean 'error'?; it can be error"
        in capsys.readouterr().err
    )
    assert segfolio("fit", "-c", config, f"{own}=error", "--output=run", "--trainer.val_check_interval=1") == 0
    assert Path("run/checkpoints/best.ckpt").is_file()
    capsys.readouterr()
    assert segfolio("test", "--ckpt_path=run") == 0
    (error,) = json.loads(Path("run/test-best/figures.json").read_text()).values()
    assert re.search(rf"test/error \(levels\) ↓ +- +{error:.2f}\n", capsys.readouterr().out)


def test_a_network_without_arguments_is_trained_and_tested(segfolio) -> None:
    given = [
        *("-c", REPOSITORY / "experiments/unet/shapes_small.yaml", "--data.num_workers=0", "--trainer.logger=false"),
        *("--model.init_args.architecture=tests.families.test_trained.Colour", "--trainer.accelerator=cpu"),
        *("--data.dataset.init_args.size=[32, 48]", "--data.dataset.init_args.train=4", "--trainer.max_steps=1"),
        *("--data.dataset.init_args.val=2", "--data.dataset.init_args.test=2", "--data.batch_size=2"),
    ]
    assert segfolio("fit", *given, "--output=run") == 0
    assert segfolio("test", "--ckpt_path=run") == 0
    assert "test/mIoU" in json.loads(Path("run/test/figures.json").read_text())


def test_where_nothing_is_validated_a_run_that_is_cut_goes_on_from_its_last_epoch(segfolio, tmp_path: Path) -> None:
    steps = "--trainer.max_steps=5"
    with pytest.raises(OSError, match="power cut"):  # an epoch has two steps
        segfolio("fit", "-c", written(tmp_path, "Cut"), steps, "--output=cut")
    cut, again = Path("cut/checkpoints/last.ckpt"), written(tmp_path)
    assert torch.load(cut, weights_only=True)["global_step"] == 2
    assert segfolio("fit", "-c", again, f"--ckpt_path={cut}", steps, "--resume.allow=model.class_path") == 0
    assert segfolio("fit", "-c", again, steps, "--output=whole") == 0
    resumed, whole = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("cut", "whole"))
    assert resumed["global_step"] == 5
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())


class Validated(Reconstruction):
    main_metric = "loss"

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        self.log("val/loss", self.compute_losses(batch)["l1"])


def images_alone(folder: Path, network: str, **data: Any) -> Path:
    for i in range(4):
        write_image(folder / "images" / "train" / f"{i}.png", np.full((32, 48, 3), i, np.uint8))
    config = {**CONFIG, "model": {**CONFIG["model"], "class_path": f"tests.families.test_trained.{network}"}}
    dataset = {"class_path": "segfolio.data.datasets.ImageFolder"}
    config["data"] = {"dataset": dataset, "root": "images/{split}", "batch_size": 2, "num_workers": 0, **data}
    (path := folder / "row.yaml").write_text(yaml.safe_dump(config))
    return path


def test_its_preparation_is_done_to_each_training_sample() -> None:
    model, seen = reconstruction(), []
    model.preparation = lambda sample, rng: seen.append(sample.image_id) or sample  # type: ignore[func-returns-value]
    trainer(max_steps=1).fit(model, shapes())
    assert len(seen) >= 2


def test_it_trains_on_images_alone_and_needs_no_split_that_nothing_is_validated_on(segfolio, tmp_path, capsys) -> None:
    (tmp_path / "images" / "train").mkdir(parents=True)
    assert segfolio("fit", "-c", images_alone(tmp_path, "Reconstruction"), "--output=run") == 0
    assert torch.load(LAST, weights_only=True)["global_step"] == 1
    assert segfolio("fit", "-c", images_alone(tmp_path, "Validated"), "--output=other") == 2
    assert "images/val: there is no such folder" in capsys.readouterr().err
    off = ["--trainer.limit_val_batches=0", "--output=third"]
    assert segfolio("fit", "-c", images_alone(tmp_path, "Validated"), *off) == 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_ended_within_an_epoch_and_gets_more_steps_is_as_one_that_had_them(
    segfolio, tmp_path: Path, accumulate: int
) -> None:
    given = (  # an epoch has four steps; the first fit ends within the second
        *("fit", "-c", written(tmp_path), f"--data.dataset.init_args.train={8 * accumulate}"),
        *(f"--data.batch_size={2 * accumulate}", f"--trainer.accumulate_grad_batches={accumulate}"),
    )
    assert segfolio(*given, "--trainer.max_steps=7", "--output=whole") == 0
    assert segfolio(*given, "--trainer.max_steps=5", "--output=parts") == 0
    assert segfolio(*given, "--trainer.max_steps=7", "--output=parts", "--ckpt_path=last") == 0
    parts, at_once = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("parts", "whole"))
    assert (parts["epoch"], parts["global_step"]) == (at_once["epoch"], at_once["global_step"])
    assert all(torch.equal(value, parts["state_dict"][name]) for name, value in at_once["state_dict"].items())
