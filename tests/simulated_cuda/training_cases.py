"""Cases of one run or a few, without the executor; each in a process of its own: see run.py."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import models
from anchorloss.errors import ClaimLostError, UserError
from anchorloss.loss import anchor_loss
from anchorloss.runs import checkpoint, weights
from anchorloss.runs.folder import PROGRESS, WEIGHTS, read_history, read_predictions, verify_files
from anchorloss.tracking import Logger
from anchorloss.training import evaluation as evaluation_module
from anchorloss.training import run as run_module
from anchorloss.training.build import build_loss
from anchorloss.training.device_data import DeviceData
from anchorloss.training.evaluation import evaluate, measure
from anchorloss.training.precision import EmulatedBf16, needs_emulation
from anchorloss.training.trainer import Trainer
from tests.conftest import ROOT
from tests.in_process import data_of, execution, finish, settings, start, train_epoch_together
from tests.simulated_cuda import small, textbook
from tests.simulated_cuda.common import (
    CUDA,
    EXACT,
    SMALL,
    assert_same_state,
    counted_steps,
    on_gpu,
    simulated,
    train,
)
from tests.simulated_cuda.device import NAME

LOSSES = ("bce", "anchor_target", "anchor_bg", "anchor_both", "softmax")


def case_epochs() -> None:
    """Epochs with both warm-ups, two falls of the rate and a small last batch: bit for bit the CPU's."""
    (run,) = settings(
        *EXACT,
        *SMALL,
        "loss=anchor_both",
        "seeds=[3]",
        "optim.lr_warmup_epochs=1",
        "optim.softmax_warmup_epochs=1",
        "optim.nesterov=true",
    )
    place = data_of(run)
    evaluation_module.BATCH = 40
    expected, state = train(Trainer(run, place), 4)
    with simulated() as gpu:
        data = on_gpu(place)
        trainer = Trainer(run, data)
        found, ours = train(trainer, 4)
        # A graph for each of full and last batch, softmax and loss; nothing but replays trains. Evaluation is
        # captured at its second time.
        assert len(trainer._graphs) == 4
        assert gpu.log["replay"] == 4 * trainer.steps
        # On the run's own stream, or runs would wait for each other.
        assert {graph._last_replay[0] for graph in trainer._graphs.values()} == {trainer.stream.number}
        del trainer
    assert found == expected
    assert_same_state(ours, state)


def case_losses() -> None:
    """Every loss in bf16, bit for bit the CPU's; a step that is captured neither waits nor copies."""
    for loss in LOSSES:
        (run,) = settings(*EXACT, *SMALL, f"loss={loss}", "seeds=[0]", "precision=bf16")
        place = data_of(run)
        expected, state = train(Trainer(run, place), 2)
        with simulated() as gpu:
            data = on_gpu(place)
            trainer = Trainer(run, data)
            replay_only = []
            step = trainer.train_step

            def watched(trainer=trainer, step=step, gpu=gpu, replay_only=replay_only):
                before, graphs = Counter(gpu.log), len(trainer._graphs)
                step()
                if len(trainer._graphs) == graphs:
                    replay_only.append(Counter(gpu.log) - before == Counter(replay=1))

            trainer.train_step = watched
            found, ours = train(trainer, 2)
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


