"""The model card gives what the records say, in the Hub's format, and is made for kept weights alone."""

from __future__ import annotations

import json

import pytest
import yaml

from anchorloss.analysis import model_card
from anchorloss.config.settings import LossSettings
from anchorloss.errors import UserError
from anchorloss.runs.files import sha256
from anchorloss.runs.folder import WEIGHTS
from tests.commands import call
from tests.run_folders import edit_record, finish_run, make_settings
from tests.settings import model_settings


def keep_weights(folder, content=b"weights"):
    (folder / WEIGHTS).write_bytes(content)
    files = json.loads((folder / "record.json").read_text())["files"]
    edit_record(folder, files={**files, WEIGHTS: sha256(content)})


def test_the_card_gives_the_mean_over_its_records(tmp_path):
    for loss, top1 in (("anchor_bg", 74.1), ("bce", 73.2)):
        keep_weights(finish_run(tmp_path, make_settings(loss), top1=top1, top5=92.3))
    finish_run(tmp_path, make_settings("bce", 1))  # without weights
    text = model_card.make(tmp_path, "table1")
    _, front, body = text.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["datasets"] == ["cifar100"]
    (entry,) = metadata["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "table1"
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"name": "CIFAR-100", "type": "cifar100", "split": "test"}
    assert [(metric["type"], metric["value"]) for metric in result["metrics"]] == [
        ("accuracy", pytest.approx((73.2 + 74.1) / 2)),
        ("accuracy", pytest.approx(92.3)),
    ]
    assert sha256(b"weights").removeprefix("sha256:")[:16] in body
    assert "interim, 0 of 5 seeds" in body


def test_the_card_of_a_network_and_loss_of_ones_own_names_them(tmp_path):
    network = model_settings("mobilenet", function="my_networks.MobileNet", arguments={"width": 16})
    loss = LossSettings(name="hinge", function="my_losses.hinge")
    own = make_settings().model_copy(update={"loss": loss, "model": network})
    keep_weights(finish_run(tmp_path, own))
    text = model_card.make(tmp_path, "table1")
    assert 'network = hydra.utils.get_method("my_networks.MobileNet")(100, width=16)' in text
    assert "Ryou" not in text
    assert "models.build" not in text
    code = text.partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")


def test_changed_weights_get_no_card(tmp_path):
    folder = finish_run(tmp_path, make_settings())
    keep_weights(folder)
    (folder / WEIGHTS).write_bytes(b"Weights")
    with pytest.raises(UserError, match="its SHA-256 is not the one"):
        model_card.make(tmp_path, "table1")
    assert not (tmp_path / "table1").exists()


def test_without_weights_it_says_so_and_writes_nothing(tmp_path):
    finish_run(tmp_path, make_settings())
    done = call("model_card.py", "--experiment=table1", "--results-dir", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: experiment=table1: none of its 1 runs kept its weights")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "table1").exists()
