"""Whatever an annotation says, what is written lies below the output folder, and nothing that was read is lost."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image

from segfolio.data.datasets import CocoInstances, CocoPanoptic
from segfolio.data.formats.images import write_image
from segfolio.data.image_ids import id_of, is_image_id
from segfolio.data.sample import Sample
from segfolio.errors import SegfolioError
from segfolio.files import OutputFolder
from tests.fake import coco_instances, coco_panoptic

NAMES = ["0.png", "1.png"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images in `data/images`, seen from annotations in `data/annotations`."""
    for place, name in enumerate(NAMES):
        write_image(tmp_path / "data" / "images" / name, np.full((32, 32, 3), 50 + place, np.uint8))
    (tmp_path / "data" / "annotations").mkdir()
    return tmp_path / "data" / "images"


def coco(images: Path, prefix: str) -> str:
    """A COCO JSON whose file names begin so."""
    square = {"category_id": 1, "iscrowd": 0, "area": 100, "bbox": [2, 3, 10, 10]}
    square["segmentation"] = [[2, 3, 12, 3, 12, 13, 2, 13]]
    content = {
        "images": [{"id": i, "file_name": prefix + n, "height": 32, "width": 32} for i, n in enumerate(NAMES, 1)],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": i, "image_id": i, **square} for i in (1, 2)],
    }
    (images.parent / "annotations" / "all.json").write_text(json.dumps(content))
    return "annotations/all.json"


EXPERIMENT = """
model:
  class_path: segfolio.families.PerPixel
  init_args:
    architecture:
      class_path: segfolio.architectures.encoder_decoder.unet.UNet
      init_args: {width: 4, depth: 2, padding: same, batch_norm: true, dropout: 0.0}
    losses: {ce: {class_path: segfolio.losses.CrossEntropy}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.003}}
data:
  dataset:
    class_path: segfolio.data.datasets.CocoInstances
    init_args: {annotations: ANNOTATIONS, background: ground, images: FOLDER}
  root: ROOT
  batch_size: 2
  num_workers: 0
trainer: {max_steps: 1, accelerator: cpu, logger: false, num_sanity_val_steps: 0}
"""


@pytest.mark.parametrize(
    ("prefix", "folder"), [("/IMAGES/", "."), ("../images/", "annotations"), ("images/../images/", ".")]
)
def test_file_names_that_lead_elsewhere(images, segfolio, tmp_path, capsys, prefix, folder):
    annotations = coco(images, prefix.replace("/IMAGES", str(images)))
    text = EXPERIMENT.replace("ROOT", str(images.parent))
    Path("x.yaml").write_text(text.replace("ANNOTATIONS", annotations).replace("FOLDER", folder))
    before = {path: path.read_bytes() for path in images.parent.rglob("*") if path.is_file()}
    assert segfolio("fit", "-c", "x.yaml", "--output=run") == 0, capsys.readouterr().err
    assert segfolio("predict", "--ckpt_path=run/checkpoints/last.ckpt", "--output=out") == 0, capsys.readouterr().err
    assert {path: path.read_bytes() for path in images.parent.rglob("*") if path.is_file()} == before
    for kind in ("ids", "palette", "overlay"):
        assert sorted(p.name for p in Path("out", kind).rglob("*.png")) == NAMES
    assert len(list(Path("run/pictures").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("a/0.png", "a/0"),
        ("./a/0.png", "a/0"),
        ("/a/0.png", "a/0"),
        ("../../a/0.png", "a/0"),
        ("a/../0.png", "a/0"),
        ("a\\0.png", "a/0"),
        ("C:\\a\\0.png", "a/0"),
        ("a.b/0", "a.b/0"),
        ("0.tar.gz", "0.tar"),
        (".png", ".png"),
    ],
)
def test_an_image_id_is_relative_and_without_a_way_up(file_name, expected):
    assert id_of(file_name) == expected
    assert is_image_id(expected)


@pytest.mark.parametrize("wrong", ["/a", "../a", "a/../../b", "a//b", "", ".", "a\\b", "a/."])
def test_a_dataset_of_a_users_own_is_told(wrong):
    with pytest.raises(SegfolioError, match="is no relative path"):
        Sample(Image(torch.zeros(3, 2, 2, dtype=torch.uint8)), wrong, (2, 2))


def test_two_images_of_one_id_are_refused(images):
    annotations = coco(images, "")
    path = images.parent / annotations
    content = json.loads(path.read_text())
    content["images"][1]["file_name"] = "../0.png"
    os.rename(images / "1.png", images.parent / "0.png")
    path.write_text(json.dumps(content))
    with pytest.raises(SegfolioError, match="image name given more than once"):
        CocoInstances(images.parent, "train", annotations, "images").check()


@pytest.mark.parametrize(("module", "dataset"), [(coco_instances, CocoInstances), (coco_panoptic, CocoPanoptic)])
def test_ordinary_names_stay_what_they_were(tmp_path, module, dataset):
    module.write(tmp_path)
    found = dataset(tmp_path, "val")
    assert all(found.image_id(i).isalnum() for i in range(len(found)))


def test_links_do_not_lead_out(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "out" / "ids")
    with pytest.raises(SegfolioError, match=r"'ids/a\.png' would be written outside of"):
        OutputFolder(tmp_path / "out").path("ids", "a.png")


def test_a_file_that_was_read_is_not_written_over(tmp_path):
    read = tmp_path / "overlay" / "a.png"
    write_image(read, np.zeros((2, 2, 3), np.uint8))
    folder = OutputFolder(tmp_path, lambda: [read])
    assert folder.path("overlay", "b.png") == tmp_path / "overlay" / "b.png"
    with pytest.raises(SegfolioError, match="was read and would be written over; give another --output"):
        folder.path("overlay", "a.png")


def test_predictions_do_not_land_on_their_images(images, segfolio, capsys):
    text = EXPERIMENT.replace("ROOT", str(images.parent)).replace("FOLDER", "images")
    Path("x.yaml").write_text(text.replace("ANNOTATIONS", coco(images, "")))
    assert segfolio("fit", "-c", "x.yaml", "--output=run") == 0
    os.rename(images, images.with_name("overlay"))
    before = (images.with_name("overlay") / NAMES[0]).read_bytes()
    arguments = (f"--data.images={images.with_name('overlay')}", f"--output={images.parent}")
    capsys.readouterr()
    assert segfolio("predict", "--ckpt_path=run/checkpoints/last.ckpt", *arguments) == 2
    assert "was read and would be written over" in capsys.readouterr().err
    assert (images.with_name("overlay") / NAMES[0]).read_bytes() == before


@pytest.mark.parametrize("command", [["results"], ["inspect", "x.yaml"]], ids=lambda command: command[0])
def test_a_page_is_not_written_over_what_is_none(segfolio, capsys, command):
    Path("x.yaml").write_text("data: mine")
    assert segfolio(*command, "--html=x.yaml") == 2
    assert "--html x.yaml is no name of a page; give one that ends in .html" in capsys.readouterr().err
    assert Path("x.yaml").read_text() == "data: mine"