def case_autocast() -> None:
    """An epoch of a ResNet in bf16 against a plain loop under autocast, which casts each weight by itself."""
    (run,) = settings(
        "data.training_images=100",
        "data.test_images=100",
        "optim.batch_size=40",
        "optim.lr=0.015625",
        "optim.schedule=step",
        "optim.decay_at=[]",
        "optim.lr_warmup_epochs=0",
        "loss=anchor_both",
        "model.shortcut=B",
        "precision=bf16",
        "seeds=[5]",
    )
    place = data_of(run)
    with simulated():
        data = on_gpu(place)
        trainer = Trainer(run, data)
        found, state = train(trainer, 1)
        del trainer
    torch.manual_seed(5)
    network = models.build("resnet8", 100, "B", prior_bias=True)
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1, momentum=0.9, weight_decay=1e-4)

    def forward(images):
        emulation = EmulatedBf16() if needs_emulation(images.device) else None
        with (
            torch.autocast("cpu", torch.bfloat16, cache_enabled=False),
            emulation or contextlib.nullcontext(),
        ):
            return network(images.to(torch.bfloat16).to(memory_format=torch.channels_last)).float()

    def loss(logits, target):
        assert logits.dtype == torch.float32
        return anchor_loss(logits, target, **run.loss.arguments)

    (epoch,) = textbook.train(
        network, optimizer, place.dataset, 5, 40, [[0.015625] * 3], [loss], forward=forward
    )
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            textbook.assert_near(state["network"][name], value, initial[name], 2e-3, name)
    totals, _, _, _, test_loss, _, _ = found[0]
    assert totals.train_loss == pytest.approx(epoch.train_loss, rel=1e-6)
    expected = anchor_loss(epoch.logits, place.dataset.evaluation_labels, **run.loss.arguments)
    assert test_loss == pytest.approx(float(expected), rel=1e-3)


def case_textbook() -> None:
    """A run that is stopped four times and resumed, from its record to its weights, against plain loops in float64."""
    (run,) = settings(
        *SMALL,
        "optim.lr=0.2",
        "optim.epochs=4",
        "optim.schedule=step",
        "optim.decay_at=[0.5,0.75]",
        "optim.decay_factor=4",
        "optim.lr_warmup_epochs=1.5",
        "optim.softmax_warmup_epochs=1",
        "optim.momentum=0.8",
        "optim.nesterov=true",
        "optim.weight_decay=0.02",
        "optim.evaluate_every=3",
        "loss=anchor_bg",
        f"seeds=[{TEXTBOOK_SEED}]",
    )
    place = data_of(run)
    data, target = place.dataset, place.dataset.evaluation_labels
    rates = [
        [0.2 * min(1, (3 * epoch + step + 1) / 4.5) / fall for step in range(3)]
        for epoch, fall in enumerate((1, 1, 4, 16))
    ]

    def own_loss(logits, target):
        return anchor_loss(logits, target, **run.loss.arguments)

    torch.manual_seed(TEXTBOOK_SEED)
    network = small.Small(100)
    torch.nn.init.constant_(network.classifier.bias, -np.log(99))
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    network.double()
    optimizer = torch.optim.SGD(network.parameters(), lr=1, momentum=0.8, nesterov=True, weight_decay=0.02)
    expected = list(
        textbook.train(network, optimizer, data, TEXTBOOK_SEED, 40, rates, [F.cross_entropy, *[own_loss] * 3])
    )

    evaluation_module.BATCH = 40
    with tempfile.TemporaryDirectory() as results:
        with simulated(), counted_steps() as steps, pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_module, "STEPS_AHEAD", 1)
            on_device = DeviceData.of(data, CUDA)
            # After the first and second step, within the second epoch and within the third.
            for stop in (1, 2, 5, 8):
                training = start(run, on_device, Path(results), keep_weights=True)
                while steps.count < stop:
                    next(training)
                assert steps.count == stop
                training.close()
            record = finish(start(run, on_device, Path(results), keep_weights=True))
            assert steps.count == 4 * 3
        folder = Path(results) / "runs" / run.experiment / run.run
        verify_files(folder, record)
        rows = read_history(folder).to_dict("records")
        predictions = read_predictions(folder)
        kept = small.Small(100)
        weights.load_into(kept, (folder / WEIGHTS).read_bytes(), folder)
        assert not (folder / checkpoint.NEWEST).exists()
        assert not (folder / PROGRESS).exists()

    assert len(rows) == 4
    top1s = {}
    for number, (row, epoch) in enumerate(zip(rows, expected, strict=True), 1):
        assert row["epoch"] == number
        assert row["learning_rate"] == pytest.approx(rates[number - 1][-1])
        assert row["train_loss"] == pytest.approx(epoch.train_loss, rel=1e-5)
        assert row["train_top1"] == epoch.train_correct
        if number < 3:
            assert np.isnan([row["test_loss"], row["top1"], row["top5"]]).all()
            continue
        rank = textbook.ranks(epoch.logits, target)
        assert (row["top1"], row["top5"]) == ((rank == 0).sum(), (rank < 5).sum())
        assert row["test_loss"] == pytest.approx(float(own_loss(epoch.logits, target)), rel=1e-5)
        # Eq. 1 at (ii): a background is scaled by (1 + q - q*)^gamma, the target not at all.
        scores = epoch.logits.sigmoid()
        others = torch.ones_like(scores, dtype=torch.bool).scatter_(1, target[:, None], False)
        factor = (1 + scores - scores.gather(1, target[:, None])) ** run.loss.arguments["gamma"]
        assert row["target_factor_q50"] == row["target_factor_q90"] == 1
        for quantile in (50, 90, 99):
            value = np.quantile(factor[others].numpy(), quantile / 100)
            assert row[f"background_factor_q{quantile}"] == pytest.approx(value, rel=1e-4)
        top1s[number] = row["top1"], row["top5"]
    # So that the best epoch is told from the last.
    assert top1s[3][0] > top1s[4][0]
    assert (record.best.epoch, record.best.top1, record.best.top5) == (3, *top1s[3])
    assert (record.status, record.seed, record.epochs) == ("finished", TEXTBOOK_SEED, 4)
    assert (record.top1, record.top5, record.test_loss) == (*top1s[4], rows[3]["test_loss"])
    assert (record.data.training_images, record.data.evaluation_images) == (100, 100)
    assert (record.provenance.device, record.provenance.resumed) == (NAME, 4)
    assert (record.provenance.threads, record.provenance.precision) == (None, "fp32")
    rank, scores = textbook.ranks(expected[3].logits, target), expected[3].logits.sigmoid()
    assert (predictions.target == target.numpy()).all()
    assert (predictions.predicted == expected[3].logits.argmax(1).numpy()).all()
    # Two scores so near that float32 swaps them are possible, not many.
    assert (predictions.target_rank != rank).sum() <= 2
    assert np.abs(predictions.confidence - scores.amax(1).numpy()).max() < 1e-3
    for name, value in network.state_dict().items():
        textbook.assert_near(kept.state_dict()[name], value, initial[name], 1e-3, name)


