"""What happens to runs on the simulated device: cases, each in a process of its own (see run.py)."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from anchorloss.errors import ClaimLostError
from anchorloss.runs import checkpoint
from anchorloss.tracking import Logger
from anchorloss.training import evaluation
from anchorloss.training.device_data import DeviceData
from anchorloss.training.evaluation import evaluate
from anchorloss.training.run import train as train_run
from anchorloss.training.trainer import Trainer
from tests.in_process import (
    SMALLER,
    counted_steps,
    data_of,
    execution,
    finish,
    settings,
    start,
    train_epoch_together,
)
from tests.simulated_cuda.device import simulated_cuda
from tests.training import test_cuda, textbook
from tests.training.test_cuda import CUDA, bits, train

# Rates that float32 holds exactly: a rate in a tensor and one in Python give the same bits.
EXACT = (
    "optim.schedule=step",
    "optim.lr=0.046875",
    "optim.decay_factor=2",
    "optim.epochs=4",
    "optim.decay_at=[0.5,0.75]",
)


@contextlib.contextmanager
def simulated():
    """The simulated device; afterwards nothing may have been found wrong on it."""
    with simulated_cuda() as gpu:
        yield gpu
        gc.collect()
    assert not gpu.errors, gpu.errors[:5]


def on_gpu(data):
    """The same data on the simulated device."""
    return DeviceData.of(data.dataset, CUDA)


def case_epochs() -> None:
    """Epochs with both warm-ups, two falls of the rate and a small last batch: bit for bit the CPU's."""
    (run,) = settings(
        *EXACT,
        *SMALLER,
        "loss=anchor_both",
        "seeds=[3]",
        "optim.lr_warmup_epochs=1",
        "optim.softmax_warmup_epochs=1",
        "optim.nesterov=true",
    )
    place = data_of(run)
    evaluation.BATCH = 40
    expected = train(Trainer(run, place), 4)
    with simulated() as gpu:
        data = on_gpu(place)
        trainer = Trainer(run, data)
        found = train(trainer, 4)
        # A graph for each of full and last batch, softmax and loss; nothing but replays trains.
        assert len(trainer._graphs) == 4
        assert gpu.log["replay"] == 4 * trainer.steps
        # On the run's own stream, or runs would wait for each other.
        assert {graph._last_replay[0] for graph in trainer._graphs.values()} == {trainer.stream.number}
        del trainer
    assert found == expected


def case_losses() -> None:
    """Losses in bf16, bit for bit the CPU's; a step that is captured neither waits nor copies."""
    for loss in ("bce", "anchor_both", "softmax"):
        (run,) = settings(*EXACT, *SMALLER, f"loss={loss}", "seeds=[0]", "precision=bf16")
        place = data_of(run)
        expected = train(Trainer(run, place), 2)
        with simulated() as gpu:
            data = on_gpu(place)
            trainer = Trainer(run, data)
            found = train(trainer, 2)
            trainer.start_epoch(2)
            before = Counter(gpu.log)
            for _ in range(trainer.steps):
                trainer.train_step()
            assert Counter(gpu.log) - before == Counter(replay=trainer.steps)
            trainer.wait()
            graph = next(iter(trainer._graphs.values()))
            dtypes = {
                result.dtype
                for func, _, _, result, _ in graph.operators
                if func is torch.ops.aten.convolution.default
            }
            assert dtypes == {torch.bfloat16}
            assert not gpu.not_deterministic, gpu.not_deterministic
            del trainer, graph
        assert found == expected, loss


def case_textbook() -> None:
    """A run, stopped and resumed, against plain loops in float64."""
    with simulated(), tempfile.TemporaryDirectory() as results:
        textbook.check_a_run(CUDA, Path(results))


def case_together() -> None:
    """Runs that share the data, one ending while others train: each as alone, and no stream in another's memory."""
    runs = settings(*EXACT, *SMALLER, "loss=anchor_bg", "seeds=[0,1,2]")
    place = data_of(runs[0])
    expected = [train(Trainer(run, place), 3)[1] for run in runs[:2]]
    with simulated():
        data = on_gpu(place)
        trainers = [Trainer(run, data) for run in runs]
        for epoch in range(3):
            train_epoch_together(trainers, epoch)
            # An epoch may begin while steps of the last one are enqueued.
            for trainer in trainers if epoch else ():
                trainer.totals()
                evaluate(trainer.network, trainer.settings, data)
            if epoch == 1:
                # The last run ends; another starts in its place, and this one begins an epoch without waiting.
                trainers[-1].wait()
                del trainer, trainers[-1]
                trainers.append(Trainer(runs[2], data))
        for trainer, state in zip(trainers, expected, strict=False):
            assert bits(trainer) == state
        assert len({trainer.stream.number for trainer in trainers}) == 3
        for trainer in trainers:
            trainer.wait()
        del trainers, trainer


def case_failing() -> None:
    """A run that is lost while steps are enqueued leaves none on the device that still uses its memory."""
    (run,) = settings(*SMALLER, "loss=bce", "seeds=[0]")
    place = data_of(run)
    is_lost = False

    def require_claim() -> None:
        if is_lost:
            raise ClaimLostError("taken over")

    with simulated() as gpu, tempfile.TemporaryDirectory() as results, counted_steps() as steps:
        gpu.seconds_per_replay = 0.5
        data = on_gpu(place)
        training = train_run(run, Path(results), data, execution(), Logger(), require_claim)
        while not steps.count:
            next(training)
        assert any(stream.busy_until > gpu.seconds for stream in gpu.streams)
        is_lost = True
        with pytest.raises(ClaimLostError):
            training.close()
        assert not (Path(results) / checkpoint.NEWEST).exists()
        del training
        gc.collect()


def case_diverged() -> None:
    """A run whose loss is not finite, in a step or on the evaluation set, fails as on the CPU."""
    for overrides in (
        ("optim.lr=1e12", "optim.batch_size=10", "optim.evaluate_every=2"),
        ("optim.lr=1e30", "optim.batch_size=100"),
    ):
        (run,) = settings(*SMALLER, "loss=bce", "seeds=[0]", *overrides)
        data = data_of(run)
        with tempfile.TemporaryDirectory() as results:
            expected = finish(start(run, data, Path(results)))
        with simulated(), tempfile.TemporaryDirectory() as results:
            record = finish(start(run, on_gpu(data), Path(results)))
        assert record.status == expected.status == "failed"
        assert record.failure == expected.failure


def case_test_cuda() -> None:
    """The tests that wait for a GPU call the code as it is."""
    with simulated(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_cuda, "settings", lambda *overrides: settings(*SMALLER, *overrides))
        for loss, precision in (("anchor_both", "fp32"), ("bce", "bf16")):
            test_cuda.test_graphs_give_the_eager_steps_bits(loss, precision)
        test_cuda.test_runs_together_give_the_bits_of_each_alone()
        test_cuda.test_resumed_gives_the_uninterrupted_bits()
        test_cuda.test_the_first_epoch_agrees_with_the_cpus()
        test_cuda.test_a_run_gives_its_memory_back()
