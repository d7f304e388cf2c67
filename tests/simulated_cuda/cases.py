"""What is run on the simulated device, each case in a process of its own: see run.py."""

from __future__ import annotations

import contextlib
import gc
import io
import runpy
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import models
from anchorloss.benchmark import ladder
from anchorloss.data import augmentation
from anchorloss.errors import RunError, UserError
from anchorloss.loss import anchor_loss
from anchorloss.runs import checkpoint, store
from anchorloss.sweep import executor
from anchorloss.training import evaluation as evaluation_module
from anchorloss.training import loop
from anchorloss.training.context import RunContext
from anchorloss.training.evaluation import EvaluationImages, Prediction, evaluate, measure
from anchorloss.training.trainer import Trainer, TrainingImages
from tests.conftest import ROOT
from tests.conftest import SMALL as TEST_SETTINGS
from tests.in_process import context_of, finish, settings, start
from tests.simulated_cuda.device import NAME, simulated_cuda

CUDA = torch.device("cuda")
SMALL = ("data.training_images=100", "data.test_images=100", "optim.batch_size=40")
# Rates that float32 holds exactly: a rate in a tensor and one in Python give the same bits.
EXACT = (
    "optim.schedule=step",
    "optim.lr=0.03125",
    "optim.decay_factor=2",
    "optim.epochs=4",
    "optim.decay_at=[0.5,0.75]",
    "optim.lr_warmup_epochs=0",
)
LOSSES = ("bce", "anchor_target", "anchor_bg", "anchor_both", "softmax")


@contextlib.contextmanager
def simulated():
    """The simulated device; afterwards nothing may have been found wrong on it."""
    with simulated_cuda() as gpu:
        yield gpu
        gc.collect()
    assert not gpu.errors, gpu.errors[:5]


def on_gpu(context):
    """The training and evaluation images of a context, on the simulated device."""
    return TrainingImages.of(context.dataset, CUDA), EvaluationImages.of(context.dataset, CUDA)


def train(trainer, evaluation, epochs):
    """What each epoch reports, and the state after the last."""
    rows = []
    predict = Prediction(trainer.network, evaluation, trainer.settings.precision, trainer.stream)
    for epoch in range(epochs):
        trainer.start_epoch(epoch)
        for _ in range(trainer.steps):
            trainer.train_step()
        totals, rate = trainer.totals(), trainer.current_learning_rate
        found = measure(predict(), trainer.loss, evaluation.labels)
        rows.append((totals, rate, found.top1, found.top5, found.loss, found.factors, found.predictions()))
    return rows, trainer.state()


def assert_same_state(ours, expected):
    for kind in ("network", "totals"):
        assert ours[kind].keys() == expected[kind].keys()
        for name, value in expected[kind].items():
            assert torch.equal(ours[kind][name], value), name
    for index, (buffer, value) in enumerate(zip(ours["momentum"], expected["momentum"], strict=True)):
        assert torch.equal(buffer, value), f"momentum {index}"


def case_epochs() -> None:
    """Four epochs with a softmax warm-up, two falls of the rate and a small last batch: bit for bit the CPU's."""
    (run,) = settings(
        *EXACT,
        *SMALL,
        "loss=anchor_both",
        "seeds=[3]",
        "optim.softmax_warmup_epochs=1",
        "optim.nesterov=true",
    )
    place = context_of(run)
    evaluation_module.BATCH = 40
    expected, state = train(Trainer(run, place.training, place.device), place.evaluation, 4)
    with simulated() as gpu:
        training, evaluation = on_gpu(place)
        trainer = Trainer(run, training, CUDA)
        found, ours = train(trainer, evaluation, 4)
        # A graph for each of full and last batch, softmax and loss; nothing but replays trains. Evaluation is
        # captured at its second time.
        assert len(trainer._graphs) == 4
        assert gpu.log["replay"] == 4 * trainer.steps + 3 * 3
        del trainer
    assert found == expected
    assert_same_state(ours, state)


def case_warm_up_of_the_rate() -> None:
    """A rate that rises step by step for an epoch and a half."""
    overrides = ("optim.lr=0.046875", "optim.epochs=2", "optim.lr_warmup_epochs=1", "optim.decay_at=[]")
    (run,) = settings(*SMALL, *overrides, "loss=bce", "seeds=[1]")
    place = context_of(run)
    expected, state = train(Trainer(run, place.training, place.device), place.evaluation, 2)
    with simulated():
        training, evaluation = on_gpu(place)
        found, ours = train(Trainer(run, training, CUDA), evaluation, 2)
    assert found == expected
    assert_same_state(ours, state)


