"""Whatever a config or a command line says, the answer is one line and status 2, nothing is written, nothing hangs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.commands import call
from tests.conftest import SMALL

DIGITS = "9" * 400
OVERRIDES = [
    # numbers
    "optim.batch_size=18446744073709551616",
    "optim.epochs=0",
    "optim.epochs=1.5",
    f"optim.epochs={DIGITS}",
    "optim.weight_decay=1e308",
    "optim.decay_factor=1e308",
    "optim.lr=nan",
    "optim.lr=inf",
    "optim.lr=-1e-300",
    "optim.momentum=1",
    "optim.decay_at=[0.5,2]",
    "optim.decay_at=5",
    "optim.evaluate_every=-3",
    "data.training_images=1000000000000",
    "data.training_images=99",
    "data.training_images=null",
    "data.validation_seed=-1",
    "data.evaluate_on=validation",  # of no image
    "data.evaluate_on=tset",
    "threads=1000000",
    f"threads={DIGITS}",
    "concurrent=-1",
    "concurrent=0",
    "checkpoint_seconds=-1",
    "minutes=nan",
    "seeds=[-1]",
    "seeds=[2147483648]",
    f"seeds=[{DIGITS}]",
    "seeds=[1,1]",
    "seeds=[]",
    "seeds=[[0]]",
    "seeds=null",
    "seeds={a:1}",
    f"loss.gamma={DIGITS}",
    "loss.gamma=-1",
    "loss.gamma=nan",
    "loss.gamma=true",
    "loss.gamma=[1]",
    # names and texts
    "model.name=resnet0008",
    "model.name=resnet9",
    f"model.name=resnet{'8' * 300}",
    "model.name=wrn-16-2",
    "model.name=resnet\u0662\u0660",
    "model.name=",
    "model.name=../up",
    "experiment.name=..",
    "experiment.name=a/b",
    "experiment.name='a\nb'",
    f"experiment.name={'a' * 300}",
    "loss.name=a-b",
    f"loss.name={'a' * 300}",
    "loss.name=null",
    "loss.function=5",
    "loss.function=builtins.print",
    "loss.function=anchorloss.loss",
    "loss.function=torch.nn.functional.nothing",
    "+loss.label_smoothing=-0.1",
    "+loss.detach=5",
    "experiment.name=.hidden",
    "data.root=",
    "~results_dir",
    "~optim.epochs",
    "results_dir=",
    'results_dir="a\0b"',
    'data.root="a\0b"',
    "logger.project=",
    "logger.name=other",
    "precision=fp8",
    "device=gpu",
    "device=cuda:x",
    "device=cuda:99999999999999999999",
    # what would change nothing
    "loss.gamma=2",
    "+loss.gamma_target=1",
    "+loss.alpha=1",
    "+optim.lrr=1",
    "+nothing=1",
    # structure
    "loss=null",
    "optim=null",
    "~optim",
    "~data",
    "~model",
    "~loss",
    "~logger",
    "model=[resnet8,resnet20]",
    "loss={}",
    "=3",
    "+=3",
    "a b",
    "optim.lr=${nothing}",
    "optim.lr=${optim.lr}",
    "optim.lr=${oc.env:HOME}",
    "optim.lr=${no:resolver}",
    "optim.lr=${",
    "experiment.name=${seeds}",
    "seeds=[${optim}]",
    f"seeds={'[' * 60}0{']' * 60}",
    "hydra.launcher._target_=nowhere.Launcher",
    "hydra/launcher=nowhere",
    "hydra.sweeper.max_batch_size=2",  # the whole sweep is one batch
]
TYPOS = {
    "optim.ephocs=3": "optim.epochs",
    "optm.epochs=3": "optim.epochs",
    "los=bce": "loss",
    "loss=anchor_bgg": "anchor_bg",
    "loss.gama=1": "loss.gamma",
    "model.name=resnet8 device=cpuu": "cpu",
    "optim.schedule=cosin": "cosine",
    "data.name=cifar": "cifar1",
    "experiment=tabel1": "table1",
    "+optim.nesterow=true": "nesterov",
    "lr=0.2": "optim.lr",
    "epoch=2": "optim.epochs",
    "model.epochs=2": "optim.epochs",
    "data.batch_size=64": "optim.batch_size",
    "loss=anchor_bg loss.name=bce": "is taken",
    "loss.anchor=background": "is taken",
    "loss.function=torch.nn.functional.cross_entropy": "is taken",
    "loss=anchor_bg loss.detach=false": "+loss.detach=",
    "model.width=8": "+model.arguments.width=",
    "seeds=3": "'seeds=[3]'",
    "hydra/launcher=processes": "add -m",
    "-m hydra.sweeper.params={loss:[bce,anchor_bg]}": "write loss=a,b",
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
    "empty": b"",
    "large": b"#" * (2 << 20),
}


def refused(folder: Path, *arguments: str, before: set[str] = frozenset()) -> str:
    """The one line that answers these arguments; nothing but `before` may lie in the folder afterwards."""
    done = call("train.py", *arguments, folder=folder, seconds=120)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.isprintable()
    assert "unexpected" not in line
    assert "Traceback" not in line
    assert {path.name for path in folder.iterdir()} <= set(before)
    return line


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda text: ascii(text)[1:50])
def test_a_hostile_override_is_refused_in_one_line(tmp_path: Path, override: str) -> None:
    line = refused(tmp_path, *SMALL, override)
    key = override.lstrip("+~").partition("=")[0].partition(".")[0].partition("/")[0]
    assert key in line


@pytest.mark.parametrize("override", TYPOS)
def test_a_typo_is_answered_with_what_was_meant(tmp_path: Path, override: str) -> None:
    assert TYPOS[override] in refused(tmp_path, *SMALL, *override.split())


def test_what_is_meant_is_always_a_key(tmp_path: Path) -> None:
    assert "did you mean" not in refused(tmp_path, *SMALL, "pydantic_config=2")


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_config_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "mine" / "loss" / f"{name}.yaml").write_bytes(FILES[name])
    line = refused(tmp_path, "--config-dir", str(tmp_path / "mine"), *SMALL, f"loss={name}", before={"mine"})
    # A file that is read and holds no loss is answered with the key that it lacks.
    assert any(
        said in line
        for said in (f"{name}.yaml", f"loss/{name}", f"loss={name}", "loss.name", "loss.function")
    )


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
        ("--config-path", "/nowhere"),
        ("--config-name", "nothing"),
        ("--config-name", "loss"),
        ("--config-path", str(tmp_path), "--config-name", "pipe"),
        ("hydra.run.dir=file",),
        ("-m", "hydra/launcher=processes", "hydra.launcher.count=-1"),
        ("-m", "hydra/launcher=processes", "hydra.launcher.count=x"),
        ("-m", "hydra/launcher=slurm", "hydra.launcher.poll_seconds=soon"),
        ("-m", "hydra/launcher=slurm", "hydra.launcher.max_timeouts=-1"),
        ("-m", "hydra/launcher=ray", "hydra.launcher.num_gpus=all"),
        ("-m", "hydra.launcher._target_=os.getcwd"),
        ("-m", "loss=bce,nothing"),
        ("-m", "optim.lr=1,0"),
        ("--resolve",),
    ):
        refused(tmp_path, *arguments, *SMALL, before=there)


@pytest.mark.parametrize(
    "arguments",
    [["--hydra-help"], ["--cfg", "job"], ["-m", "--cfg", "job"], ["-m", "-c", "job", "loss=bce"], ["--help"]],
)
def test_hydras_own_flags_work(tmp_path: Path, arguments: list[str]) -> None:
    done = call("train.py", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") > 10
    assert list(tmp_path.iterdir()) == []
