"""How many runs at once are fastest, how long a plan takes, and what `concurrent=auto` makes of it."""

from __future__ import annotations

import re
import resource
import time

import pytest
import torch

from anchorloss.sweep import width
from anchorloss.sweep.estimate import makespan
from anchorloss.sweep.width import Width, fastest, keep_fastest, measure, widths
from anchorloss.training.trainer import Trainer
from tests.conftest import SMALL
from tests.in_process import context_of, settings


def test_the_time_of_a_plan_is_that_of_its_runs_taking_turns():
    """Three equal runs on two places: two together, then one alone; the speed depends on how many there are."""
    seconds = {1: 10.0, 2: 15.0}.__getitem__
    assert makespan([4, 4, 4], 1, seconds) == 3 * 4 * 10
    assert makespan([4, 4, 4], 2, seconds) == 4 * 15 + 4 * 10
    assert makespan([4, 1, 2], 2, seconds) == 1 * 15 + 2 * 15 + 1 * 10
    assert makespan([], 2, seconds) == 0


def test_the_widths_tried_are_powers_of_two_within_the_cores_and_the_runs(monkeypatch):
    monkeypatch.setattr(width, "cores", lambda: 6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    cpu = torch.device("cpu")
    assert widths(cpu, 0, 20) == [Width(1, 6), *(Width(runs, 1) for runs in (1, 2, 4, 6))]
    assert widths(cpu, 2, 20) == [Width(1, 2), Width(2, 2), Width(3, 2)]
    assert widths(cpu, 8, 20) == [Width(1, 8)]
    assert widths(cpu, 1, 3) == [Width(1, 1), Width(2, 1), Width(3, 1)]
    assert widths(torch.device("cuda"), 0, 20) == [Width(runs, 0) for runs in (1, 2, 4, 8, 16, 20)]


def test_measuring_ends_where_the_memory_does(monkeypatch):
    (run,) = settings()
    monkeypatch.setattr(width, "SECONDS", 0.01)
    monkeypatch.setattr(width, "_SLOWER", 0.0)
    used = iter(range(0, 10_000, 100))
    monkeypatch.setattr(width, "peak_memory", lambda _: next(used))
    monkeypatch.setattr(width, "free_memory", lambda _: 1)
    tried = [Width(1, 1), Width(2, 1), Width(4, 1)]
    assert [speed.width for speed in measure(run, context_of(run), tried)] == [Width(1, 1)]


def test_the_fastest_width_is_kept_by_device_and_kind_of_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (run,), (other,) = settings(), settings("optim.batch_size=32")
    context = context_of(run)
    cpu = torch.device("cpu")
    assert fastest(run, cpu, compile=False) is None
    keep_fastest(run, context, 4)
    keep_fastest(other, context, 2)
    assert fastest(run, cpu, compile=False) == 4
    assert fastest(other, cpu, compile=False) == 2
    assert fastest(run, cpu, compile=True) is None
    (kept,) = tmp_path.rglob("*.json")
    for content in ("", "[]", '{"a": 1', "[" * 5000, kept.read_text().replace("4", '"4"').replace("2", "-1")):
        kept.write_text(content)
        assert fastest(run, cpu, compile=False) is None
    keep_fastest(run, context, 4)
    assert fastest(run, cpu, compile=False) == 4


def test_a_plan_names_a_width_and_trains_nothing(train, tmp_path):
    sweep = [*SMALL, "-m", "loss=bce,anchor_bg", "seeds=[0,1]"]
    train(*sweep[:-1], "seeds=[0]", check=True)
    files = sorted((tmp_path / "results").rglob("*"))
    said = train(*sweep, "--plan", check=True).stdout
    assert "2 of 4 are done, 2 to do" in said
    assert re.search(r"Fastest: \d+ runs? at once with 1 thread each: .* for 2 runs", said)
    assert re.search(r"give the command with threads=1 concurrent=\d", said)
    assert sorted((tmp_path / "results").rglob("*")) == files
    done = train(*sweep[:-1], "seeds=[0]", "--plan", check=True).stdout
    assert "Nothing is left" in done


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_plan_foretells_the_time_of_the_experiment(train):
    """Within 25 % where both cores are there for it; a busy machine is another one from one minute to the next."""
    sweep = ("data=synthetic", "data.training_images=2000", "data.test_images=500", "model=resnet8")
    sweep = (*sweep, "optim=short", "optim.epochs=4", "precision=fp32", "logger=none", "threads=1", "-m")
    sweep = (*sweep, "loss=bce,anchor_bg", "seeds=[0,1]")
    said = train(*sweep, "--plan", check=True, timeout=600).stdout
    found = re.search(r"Fastest: (\d+) runs? at once .* \((\d+) s\) for 4 runs", said)
    assert found is not None
    width, told = map(int, found.groups())
    begun, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    train(*sweep, f"concurrent={width}", check=True, timeout=1200)
    took = time.monotonic() - begun
    share = (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used) / (took * width)
    within = 1.25 if share > 0.85 else 2
    print(f"told {told} s, took {took:.0f} s with {share:.0%} of the time of {width} cores")
    assert 1 / within < told / took < within, said


def test_only_full_batches_are_timed():
    """On CUDA the last batch of an epoch would be the capture of a graph."""
    (run,) = settings()
    context = context_of(run)
    trainer = Trainer(run, context.training, context.device)
    trainer.start_epoch(0)
    assert len(context.training.labels) % run.optim.batch_size > 0
    assert {width._step(trainer) for _ in range(2 * trainer.steps)} == {run.optim.batch_size}
