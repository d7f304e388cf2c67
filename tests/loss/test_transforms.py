"""The loss under autograd's other uses, torch.compile, torch.func, export, autocast, several processes; its memory."""

from __future__ import annotations

import ast
import gc
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

import anchorloss.loss
from anchorloss.loss import AnchorLoss, anchor_loss
from tests.loss.cases import ANCHORS, loss_and_gradient, sample

SOURCE = Path(anchorloss.loss.__file__)
WEIGHT, POS_WEIGHT = torch.tensor([0.5, 1, 2, 1, 0, 3]), torch.linspace(3, 1, 6)
# Arguments that change what is computed, by the kind of target.
CASES = {
    "index": {"slack": 0.05},
    "probabilities": {"weight": WEIGHT, "pos_weight": 2.0, "positive_threshold": 0.1},
    "smoothing": {"label_smoothing": 0.1, "pos_weight": POS_WEIGHT, "gamma_target": 2.0},
    "ignored": {"ignore_index": -1, "weight": WEIGHT, "pos_weight": POS_WEIGHT},
    "mask": {"mask": torch.arange(24).view(4, 6) % 4 > 0, "slack": 0.05},
    "dense": {"ignore_index": -1, "reduction": "sum"},
}


def case(name):
    logits, target = sample(4, 6)
    if name == "probabilities":
        generator = torch.Generator().manual_seed(4)
        p = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
        target = p.where(p > 0.5, 0.0)
        target[0], target[1] = 0.0, 1.0
    elif name in ("ignored", "dense"):
        target[::3] = -1
    if name == "dense":
        logits, target = logits.reshape(1, 6, 2, 2), target.reshape(1, 2, 2)
    return logits, target, CASES[name]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("anchor", "detach"), [*((anchor, True) for anchor in ANCHORS), ("both", False)])
def test_every_target_under_autograd_and_torch_func(name, anchor, detach):
    """Second derivatives, repeated and batched backward passes, vmap, jvp: what the plain formula has."""
    logits, target, arguments = case(name)
    arguments = {"reduction": "sum", **arguments}

    def total(logits):
        return anchor_loss(logits, target, 1.5, anchor, detach=detach, **arguments)

    leaf = logits.clone().requires_grad_()
    loss = total(leaf)
    loss.backward(retain_graph=True)
    once = leaf.grad.clone()
    leaf.grad.zero_()  # in place: the gradient kept for the graph must not be this tensor
    loss.backward(retain_graph=True)
    assert torch.equal(leaf.grad, once)
    many = torch.autograd.grad(loss, leaf, torch.tensor([1.0, 2.0]).double(), is_grads_batched=True)[0]
    torch.testing.assert_close(many[1], 2 * once)
    assert torch.equal(leaf.detach(), logits)

    torch.testing.assert_close(torch.func.grad(total)(logits), once)
    twice = torch.autograd.functional.hessian(total, logits)
    torch.testing.assert_close(twice, torch.func.hessian(total)(logits), rtol=1e-11, atol=1e-14)
    assert twice.abs().max() > 0.01
    _, along = torch.func.jvp(total, (logits,), (torch.ones_like(logits),))
    torch.testing.assert_close(along, once.sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(leaf, torch.ones_like(logits))
        tangent = torch.autograd.forward_ad.unpack_dual(total(dual)).tangent
    torch.testing.assert_close(tangent, along)
    if "mask" not in arguments:
        networks = torch.stack([logits, 2 * logits])

        def one(logits, target):
            return anchor_loss(logits, target, 1.5, anchor, detach=detach, **arguments)

        per_network = torch.func.vmap(torch.func.grad(one), (0, None))(networks, target)
        torch.testing.assert_close(per_network[0], once)
        targets = torch.stack([target, target.flip(0)])
        torch.testing.assert_close(torch.func.vmap(one, (None, 0))(logits, targets)[0], loss.detach())


def test_per_sample_gradients():
    logits, target = sample(8, 6)
    expected = loss_and_gradient(logits, target, reduction="sum")[1]
    per_sample = torch.func.vmap(torch.func.grad(anchor_loss))(logits, target)
    torch.testing.assert_close(per_sample, expected, rtol=1e-13, atol=1e-15)


def test_a_changed_input_is_noticed():
    """As by torch's own functions, where a second derivative would be computed from it."""
    logits, target = sample()
    doubled = 2 * logits.requires_grad_()
    loss = anchor_loss(doubled, target)
    doubled.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, logits, create_graph=True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("anchor", ["none", "both"])
def test_every_target_compiles_whole(name, anchor):
    torch._dynamo.reset()
    logits, target, arguments = case(name)

    def loss(logits, target):
        return anchor_loss(logits, target, anchor=anchor, **arguments)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=name == "index")
    for samples in (4, 3) if name == "index" else (4,):
        inputs = (logits[:samples], target[:samples])
        expected = loss_and_gradient(*inputs, loss)
        torch.testing.assert_close(loss_and_gradient(*inputs, compiled), expected, rtol=1e-12, atol=1e-15)
    if name == "smoothing":
        second = torch.compile(torch.func.hessian(loss), fullgraph=True, backend="aot_eager")(logits, target)
        eager = torch.autograd.functional.hessian(lambda x: loss(x, target), logits)
        torch.testing.assert_close(second, eager, rtol=1e-11, atol=1e-14)


