"""A run whose network began with weights from files goes on without them."""

from pathlib import Path

import torch
import yaml

from segfolio import initial_weights
from segfolio.architectures.promptable.sam import SAM
from segfolio.data.formats.images import write_image
from tests.inference.sam_pair import picture
from tests.prompting.test_command import config

NETWORK = {"encoder": "test_vit", "image_size": 64}


def test_a_run_is_tested_and_prompted_when_its_files_are_gone(segfolio, capsys) -> None:
    torch.save(SAM(0, **SAM.tiny).state_dict(), "sam.pth")
    given = config(decoder_weights="sam.pth")
    network = given["model"]["init_args"]["architecture"]
    network |= {
        "class_path": "segfolio.architectures.promptable.mobile_sam.MobileSAM",
        "init_args": {**NETWORK, "decoder_weights": "sam.pth"},
    }
    Path("mobile.yaml").write_text(yaml.safe_dump(given))
    assert segfolio("fit", "-c", "mobile.yaml", "--output=run") == 0, capsys.readouterr().err
    Path("sam.pth").unlink()
    write_image(Path("one.png"), picture(40, 52))
    assert segfolio("test", "--ckpt_path", "run", "--model.test.protocol=boxes") == 0, capsys.readouterr().err
    asked = ["--image", "one.png", "--point", "10,20"]
    assert segfolio("prompt", "--ckpt_path", "run", *asked) == 0, capsys.readouterr().err
    assert segfolio("prompt", "-c", "mobile.yaml", *asked) == 2
    assert "decoder_weights: sam.pth is no file" in capsys.readouterr().err


def test_only_what_the_checkpoint_holds_is_left_out(monkeypatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr("lightning.pytorch.utilities.rank_zero.rank_zero_warn", warned.append)
    network = {"weights": "imagenet", "decoder_weights": "sam.pth", "loss_weights": None, "width": 3}
    teacher = {"init_args": {"weights": "teacher.pth"}}
    arguments = {"init_from": "a.ckpt", "architecture": {"init_args": network}, "teacher": teacher, "weights": "mine"}
    initial_weights.warn_of_none(arguments)
    assert warned == []
    initial_weights.leave_out(arguments)
    left = {"weights": None, "decoder_weights": None, "loss_weights": None, "width": 3}
    assert arguments == {
        "init_from": None,
        "architecture": {"init_args": left},
        "teacher": {"init_args": {"weights": "teacher.pth"}},
        "weights": "mine",
    }
    initial_weights.warn_of_none({"architecture": "a.Network"})
    initial_weights.warn_of_none(arguments)
    assert len(warned) == 2