TEXTBOOK_SEED = 1


def case_measure() -> None:
    """What is measured at known logits, some of them equal or not a number, against sorting by NumPy."""
    generator = torch.Generator().manual_seed(0)
    # Steps of a quarter, so that scores tie.
    logits = (torch.randn(200, 100, generator=generator) * 4).round() / 4
    target = torch.randint(0, 100, (200,), generator=generator)
    logits[:20].scatter_add_(1, target[:20, None], torch.full((20, 1), 9.0))
    for name in LOSSES:
        (run,) = settings(*SMALL, f"loss={name}")
        loss = build_loss(run.loss)
        with simulated():
            found = measure(logits.to(CUDA), loss, target.to(CUDA))
        rank = textbook.ranks(logits, target)
        assert (found.top1, found.top5) == ((rank == 0).mean() * 100, (rank < 5).mean() * 100)
        assert 10 <= found.top1 < found.top5
        assert (found.target_rank == rank).all()
        assert (found.predicted == logits.argmax(1).numpy()).all()
        assert (found.target == target.numpy()).all()
        scores = logits.double().softmax(1) if name == "softmax" else logits.double().sigmoid()
        assert np.allclose(found.confidence, scores.amax(1).numpy(), atol=1e-6)
        if name == "softmax":
            expected = F.cross_entropy(logits.double(), target)
        else:
            expected = anchor_loss(logits.double(), target, **run.loss.arguments)
        assert found.loss == pytest.approx(float(expected), rel=1e-6)
        assert_factors(found.factors, logits.double().sigmoid(), target, run.loss.arguments)
    logits[0, target[0]] = torch.nan
    with simulated():
        found = measure(logits.to(CUDA), loss, target.to(CUDA))
    assert found.target_rank[0] == 99