def case_losses() -> None:
    """Every loss in bf16, bit for bit the CPU's; a step that is captured neither waits nor copies."""
    for loss in LOSSES:
        (run,) = settings(*EXACT, *SMALL, f"loss={loss}", "seeds=[0]", "precision=bf16", "model.shortcut=B")
        place = context_of(run)
        expected, state = train(Trainer(run, place.training, place.device), place.evaluation, 2)
        with simulated() as gpu:
            training, evaluation = on_gpu(place)
            trainer = Trainer(run, training, CUDA)
            replay_only = []
            step = trainer.train_step

            def watched(trainer=trainer, step=step, gpu=gpu, replay_only=replay_only):
                before, graphs = Counter(gpu.log), len(trainer._graphs)
                step()
                if len(trainer._graphs) == graphs:
                    replay_only.append(Counter(gpu.log) - before == Counter(replay=1))

            trainer.train_step = watched
            found, ours = train(trainer, evaluation, 2)
            assert len(replay_only) == 4
            assert all(replay_only), gpu.log
            graph = next(iter(trainer._graphs.values()))
            dtypes = {
                result.dtype
                for func, _, _, result, _ in graph.operators
                if func is torch.ops.aten.convolution.default
            }
            assert dtypes == {torch.bfloat16}
            assert not gpu.not_deterministic, gpu.not_deterministic
            del trainer, step, watched, graph
        assert found == expected, loss
        assert_same_state(ours, state)


# CUDA kernels of an operator that launches more or fewer than one. Estimates, as PyTorch and cuDNN launch them.
KERNELS = {
    "convolution_backward": 3,
    "native_batch_norm": 4,
    "native_batch_norm_backward": 3,
    "avg_pool2d_backward": 2,
    "constant_pad_nd": 2,
    "_fused_sgd_": 7,
    # 64 pairs of tensors a launch
    "_foreach_copy_": 2,
    **dict.fromkeys(
        (
            *("alias", "as_strided", "detach", "empty", "empty_like", "empty_strided", "expand", "permute"),
            *("select", "slice", "squeeze", "t", "unfold", "unsqueeze", "view", "_unsafe_view"),
        ),
        0,
    ),
}
# ResNet-110 at batch 128. BCE: 1,930 kernels before weights were cast together and batches no longer counted.
MOST_KERNELS = {("bce", "bf16"): 1620, ("anchor_both", "bf16"): 1650}


def case_step_count() -> None:
    """How many kernels a step of ResNet-110 launches: it is bound by their number."""
    for (loss, precision), most in MOST_KERNELS.items():
        (run,) = settings("model=resnet110", f"loss={loss}", f"precision={precision}")
        with simulated_cuda("meta") as gpu:
            images = torch.zeros(300, 3, 32, 32, dtype=torch.uint8)
            padded = augmentation.pad_images(images).to(CUDA)
            mean = std = (0.5, 0.5, 0.5)
            training = TrainingImages(padded, torch.zeros(300, dtype=torch.int64).to(CUDA), mean, std, 100)
            trainer = Trainer(run, training, CUDA)
            trainer.start_epoch(0)
            gpu.counts.clear()
            trainer.step(128, False)
            augmentation._scale_and_shift.cache_clear()
        kernels = sum(
            count * KERNELS.get(name.removeprefix("aten::"), 1) for name, count in gpu.counts.items()
        )
        print(f"{loss}, {precision}: {sum(gpu.counts.values())} operators, {kernels} kernels")
        assert gpu.counts["aten::convolution"] == 109
        assert kernels <= most, (loss, precision, kernels)