@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="no C++ compiler, which torch.compile needs on a CPU",
)
def test_compiles_to_machine_code():
    """Through Inductor, extreme logits among them: what the compiler rewrites must stay finite and right."""
    torch._dynamo.reset()
    logits, target = sample(6, 5, dtype=torch.float32)
    logits[0], logits[1] = 1e4, torch.tensor([104.0, -89.0, -104.0, -1e4, 1e-3])
    module = AnchorLoss(anchor="both", reduction="none")
    ours = loss_and_gradient(logits, target, torch.compile(module, fullgraph=True))
    torch.testing.assert_close(ours, loss_and_gradient(logits, target, module), rtol=4e-6, atol=1e-37)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("strict", [False, True])
def test_export_and_pickle(name, strict):
    logits, target, arguments = case(name)
    arguments = dict(arguments)
    inputs = (logits, target, *([arguments.pop("mask")] if "mask" in arguments else []))
    module = AnchorLoss(anchor="both", **arguments)
    exported = torch.export.export(module, inputs, strict=strict).module()
    expected = loss_and_gradient(logits, target, lambda x, t: module(x, t, *inputs[2:]))
    for copy in (exported, pickle.loads(pickle.dumps(module))):
        ours = loss_and_gradient(logits, target, lambda x, t, copy=copy: copy(x, t, *inputs[2:]))
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", ["index", "smoothing", "probabilities"])
def test_autocast_with_a_gradient_scaler(name):
    """Scaled float16 gradients are those of float32, and an overflow skips the step."""
    logits, target, arguments = case(name)
    logits = logits.float()
    network = torch.nn.Linear(6, 6)
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    anchor_loss(network(logits), target, anchor="both", **arguments).backward()
    expected = network.weight.grad.clone()
    for overflow in (False, True):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = anchor_loss(network(logits), target, anchor="both", **arguments)
        assert loss.dtype == torch.float32
        scaler.scale(loss * (torch.inf if overflow else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        torch.testing.assert_close(before - network.weight.detach(), expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_computes_the_network_once_more(use_reentrant):
    logits, target = sample(8, 6)
    network = torch.nn.Linear(6, 6).double()
    calls = []

    def loss(logits):
        calls.append(1)
        return anchor_loss(network(logits), target, anchor="both")

    loss(logits.requires_grad_()).backward()
    expected = network.weight.grad.clone()
    network.zero_grad()
    calls.clear()
    checkpoint(loss, logits, use_reentrant=use_reentrant).backward()
    assert len(calls) == 2
    torch.testing.assert_close(network.weight.grad, expected)


def peak_memory(work):
    """The most bytes that `work` holds at a time; what it finds is not counted."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    moved = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    return max(accumulate((size for _, size in moved), initial=0))


@pytest.mark.parametrize("arguments", [{"anchor": "both"}, {"label_smoothing": 0.1}, {"anchor": "none"}])
def test_memory_of_dense_predictions(arguments, block, monkeypatch):
    """At most three times the logits, beside logits and target; several times as much without blocks."""
    monkeypatch.setattr(anchorloss.loss, "BLOCK", 2**14 if block == 1 else block)
    logits = torch.randn(4, 21, 64, 64, requires_grad=True)
    target = torch.randint(21, (4, 64, 64))
    target[:, :10] = 255

    def work():
        torch.autograd.grad(anchor_loss(logits, target, ignore_index=255, **arguments), logits)

    assert (peak_memory(work) <= 3 * logits.nbytes) == (block == 1)


def _train_on_half(rank, folder, block):
    """The gradients of a network on half of each batch, replicated (DDP) and in shards (FSDP2)."""
    anchorloss.loss.BLOCK = block
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    gradients = {}
    for name in ("index", "probabilities", "ignored"):
        logits, target, arguments = case(name)
        half = slice(2 * rank, 2 * rank + 2)
        for shards in (False, True):
            torch.manual_seed(0)
            network = torch.nn.Linear(6, 6).double()
            if shards:
                fully_shard(network, mesh=torch.distributed.init_device_mesh("cpu", (2,)))
            else:
                network = torch.nn.parallel.DistributedDataParallel(network)
            criterion = AnchorLoss(anchor="both", **{"reduction": "sum", **arguments})
            criterion(network(logits[half]), target[half]).backward()
            gradient = next(network.parameters()).grad
            # Either takes the mean over processes.
            gradients[name, shards] = 2 * (gradient.full_tensor() if shards else gradient)
    # A sharded tensor of logits goes through the plain formula.
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    logits, target, arguments = case("index")
    logits, target = (
        torch.distributed.tensor.distribute_tensor(tensor, mesh, [torch.distributed.tensor.Shard(0)])
        for tensor in (logits, target)
    )
    loss, gradient = loss_and_gradient(logits, target, anchor="both", **arguments)
    gradients["DTensor"] = torch.cat([loss.full_tensor().view(1), gradient.full_tensor().flatten()])
    # A network that outlives the process group is the last to hold it, and frees it with the GIL, for which a thread of
    # the group may wait: a deadlock.
    del network, logits, target, loss, gradient
    gc.collect()
    if rank == 0:
        torch.save(gradients, f"{folder}/gradients.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradient_of_the_whole_batch(tmp_path, block):
    torch.multiprocessing.spawn(_train_on_half, (str(tmp_path), block), nprocs=2)
    gradients = torch.load(tmp_path / "gradients.pt")
    for name in ("index", "probabilities", "ignored"):
        logits, target, arguments = case(name)
        torch.manual_seed(0)
        network = torch.nn.Linear(6, 6).double()
        AnchorLoss(anchor="both", reduction="sum", **arguments)(network(logits), target).backward()
        for shards in (False, True):
            torch.testing.assert_close(gradients[name, shards], network.weight.grad)
    logits, target, arguments = case("index")
    loss, gradient = loss_and_gradient(logits, target, anchor="both", **arguments)
    torch.testing.assert_close(gradients["DTensor"], torch.cat([loss.view(1), gradient.flatten()]))


def test_a_copy_of_the_file_works_alone(tmp_path):
    """It states its licence, and imports nothing but torch, of which no private name."""
    text = SOURCE.read_text()
    assert text.startswith("# SPDX-License-Identifier: MIT\n")
    assert "torch._" not in text
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"torch"}
    shutil.copy(SOURCE, tmp_path / "copied_loss.py")
    (tmp_path / "user.py").write_text(
        "import sys, torch, copied_loss\n"
        "print(copied_loss.anchor_loss(torch.zeros(2, 3), torch.tensor([0, 1])).item())\n"
        "assert not any(name.startswith('anchorloss') for name in sys.modules)\n"
    )
    command = [sys.executable, "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(done.stdout) == anchor_loss(torch.zeros(2, 3), torch.tensor([0, 1])).item()
