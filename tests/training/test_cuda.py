"""The CUDA path on a real GPU, bit for bit where torch's deterministic algorithms are on: `make test-cuda`."""

from __future__ import annotations

import gc
import os

import pytest
import torch
from torch.utils._pytree import tree_leaves

from anchorloss.training.device_data import DeviceData
from anchorloss.training.evaluation import measure, predict
from anchorloss.training.trainer import Trainer
from tests.in_process import data_of, settings, train_epoch_together

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device, and make test-cuda"
)
LOSSES = ("bce", "anchor_target", "anchor_bg", "anchor_both", "softmax")
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _settings_of_the_process():
    """Each test sets what it needs; `data_of` a CPU run turns determinism on."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    gc.collect()
    torch.cuda.empty_cache()


def make(run, *, deterministic=True, eager=False, compile=False):
    """A trainer of the run on the GPU."""
    data = data_of(run)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = False
    trainer = Trainer(run, DeviceData.of(data.dataset, CUDA), compile=compile)
    if eager:
        trainer.stream = None
    return trainer


def train(trainer, epochs=2):
    """What each epoch reports (its totals, loss, Top-1, factors and predictions), and the bits of the state after it."""
    rows = []
    for epoch in range(epochs):
        trainer.start_epoch(epoch)
        for _ in range(trainer.steps):
            trainer.train_step()
        totals = trainer.totals()
        logits = predict(trainer.network, trainer.data, trainer.settings.precision, trainer.stream)
        found = measure(logits, trainer.data.evaluation_labels, trainer.settings.loss, trainer.loss)
        rows.append((totals, found.loss, found.top1, found.factors, found.to_bytes()))
    return rows, bits(trainer)


def bits(trainer):
    """The trainer's state as bytes, which are equal where both are not a number."""
    leaves = tree_leaves(trainer.state())
    return [leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("loss", LOSSES)
def test_graphs_give_the_eager_steps_bits(loss, precision):
    (run,) = settings(f"loss={loss}", f"precision={precision}", "optim.softmax_warmup_epochs=1", "seeds=[1]")
    assert train(make(run)) == train(make(run, eager=True))


def test_runs_together_give_the_bits_of_each_alone():
    runs = settings("loss=anchor_bg", "precision=bf16", "seeds=[0,1,2,3]")
    alone = [train(make(run))[1] for run in runs]
    trainers = [make(run) for run in runs]
    for epoch in range(2):
        train_epoch_together(trainers, epoch)
    assert [bits(trainer) for trainer in trainers] == alone


def test_resumed_gives_the_uninterrupted_bits():
    (run,) = settings("loss=anchor_target", "precision=bf16", "seeds=[0]")
    whole, first, second = (make(run) for _ in range(3))
    whole.start_epoch(0)
    first.start_epoch(0)
    for _ in range(whole.steps):
        whole.train_step()
    for _ in range(3):
        first.train_step()
    second.restore(first.state(), 0)
    while second.step_in_epoch < second.steps:
        second.train_step()
    assert bits(second) == bits(whole)


def test_the_first_epoch_agrees_with_the_cpus():
    (run,) = settings("loss=anchor_both", "seeds=[2]", "optim.lr=0.001")
    expected = train(Trainer(run, data_of(run)), epochs=1)[0][0]
    found = train(make(run, deterministic=False), epochs=1)[0][0]
    assert found[0].train_loss == pytest.approx(expected[0].train_loss, rel=1e-4)
    assert found[1] == pytest.approx(expected[1], rel=1e-3)


def test_a_run_gives_its_memory_back():
    (run,) = settings("loss=bce", "precision=bf16", "seeds=[0]")
    held = []
    for _ in range(3):
        train(make(run, deterministic=False), epochs=1)
        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()  # one a stream, kept for the next run on it
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved())
    assert held[2] <= held[1]


def test_compiled_inside_the_graph_trains():
    (run,) = settings("loss=anchor_bg", "precision=bf16", "seeds=[0]", "optim.lr=0.001")
    compiled, eager = (train(make(run, deterministic=False, compile=compile))[0] for compile in (True, False))
    assert compiled[-1][0].train_loss == pytest.approx(eager[-1][0].train_loss, rel=2e-2)