def case_textbook() -> None:
    """Two epochs and their evaluations against plain loops in float64."""
    (run,) = settings(
        *SMALL,
        "optim.lr=0.01",
        "optim.epochs=2",
        "optim.schedule=step",
        "optim.decay_at=[0.5]",
        "optim.decay_factor=10",
        "optim.lr_warmup_epochs=0",
        "optim.softmax_warmup_epochs=1",
        "loss=anchor_bg",
        "seeds=[7]",
    )
    place = context_of(run)
    with simulated():
        training, evaluation = on_gpu(place)
        trainer = Trainer(run, training, CUDA)
        found, state = train(trainer, evaluation, 2)
        del trainer

    data = place.dataset
    mean, std = (torch.tensor(value, dtype=torch.float64).view(3, 1, 1) for value in (data.mean, data.std))
    torch.manual_seed(7)
    network = models.build("resnet8", 100, prior_bias=True).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for epoch in range(2):
        plan = augmentation.plan_epoch(7, epoch, 100)
        total, correct = 0.0, 0
        optimizer.param_groups[0]["lr"] = (0.01, 0.001)[epoch]
        for first in range(0, 100, 40):
            images, labels = [], []
            for at in range(first, min(first + 40, 100)):
                index, row, column = plan.order[at], plan.rows[at], plan.columns[at]
                image = torch.nn.functional.pad(data.train_images[index], (4, 4, 4, 4))
                image = image[:, row : row + 32, column : column + 32]
                images.append((image.flip(2) if plan.flip[at] else image).double() / 255)
                labels.append(data.train_labels[index])
            target = torch.stack(labels)
            logits = network((torch.stack(images) - mean) / std)
            if epoch == 0:
                loss = torch.nn.functional.cross_entropy(logits, target)
            else:
                loss = anchor_loss(logits, target, **run.loss.arguments)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(target)
            correct += int((logits.argmax(1) == target).sum())
        network.eval()
        with torch.no_grad():
            logits = network((data.evaluation_images.double() / 255 - mean) / std)
        network.train()
        target = data.evaluation_labels
        scores = logits.sigmoid()
        rank = (logits > logits.gather(1, target[:, None])).sum(1)
        totals, rate, top1, top5, test_loss, factors, predictions = found[epoch]
        assert rate == pytest.approx((0.01, 0.001)[epoch])
        assert totals.train_loss == pytest.approx(total / 100, rel=1e-3)
        # An image of 100 may change sides by rounding.
        assert totals.train_top1 == pytest.approx(correct, abs=1.01)
        assert top1 == pytest.approx(int((rank == 0).sum()), abs=1.01)
        assert top5 == pytest.approx(int((rank < 5).sum()), abs=1.01)
        expected_loss = float(anchor_loss(logits, target, **run.loss.arguments))
        assert test_loss == pytest.approx(expected_loss, rel=1e-3)
        with np.load(io.BytesIO(predictions)) as file:
            assert (file["target"] == target.numpy()).all()
            assert (file["predicted"] == logits.argmax(1).numpy()).mean() > 0.95
            assert np.abs(file["target_rank"] - rank.numpy()).mean() < 1
            assert np.abs(file["confidence"] - scores.amax(1).numpy()).max() < 0.01
        # Eq. 1 at (ii): a background is scaled by (1 + q - q*)^gamma, the target not at all.
        others = torch.ones_like(scores, dtype=torch.bool).scatter_(1, target[:, None], False)
        gamma = run.loss.arguments["gamma"]
        factor = (1 + scores - scores.gather(1, target[:, None])) ** gamma
        assert factors["target_factor_q50"] == 1
        for quantile in (50, 90, 99):
            expected = np.quantile(factor[others].numpy(), quantile / 100)
            assert factors[f"background_factor_q{quantile}"] == pytest.approx(expected, rel=1e-2)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(state["network"][name].double(), parameter.data, rtol=1e-2, atol=1e-3)


def case_resume() -> None:
    """Stopped within an epoch and continued by another trainer: the uninterrupted run's bits."""
    (run,) = settings(*EXACT, *SMALL, "loss=anchor_target", "seeds=[5]")
    place = context_of(run)
    with simulated():
        training, _ = on_gpu(place)
        whole, first = Trainer(run, training, CUDA), Trainer(run, training, CUDA)
        for trainer in (whole, first):
            for epoch in range(2):
                trainer.start_epoch(epoch)
                for _ in range(trainer.steps if trainer is whole or epoch == 0 else 2):
                    trainer.train_step()
        second = Trainer(run, training, CUDA)
        # As a checkpoint has it: not the memory of the run that goes on.
        state = {
            kind: {name: value.clone() for name, value in values.items()}
            for kind, values in first.state().items()
            if kind in ("network", "totals")
        }
        momentum = [value.clone() for value in first.state()["momentum"]]
        first.train_step()
        second.restore({**state, "momentum": momentum, "step_in_epoch": 2}, 1)
        while second.step_in_epoch < second.steps:
            second.train_step()
        assert second.totals() == whole.totals()
        assert_same_state(second.state(), whole.state())
        first.wait()
        del whole, first, second, trainer


