"""Whatever a config or a command line says, the answer is one line and status 2, nothing is written, nothing hangs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anchorloss.errors import UserError
from tests.commands import call
from tests.conftest import SMALL
from tests.in_process import settings

DIGITS = "9" * 400
# Each is composed by Hydra and refused by the settings, by its key.
VALUES = f"""
optim.batch_size=18446744073709551616 optim.batch_size=0 optim.epochs=0 optim.epochs=1.5 optim.epochs=true
optim.epochs={DIGITS} optim.epochs=1000001 optim.weight_decay=1e308 optim.weight_decay=-1 optim.decay_factor=1e308
optim.decay_factor=0 optim.lr=nan optim.lr=inf optim.lr=0 optim.lr=true optim.lr=null optim.momentum=1 optim.momentum=-1
optim.decay_at=[0.5,2] optim.decay_at=[0] optim.decay_at=5 optim.evaluate_every=-3 optim.lr_warmup_epochs=-1
optim.softmax_warmup_epochs=-1 optim.nesterov=maybe optim.schedule=linear optim.momentum=0,optim.nesterov=true
data.training_images=1000000000000 data.training_images=99 data.training_images=null data.test_images=null
data.validation=-1 data.validation_seed=-1 data.evaluate_on=validation data.evaluate_on=tset data.root= data.root="a\0b"
data=cifar100 data.name=cifar data.name=CIFAR-10,data.function=own.load threads=1000000 threads={DIGITS} threads=-1
concurrent=-1 concurrent=0 concurrent=10000 checkpoint_seconds=-1 minutes=nan minutes=-1 deterministic=perhaps
keep_weights=2 keep_weights=1 optim.nesterov=1 data.download=1 model.prior_bias=0.0
seeds=[-1] seeds=[2147483648] seeds=[{DIGITS}] seeds=[1,1] seeds=[] seeds=[[0]] seeds=null
loss.gamma={DIGITS} loss.gamma=-1 loss.gamma=nan loss.gamma=true loss.gamma=[1] loss.gamma=2 +loss.gamma_target=1
loss=softmax,+loss.label_smoothing=-0.1 loss=softmax,+loss.label_smoothing=1.1 loss=softmax,+loss.label_smoothing=x
loss=softmax,+loss.any=nan loss=softmax,+loss.any=[inf] loss=softmax,+loss.any="a\0b" loss=softmax,+loss.scores=other
loss=softmax,+loss.any={"[" * 14}0{"]" * 14} loss.name=a-b loss.name={"a" * 300} loss.name=null loss.function=null
loss=anchor_bg,+loss.gamma_target=1 loss=anchor_target,+loss.gamma_background=1 loss.function=torch.nn.functional.mse_loss
model.name=resnet0008 model.name=resnet9 model.name=resnet1208 model.name=resnet{"8" * 300} model.name=wrn-16-2
model.name= model.name=../up model.shortcut=C +model.arguments.a=1 +data.arguments.a=1
experiment.name=.. experiment.name=a/b experiment.name="a\x07b" experiment.name={"a" * 300} experiment.name=.hidden
experiment.name=null results_dir= results_dir="a\0b" results_dir={"a" * 2000} logger.project= logger.name=other
precision=fp8 device=gpu device=cuda:x device=cuda:99999999999999999999 +optim.lrr=1 +nothing=1
"""
# Each is refused on the way to a composed config, or by the loss itself.
COMMANDS = """
loss.function=5 loss.function=builtins.print loss.function=anchorloss.loss loss.function=torch.nn.functional.nothing
+loss.detach=5 +loss.alpha=1 +loss.reduction=sum ~results_dir ~optim.epochs ~optim ~data ~model ~loss ~logger ~seeds
loss=null optim=null loss={} seeds={a:1} model.name=resnet\u0662\u0660 model.arguments={a:1}
model=[resnet8,resnet20] =3 +=3 loss= loss seeds=[ optim.lr=${nothing} optim.lr=${optim.lr}
optim.lr=${oc.env:HOME} optim.lr=${no:resolver} optim.lr=${ experiment.name=${seeds} seeds=[${optim}]
hydra.launcher._target_=nowhere.Launcher hydra/launcher=nowhere hydra/launcher=processes experiment=../up logger=all x
"""
SAID = {
    "optim.ephocs=3": "optim.epochs",
    "optm.epochs=3": "optim.epochs",
    "los=bce": "mean loss?",
    "loss=anchor_bgg": "anchor_bg",
    "loss.gama=1": "loss.gamma",
    "device=cpuu": "cpu",
    "optim.schedule=cosin": "mean cosine",
    "data.name=cifar": "cifar1",
    "experiment=tabel1": "table1",
    "+optim.nesterow=true": "nesterov",
    "lr=0.2": "optim.lr",
    "epoch=2": "optim.epochs",
    "model.epochs=2": "optim.epochs",
    "data.batch_size=64": "optim.batch_size",
    "model.nam=a": "model.name",
    "loss=anchor_bg loss.name=bce": "is taken",
    "loss.anchor=background": "is taken",
    "loss=anchor_bg loss.detach=false": "+loss.detach=",
    "model.width=8": "+model.arguments.width=",
    "data.augmentation=cutout": "no such key; an argument of a function is added with +data.arguments.augmentation=",
    "pydantic_config=2": "no such key; `python",
    "seeds=3": "'seeds=[3]'",
    "-m seeds=0,1": "write 'seeds=[0,1]', which needs no -m",
    "hydra/launcher=processes": "add -m",
    "-m hydra.sweeper.params={loss:[bce,anchor_bg]}": "write loss=a,b",
    "-m loss=bce,nothing": "nothing",
    "-m optim.lr=1,0": "optim.lr=0",
    "loss=/etc/passwd": "error: loss=/etc/passwd: there is no such config",
    "--loss anchor_bg": "write loss=anchor_bg",
    "--epochs=3": "write epochs=3",
}
FILES = {
    "scalar": b"5\n",
    "list": b"- a\n- b\n",
    "not_utf8": b"name: \xff\xfe\n",
    "broken": b"name: a\n  gamma: [1\n",
    "cyclic": b"name: &a [*a]\n",
    "bomb": b"a: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 110)),
    "deep": b"name: " + b"[" * 900 + b"]" * 900 + b"\n",
    "code": b"name: !!python/object/apply:os.mkdir [executed]\n",
    "doubled": b"name: a\nname: b\nfunction: anchorloss.loss.anchor_loss\n",
    "large": b"#" * (2 << 20),
    "itself": b"defaults:\n  - itself\nname: a\n",
}


def refused(folder: Path, *arguments: str, before: set[str] = frozenset()) -> str:
    """The one line that answers these arguments; nothing but `before` may lie in the folder afterwards."""
    done = call("train.py", *arguments, folder=folder, seconds=120)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.isprintable()
    assert "unexpected" not in line
    assert {path.name for path in folder.iterdir()} <= set(before)
    return line


@pytest.mark.parametrize("overrides", VALUES.split(), ids=lambda text: ascii(text)[1:50])
def test_a_wrong_value_is_refused_by_its_key(overrides: str) -> None:
    parts = overrides.split(",") if overrides.count("=") > 1 else [overrides]
    with pytest.raises(UserError) as refusal:
        settings(*parts)
    assert parts[-1].lstrip("+~").partition("=")[0].partition(".")[0] in str(refusal.value)


@pytest.mark.parametrize("override", COMMANDS.split())
def test_a_hostile_override_is_refused_in_one_line(tmp_path: Path, override: str) -> None:
    key = override.lstrip("+~").partition("=")[0].partition(".")[0].partition("/")[0]
    assert key in refused(tmp_path, *SMALL, override)


@pytest.mark.parametrize("override", SAID)
def test_a_mistake_is_answered_with_what_was_meant(tmp_path: Path, override: str) -> None:
    assert SAID[override] in refused(tmp_path, *SMALL, *override.split())


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_config_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "mine" / "loss" / f"{name}.yaml").write_bytes(FILES[name])
    line = refused(tmp_path, "--config-dir", "mine", *SMALL, f"loss={name}", before={"mine"})
    assert f"loss/{name}.yaml" in line


def test_what_is_no_config_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe.yaml")
    there = {"file", "loop", "pipe.yaml"}
    for arguments in (
        ("--config-dir", "file"),
        ("--config-dir", "nowhere"),
        ("--config-dir", "loop"),
        ("--config-path", str(tmp_path / "file")),
        ("--config-name", "nothing"),
        ("--config-name", "loss"),
        ("--config-path", str(tmp_path), "--config-name", "pipe"),
        ("hydra.run.dir=file",),
        ("-m", "hydra/launcher=processes", "hydra.launcher.count=-1"),
        ("-m", "hydra/launcher=slurm", "hydra.launcher.poll_seconds=soon"),
        ("-m", "hydra/launcher=slurm", "hydra.launcher.max_timeouts=-1"),
        ("-m", "hydra/launcher=ray", "hydra.launcher.num_gpus=all"),
        ("-m", "hydra.launcher._target_=os.getcwd"),
        ("--resolve",),
    ):
        refused(tmp_path, *arguments, *SMALL, before=there)


def test_a_config_of_ones_own_composes_wherever_its_folder_is_named(tmp_path: Path) -> None:
    """A network without `shortcut`, a schedule of one line, options among the overrides."""
    for path, text in (
        ("model/mine.yaml", "name: resnet14\n"),
        ("optim/mine.yaml", "lr: 0.05\n"),
        ("loss/mine.yaml", "name: mine\nfunction: torch.nn.functional.cross_entropy\n"),
    ):
        (tmp_path / "a=b" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a=b" / path).write_text(text)
    mine = ("loss=mine", "model=mine", "--config-dir", "a=b", "optim=mine", "--dry-run", "model.shortcut=B")
    done = call("train.py", "data=synthetic", *mine, "-m", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mine-resnet14-seed0-" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--hydra-help"], ["--cfg", "job"], ["-m", "-c", "job", "loss=bce"], ["loss=bce", "--help"]],
)
def test_hydras_own_flags_work(tmp_path: Path, arguments: list[str]) -> None:
    done = call("train.py", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") > 10
    assert list(tmp_path.iterdir()) == []