def assert_factors(factors, scores, target, arguments) -> None:
    """The quantiles are those of the factors of Eq. 1, by anchor as Eq. 2 to 4 have it."""
    anchor, gamma = arguments.get("anchor", "none"), arguments.get("gamma", 0)
    if anchor == "none":
        assert factors == {}
        return
    is_target = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, target[:, None], True)
    highest_other = scores.masked_fill(is_target, 0).amax(1)
    own = scores[is_target]
    of_target = (1 - own + highest_other) ** (gamma if anchor in ("target", "both") else 0)
    of_background = (1 + scores - own[:, None]) ** (gamma if anchor in ("background", "both") else 0)
    expected = {f"target_factor_q{q}": np.quantile(of_target.numpy(), q / 100) for q in (50, 90)}
    for q in (50, 90, 99):
        expected[f"background_factor_q{q}"] = np.quantile(of_background[~is_target].numpy(), q / 100)
    assert factors == pytest.approx(expected, rel=1e-5)


def case_resume() -> None:
    """Stopped within an epoch and continued by another trainer: the uninterrupted run's bits."""
    (run,) = settings(*EXACT, *SMALL, "loss=anchor_target", "seeds=[5]")
    place = data_of(run)
    with simulated():
        data = on_gpu(place)
        whole, first = Trainer(run, data), Trainer(run, data)
        for trainer in (whole, first):
            for epoch in range(2):
                trainer.start_epoch(epoch)
                for _ in range(trainer.steps if trainer is whole or epoch == 0 else 2):
                    trainer.train_step()
        second = Trainer(run, data)
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
        for name in ("network", "totals"):
            broken = {**second.state(), name: {"another": torch.zeros(())}}
            with pytest.raises(ValueError, match="other tensors"):
                first.restore(broken, 1)
        shapes = {name: torch.zeros(()) for name in second.state()["network"]}
        with pytest.raises(ValueError, match="another shape"):
            first.restore({**second.state(), "network": shapes}, 1)
        first.wait()
        del whole, first, second, trainer


def case_rates() -> None:
    """The rate of each step on the device: half a cosine by epoch, times a rise over the first epoch and a half."""
    (run,) = settings(
        *SMALL, "optim.lr=0.4", "optim.epochs=4", "optim.schedule=cosine", "optim.lr_warmup_epochs=1.5"
    )
    place = data_of(run)
    with simulated():
        data = on_gpu(place)
        trainer = Trainer(run, data)
        for epoch in range(4):
            trainer.start_epoch(epoch)
            for step in range(3):
                trainer.train_step()
                trainer.wait()
                expected = 0.2 * (1 + np.cos(np.pi * epoch / 4)) * min(1, (3 * epoch + step + 1) / 4.5)
                assert float(trainer.optimizer.param_groups[0]["lr"]) == pytest.approx(expected, rel=1e-6)
                assert trainer.current_learning_rate == pytest.approx(expected)
        del trainer


def case_together() -> None:
    """Runs that share the data, one ending while others train: each as alone, and no stream in another's memory."""
    runs = settings(*EXACT, *SMALL, "loss=anchor_bg", "seeds=[0,1,2]")
    place = data_of(runs[0])
    expected = [train(Trainer(run, place), 3)[1] for run in runs[:2]]
    with simulated():
        data = on_gpu(place)
        trainers = [Trainer(run, data) for run in runs]
        for epoch in range(3):
            train_epoch_together(trainers, epoch)
            for trainer in trainers:
                trainer.totals()
                evaluate(trainer.network, trainer.loss, data, trainer.settings.precision)
            if epoch == 1:
                # The last run ends; another starts in its place, and this one begins an epoch without waiting.
                trainers[-1].wait()
                del trainer, trainers[-1]
                trainers.append(Trainer(runs[2], data))
        for trainer, state in zip(trainers, expected, strict=False):
            assert_same_state(trainer.state(), state)
        assert len({trainer.stream.number for trainer in trainers}) == 3
        for trainer in trainers:
            trainer.wait()
        del trainers, trainer


def case_benchmark() -> None:
    """The benchmark's loop of several runs, which begins an epoch without waiting for the last one."""
    with simulated(), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import bench

        patch.setattr(bench, "BATCH", 8)
        step = bench.ours(bench.Loop("ours", "resnet8", CUDA, runs=2, images=20))
        for _ in range(5):
            trainers = step()
        # Only full batches are measured: an epoch of 20 images has two.
        assert [(trainer.epoch, trainer.step_in_epoch) for trainer in trainers] == [(3, 1), (3, 1)]
        for trainer in trainers:
            trainer.wait()
        del step, trainers, trainer


