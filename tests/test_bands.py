"""Images of several bands, from the folder to the prediction, as a user goes about it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from segfolio.data.formats.images import read_id_map, read_image, write_image
from segfolio.data.image_space import ImageSpace
from tests.conftest import REPOSITORY
from tests.fake import bands

CONFIG = REPOSITORY / "experiments/unet/mask_folder.yaml"


def arguments(root: Path, channels: int, **changed: object) -> list[object]:
    dataset, architecture = "--data.dataset.init_args", "--model.init_args.architecture.init_args"
    given = {
        f"{dataset}.channels": channels,
        f"{dataset}.dtype": "uint16",
        f"{dataset}.value_range": list(bands.RANGE),
        f"{dataset}.shown": [2, 1, 0],
        f"{architecture}.in_channels": channels,
        f"{architecture}.width": 4,
        "--model.init_args.mean": [0.2] * channels,
        "--model.init_args.std": [0.25] * channels,
        "--data.train_transforms": json.dumps(
            [
                {
                    "class_path": "segfolio.data.transforms.RandomWindow",
                    "init_args": {"size": [32, 32], "scale": [0.7, 1.5], "rotation": 20.0, "hflip": 0.5},
                },
                {
                    "class_path": "segfolio.data.transforms.ColorJitter",
                    "init_args": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.0},  # the last is of RGB alone
                },
            ]
        ),
        "--model.init_args.optimizer.init_args.lr": 0.02,
        "--data.batch_size": 4,
        "--trainer.max_steps": 60,
        "--model.init_args.scheduler.init_args.total_iters": 60,
        "--trainer.val_check_interval": 60,
        **changed,
    }
    places = ["--data.root", root, "--data.num_workers=0", "--trainer.accelerator=cpu", "--output=run"]
    return ["-c", CONFIG, *places, *(f"{key}={value}" for key, value in given.items())]


@pytest.mark.parametrize(("channels", "suffix"), [(4, ".tif"), (13, ".npy")])
def test_bands_are_trained_tested_and_predicted(segfolio, capsys, channels, suffix):
    bands.write(root := Path("data"), channels, suffix)
    assert segfolio("fit", *arguments(root, channels)) == 0
    checkpoint = "run/checkpoints/last.ckpt"
    stored = torch.load(checkpoint, weights_only=True)["segfolio"]["image_space"]
    assert ImageSpace(**stored) == ImageSpace(channels, "uint16", bands.RANGE, (2, 1, 0))
    assert segfolio("test", "--ckpt_path", checkpoint) == 0
    assert json.loads(Path("run/test/figures.json").read_text())["test/mIoU"] > 0.9

    (root / "images" / "test").rename("scenes")
    (root / "classes.yaml").unlink()  # nothing of the dataset is needed
    assert segfolio("predict", "--ckpt_path", checkpoint, "--data.images=scenes", "--output=out") == 0
    for i in range(2):
        truth = read_id_map(root / f"masks/test/{i}.png")
        assert (read_id_map(Path(f"out/ids/{i}.png")) == truth).mean() > 0.9
        image = read_image(Path(f"scenes/{i}{suffix}"), ImageSpace(channels, "uint16"))
        shown, overlay = image[..., [2, 1, 0]] * (255 / 10_000), read_image(Path(f"out/overlay/{i}.png"))
        colour = overlay[truth == 0] - shown[truth == 0] / 2  # half of that of the class, but for contours
        assert (np.abs(colour - np.median(colour, 0)) <= 1).mean() > 0.8


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"--model.init_args.architecture.init_args.in_channels": 3},
            "UNet takes images of 3 channels, but the images have 4 channels; give the architecture in_channels: 4",
        ),
        (
            {"--model.init_args.mean": [0.5]},
            "model.mean has 1 value, but the images have 4 channels; give one for each .*segfolio inspect",
        ),
        ({"--model.init_args.std": [0.2, 0.2, 0.2, 0.0]}, "model.std is .*: give values above 0"),
        (
            {
                "--data.dataset.init_args.channels": 5,
                "--model.init_args.architecture.init_args.in_channels": 5,
                "--model.init_args.mean": [0.2] * 5,
                "--model.init_args.std": [0.2] * 5,
            },
            r"4 images of 4 channels, expected 5 \(say channels: 4\)",
        ),
        (
            {"--data.dataset.init_args.dtype": "uint8", "--data.dataset.init_args.value_range": "null"},
            r"images of uint16 values, expected uint8 \(say dtype: uint16 of the dataset, or scale and convert them\)",
        ),
        ({"--data.dataset.init_args.shown": [0, 1, 4]}, r"shown is \[0, 1, 4\]; .* of 0 to 3"),
        ({"--data.dataset.init_args.value_range": [5, 5]}, r"value_range is \[5.0, 5.0\]; give the values that"),
    ],
)
def test_channels_mean_and_network_that_disagree_are_one_sentence_before_training(segfolio, capsys, changed, says):
    bands.write(Path("data"))
    assert segfolio("fit", *arguments(Path("data"), 4, **changed)) == 2
    *_, said = capsys.readouterr().err.splitlines()
    assert re.match(f"segfolio: .*{says}", said)
    assert not Path("run").exists()


def test_a_checkpoint_of_other_values_is_refused(segfolio, capsys):
    bands.write(Path("data"))
    short = {"--trainer.max_steps": 1, "--trainer.limit_val_batches": 0}
    assert segfolio("fit", *arguments(Path("data"), 4, **short)) == 0
    other = "--data.dataset.init_args.value_range=[0, 4000]"
    assert segfolio("test", "--ckpt_path=run/checkpoints/last.ckpt", other) == 2
    assert (
        "trained on images of 4 channels of uint16 in 0 to 10000, but the dataset has 4 channels of uint16 in 0 to 4000"
        in capsys.readouterr().err
    )


def test_inspect_measures_mean_and_std_in_units_of_the_range(segfolio, capsys):
    bands.write(Path("data"), 13, ".npy")
    dataset = {"class_path": "segfolio.data.datasets.MaskFolder", "init_args": {"channels": 13, "dtype": "uint16"}}
    dataset["init_args"]["value_range"] = list(bands.RANGE)
    Path("data.yaml").write_text(json.dumps({"data": {"dataset": dataset, "root": "data"}}))
    assert segfolio("inspect", "data.yaml", "--json", "--html", "page.html") == 0
    found = json.loads(capsys.readouterr().out)["splits"]["train"]
    images = np.concatenate([np.load(path).reshape(-1, 13) for path in Path("data/images/train").iterdir()]) / 10_000
    np.testing.assert_allclose(found["mean"], images.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["std"], images.std(0), rtol=1e-6)


def test_a_checkpoint_older_than_image_spaces_is_of_grey_or_rgb(segfolio):
    """One value of `mean` was one channel."""
    bands.write(root := Path("data"), 1)
    eight = {"--data.dataset.init_args.dtype": "uint8", "--data.dataset.init_args.value_range": "null"}
    for path in (root / "images").rglob("*.tif"):
        write_image(path, (read_image(path, ImageSpace(1, "uint16")) // 40).astype(np.uint8))
    once = {"--data.dataset.init_args.shown": [0], "--trainer.max_steps": 1, "--trainer.limit_val_batches": 0}
    assert segfolio("fit", *arguments(root, 1, **eight, **once)) == 0
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    del checkpoint["segfolio"]["image_space"]
    torch.save(checkpoint, "run/checkpoints/old.ckpt")
    for name in ("last", "old"):
        images = ("--data.images", root / "images/test", f"--output={name}")
        assert segfolio("predict", f"--ckpt_path=run/checkpoints/{name}.ckpt", *images) == 0
    assert np.array_equal(read_image(Path("old/overlay/0.png")), read_image(Path("last/overlay/0.png")))