def case_together() -> None:
    """Runs that share the data, one ending while others train: each as alone, and no stream in another's memory."""
    runs = settings(*EXACT, *SMALL, "loss=anchor_bg", "seeds=[0,1,2]")
    place = context_of(runs[0])
    expected = train(Trainer(runs[0], place.training, place.device), place.evaluation, 3)[1]
    with simulated():
        training, evaluation = on_gpu(place)
        trainers = [Trainer(run, training, CUDA) for run in runs]
        for epoch in range(3):
            for trainer in trainers:
                trainer.start_epoch(epoch)
            for _ in range(trainers[0].steps):
                for trainer in trainers:
                    trainer.train_step()
            for trainer in trainers:
                trainer.totals()
                evaluate(trainer.network, trainer.loss, evaluation, trainer.settings.precision)
            if epoch == 1:
                # The last run ends; another starts in its place, and this one begins an epoch without waiting.
                trainers[-1].wait()
                del trainer, trainers[-1]
                trainers.append(Trainer(runs[2], training, CUDA))
        assert_same_state(trainers[0].state(), expected)
        for trainer in trainers:
            trainer.wait()
        del trainers, trainer


def case_benchmark() -> None:
    """The ladder's loop of several runs, which begins an epoch without waiting for the last one."""
    for name in ("cuda", "cuda:0"):
        with simulated(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(ladder, "IMAGES", 70)
            variant = ladder.Variant("ours", "resnet8", 16, name, trainer=True, bf16=True, runs=2)
            trained = ladder.build_loop(variant)
            trained.steps(9)
            assert [trainer.epoch for trainer in trained._trainers] == [2, 2]
            del trained
    with simulated(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "IMAGES", 70)
        partial = ladder.build_loop(
            ladder.Variant("partial", "resnet8", 16, "cuda", in_memory=True, bf16=True)
        )
        partial.steps(2)
        assert partial.total_loss > 0
        del partial


def case_failing() -> None:
    """A run that ends with an error leaves no step on the device that still uses its memory."""

    read_state = Trainer.state

    def full(*_):
        raise RunError("no space left")

    (run,) = settings(*SMALL, "loss=bce", "seeds=[0]")
    place = context_of(run)
    with (
        simulated() as gpu,
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as results,
    ):
        context = RunContext.of(place.dataset, CUDA, compile=False, checkpoint_seconds=0)
        patch.setattr(loop.checkpoint, "save", full)
        # The state is read before it is saved, and that waits: here the error comes first.
        patch.setattr(Trainer, "state", lambda self: {} if gpu.log["replay"] else read_state(self))
        steps = start(run, context, Path(results))
        with pytest.raises(RunError):
            finish(steps)
        del steps
        gc.collect()


def case_capture_refused() -> None:
    """Where torch's deterministic algorithms cannot be captured, the user reads which setting to change."""
    (run,) = settings(*SMALL, "loss=bce", "seeds=[0]")
    place = context_of(run)
    with simulated() as gpu, pytest.MonkeyPatch.context() as patch:
        training, _ = on_gpu(place)
        trainer = Trainer(run, training, CUDA)
        trainer.start_epoch(0)
        patch.setattr(trainer, "loss", lambda logits, target: logits.mean() + gpu_copy())

        def gpu_copy():
            # As in the deterministic scatter of older versions.
            return torch.zeros(()).to(CUDA)

        with pytest.raises(UserError, match="deterministic=false"):
            trainer.train_step()
        assert gpu.capturing is None
        trainer.wait()
        del trainer


def case_diverged() -> None:
    """A run whose loss is not finite is recorded as failed at the step where the CPU's is."""
    (run,) = settings(*SMALL, "loss=bce", "optim.lr=1e30", "seeds=[0]")
    place = context_of(run)
    with tempfile.TemporaryDirectory() as results:
        expected = finish(start(run, place, Path(results)))
    with simulated(), tempfile.TemporaryDirectory() as results:
        context = RunContext.of(place.dataset, CUDA, compile=False, checkpoint_seconds=1e9)
        record = finish(start(run, context, Path(results)))
    assert record.status == expected.status == "failed"
    assert record.failure == expected.failure
    assert record.failure.epoch == 1
    assert record.failure.step in (1, 2)


@contextlib.contextmanager
def counted_steps():
    """Counts the steps that are trained, as `count`."""
    steps = SimpleNamespace(count=0)
    train_step = Trainer.train_step

    def counting(trainer):
        train_step(trainer)
        steps.count += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", counting)
        yield steps


class Command:
    """`train.py` in this process, with a sweep of two losses and two seeds, two runs at a time."""

    def __init__(self, folder: Path, device: str) -> None:
        self.results = folder / "results"
        self.arguments = [
            "-m",
            *TEST_SETTINGS,
            *EXACT,
            *SMALL,
            "optim.epochs=2",
            "loss=bce,anchor_bg",
            "seeds=[0,1]",
            "experiment.name=simulated",
            "concurrent=2",
            "checkpoint_seconds=0",
            f"device={device}",
            f"results_dir={self.results}",
        ]

    def __call__(self, *more: str) -> tuple[int, str]:
        """The exit status and what was printed."""
        printed = io.StringIO()
        before = sys.argv
        sys.argv = [str(ROOT / "train.py"), *self.arguments, *more]
        status = 0
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.argv = before
        return status, printed.getvalue()

    def records(self) -> dict[str, store.Record]:
        found = (store.read_record(folder) for folder in self.folders())
        return {record.run: record for record in found if record is not None}

    def folders(self) -> list[Path]:
        return sorted((self.results / "runs" / "simulated").iterdir())


def case_sweep() -> None:
    """`train.py device=cuda`: stopped by its budget, resumed, finished, skipped; the CPU's records."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        on_cpu = Command(Path(folder) / "cpu", "cpu")
        status, printed = on_cpu()
        assert status == 0, printed
        expected = on_cpu.records()
        assert len(expected) == 4

        command = Command(Path(folder) / "cuda", "cuda")
        with simulated(), counted_steps() as steps, pytest.MonkeyPatch.context() as patch:
            budget = 1

            def clock() -> float:
                return time.monotonic() + (1e6 if steps.count >= budget else 0)

            patch.setattr(executor, "time", SimpleNamespace(monotonic=clock))
            stops = 0
            status, printed = command("minutes=1000")
            assert status == 0, printed
            assert "stopped after minutes=1000 with 4 of 4 runs unfinished" in printed
            assert "same command again" in printed
            # Two runs had begun, and each saved where it stood; nobody holds them any more.
            begun = [each for each in command.folders() if (each / checkpoint.NEWEST).exists()]
            assert len(begun) == 2
            assert all((each / store.CONFIG).exists() for each in command.folders())
            assert not command.records()
            while len(command.records()) < 4:
                stops += 1
                budget = steps.count + 8
                status, printed = command("minutes=1000")
                assert status == 0, printed
                assert stops < 20
            assert stops >= 2
            found = command.records()
            assert {record.provenance.device for record in found.values()} == {NAME}
            assert sum(record.provenance.resumed for record in found.values()) >= 2
            # Each step was trained once.
            assert steps.count == 4 * 2 * 3

            status, printed = command()
            assert status == 0, printed
            assert printed.count("skipped") == 4
            assert steps.count == 4 * 2 * 3
        assert found.keys() == expected.keys()
        for name, record in expected.items():
            assert store.same_result(found[name], record), name
        for each in command.folders():
            assert not (each / checkpoint.NEWEST).exists()
            assert not (each / store.PROGRESS).exists()


def case_sweep_with_failures() -> None:
    """Runs that diverge give status 1 and are retried when asked to; those of another seed set are still trained."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        simulated(),
        counted_steps() as steps,
    ):
        command = Command(Path(folder), "cuda:0")
        command.arguments[command.arguments.index("seeds=[0,1]")] = "seeds=[0]"
        status, printed = command("optim.lr=1e30")
        assert status == 1, printed
        assert "2 of 2 runs failed" in printed
        failed = command.records()
        assert {record.status for record in failed.values()} == {"failed"}
        trained = steps.count
        status, printed = command("optim.lr=1e30")
        assert status == 1
        assert steps.count == trained
        status, printed = command("optim.lr=1e30", "--retry-failed")
        assert status == 1
        assert steps.count == 2 * trained
        assert all((each / "failed-1.json").exists() for each in command.folders())
        status, printed = command("optim.lr=1e30", "--retry-failed")
        assert all((each / "failed-2.json").exists() for each in command.folders())
        assert {name: record.failure for name, record in command.records().items()} == {
            name: record.failure for name, record in failed.items()
        }