def case_failing() -> None:
    """A run that is lost while steps are enqueued leaves none on the device that still uses its memory."""
    (run,) = settings(*SMALL, "loss=bce", "seeds=[0]")
    place = data_of(run)
    is_lost = False

    def require_claim() -> None:
        if is_lost:
            raise ClaimLostError("taken over")

    with simulated() as gpu, tempfile.TemporaryDirectory() as results, counted_steps() as steps:
        gpu.seconds_per_replay = 0.5
        data = DeviceData.of(place.dataset, CUDA)
        training = run_module.train(run, Path(results), data, execution(), Logger(), require_claim)
        while not steps.count:
            next(training)
        assert any(stream.busy_until > gpu.seconds for stream in gpu.streams)
        is_lost = True
        with pytest.raises(ClaimLostError):
            training.close()
        assert not (Path(results) / checkpoint.NEWEST).exists()
        del training
        gc.collect()


def case_test_cuda() -> None:
    """The tests that wait for a GPU call the code as it is."""
    with simulated(), pytest.MonkeyPatch.context() as patch:
        from tests.training import test_cuda

        patch.setattr(test_cuda, "settings", lambda *overrides: settings(*SMALL, *overrides))
        for loss, precision in (("anchor_both", "fp32"), ("bce", "bf16")):
            test_cuda.test_graphs_give_the_eager_steps_bits(loss, precision)
        test_cuda.test_runs_together_give_the_bits_of_each_alone()
        test_cuda.test_resumed_gives_the_uninterrupted_bits()
        test_cuda.test_the_first_epoch_agrees_with_the_cpus()
        test_cuda.test_a_run_gives_its_memory_back()


def case_capture_refused() -> None:
    """Where torch's deterministic algorithms cannot be captured, the user reads which setting to change."""
    (run,) = settings(*SMALL, "loss=bce", "seeds=[0]")
    place = data_of(run)
    with simulated() as gpu, pytest.MonkeyPatch.context() as patch:
        data = on_gpu(place)
        trainer = Trainer(run, data)
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
    """A run whose loss is not finite is recorded as failed at the step where it was, or at the evaluation."""
    # The first epoch is not evaluated, so that its own loss must end the run.
    (run,) = settings(
        *SMALL, "loss=bce", "optim.lr=1e12", "optim.batch_size=10", "optim.evaluate_every=2", "seeds=[0]"
    )
    place = data_of(run)
    with tempfile.TemporaryDirectory() as results:
        expected = finish(start(run, place, Path(results)))
    with simulated(), tempfile.TemporaryDirectory() as results:
        data = DeviceData.of(place.dataset, CUDA)
        record = finish(start(run, data, Path(results)))
    assert record.status == expected.status == "failed"
    assert record.failure == expected.failure
    # By hand: the first step that is not finite, and the loss of the one before.
    trainer = Trainer(run, place)
    trainer.start_epoch(0)
    sums = [0.0]
    while np.isfinite(sums[-1]):
        trainer.train_step()
        sums.append(float(trainer._totals["loss"]))
    assert len(sums) >= 4
    assert (record.failure.epoch, record.failure.step) == (1, len(sums) - 2)
    assert record.failure.reason == "non-finite loss"
    assert record.failure.last_finite_loss == pytest.approx((sums[-2] - sums[-3]) / 10, rel=1e-5)

    (run,) = settings(*SMALL, "loss=bce", "optim.lr=1e30", "optim.batch_size=100", "seeds=[0]")
    with simulated(), tempfile.TemporaryDirectory() as results:
        data = DeviceData.of(place.dataset, CUDA)
        record = finish(start(run, data, Path(results)))
    # The only step of the epoch had a finite loss; the weights that it left have none.
    assert (record.status, record.failure.epoch, record.failure.step) == ("failed", 1, -1)
    assert record.failure.reason == "non-finite loss on the evaluation set"
    trainer = Trainer(run, place)
    trainer.start_epoch(0)
    trainer.train_step()
    assert record.failure.last_finite_loss == pytest.approx(trainer.totals().train_loss, rel=1e-6)
