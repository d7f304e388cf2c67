"""The loss under torch.compile, autocast, vmap, grad and functional_call; and what it imports."""

from __future__ import annotations

import ast
import gc
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import anchorloss.loss
from anchorloss.loss import AnchorLoss, anchor_loss

VARIANTS = [
    (anchor, detach) for anchor in ("none", "target", "background", "both") for detach in (True, False)
]


def batch(samples: int = 8, classes: int = 6, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(3)
    logits = 4 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (samples,), generator=generator)


def gradient_of(function, logits):
    leaf = logits.clone().requires_grad_()
    value = function(leaf)
    value.sum().backward()
    return value.detach(), leaf.grad


@pytest.fixture
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize(("anchor", "detach"), VARIANTS)
def test_compiles_whole(anchor, detach):
    logits, target = batch()

    def loss(logits):
        return anchor_loss(logits, target, anchor=anchor, detach=detach, slack=0.05)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(gradient_of(compiled, logits), gradient_of(loss, logits), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-13, atol=1e-15)


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("anchor", ["none", "target", "background", "both"])
def test_compiled_code_keeps_little_for_the_backward_pass(anchor):
    """What autograd keeps holds no more values than the logits twice over."""
    logits, target = batch(64, 50)
    logits.requires_grad_()
    compiled = torch.compile(anchor_loss, fullgraph=True, backend="aot_eager")
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda _: None):
        compiled(logits, target, anchor=anchor)
    assert 0 < sum(kept) <= 2 * logits.numel()


@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="no C++ compiler, which torch.compile needs on a CPU",
)
@pytest.mark.usefixtures("_fresh_compiler")
def test_compiles_to_machine_code():
    """Through Inductor, extreme logits among them: what the compiler rewrites must stay finite and right."""
    logits, target = batch(6, 5, torch.float32)
    logits[0], logits[1] = 1e4, torch.tensor([104.0, -89.0, -104.0, -1e4, 1e-3])
    module = AnchorLoss(anchor="both", reduction="none")
    compiled = torch.compile(module, fullgraph=True)
    ours = gradient_of(lambda x: compiled(x, target), logits)
    eager = gradient_of(lambda x: module(x, target), logits)
    torch.testing.assert_close(ours[0], eager[0], rtol=4e-6, atol=1e-37)
    torch.testing.assert_close(ours[1], eager[1], rtol=4e-6, atol=1e-37)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("anchor", ["none", "background", "both"])
def test_under_autocast_the_loss_is_float32(dtype, anchor):
    logits, target = batch(dtype=torch.float32)
    weight = torch.eye(6).requires_grad_()
    with torch.autocast("cpu", dtype):
        scores = logits @ weight
        assert scores.dtype == dtype
        loss = anchor_loss(scores, target, anchor=anchor)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss.detach(), anchor_loss(scores.detach(), target, anchor=anchor))
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize(("anchor", "detach"), VARIANTS)
def test_vmap_over_networks_and_over_samples(anchor, detach):
    logits, target = batch(12, 5)
    expected = gradient_of(
        lambda x: anchor_loss(x, target, anchor=anchor, detach=detach, reduction="none"), logits
    )[1]

    def mean_loss(logits, target):
        return anchor_loss(logits, target, anchor=anchor, detach=detach, reduction="sum")

    per_network = torch.func.vmap(torch.func.grad(mean_loss))(logits.view(3, 4, 5), target.view(3, 4))
    torch.testing.assert_close(per_network.view(12, 5), expected, rtol=1e-13, atol=1e-15)
    per_sample = torch.func.vmap(torch.func.grad(mean_loss))(logits, target)
    torch.testing.assert_close(per_sample, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("anchor", "detach"), VARIANTS)
def test_vmap_over_one_argument(anchor, detach):
    """Only the logits, or only the target, may differ from one call to the next."""
    logits, target = batch(4, 5)

    def losses(logits, target):
        return anchor_loss(logits, target, anchor=anchor, detach=detach, reduction="none")

    many_logits = torch.stack([logits, 2 * logits, -logits])
    ours = torch.func.vmap(losses, (0, None))(many_logits, target)
    torch.testing.assert_close(ours, torch.stack([losses(x, target) for x in many_logits]))
    many_targets = torch.stack([target, target.roll(1), target.flip(0)])
    ours = torch.func.vmap(losses, (None, 0))(logits, many_targets)
    torch.testing.assert_close(ours, torch.stack([losses(logits, x) for x in many_targets]))


@pytest.mark.parametrize("anchor", ["target", "background", "both"])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_second_derivatives(anchor, detach, reduction):
    """A Hessian by two backward passes is the one that torch.func makes forward over backward."""
    logits, target = batch(3, 4)

    def loss(logits):
        return anchor_loss(logits, target, 1.5, anchor, 0.05, reduction, detach=detach).sum()

    twice = torch.autograd.functional.hessian(loss, logits)
    torch.testing.assert_close(twice, torch.func.hessian(loss)(logits), rtol=1e-12, atol=1e-14)
    assert twice.abs().max() > 0.01


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiles_inside_a_transform_and_around_one():
    logits, target = batch(6, 5)

    def per_sample(logits, target):
        return torch.func.vmap(torch.func.grad(lambda x, t: anchor_loss(x, t, anchor="both")))(logits, target)

    compiled = torch.compile(per_sample, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), per_sample(logits, target))


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiles_for_any_number_of_samples():
    compiled = torch.compile(anchor_loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for samples in (3, 5, 8):
        logits, target = batch(samples)
        ours = gradient_of(lambda x, target=target: compiled(x, target), logits)
        eager = gradient_of(lambda x, target=target: anchor_loss(x, target), logits)
        torch.testing.assert_close(ours, eager)


def test_functional_call():
    logits, target = batch()
    network = torch.nn.Linear(6, 6, dtype=torch.float64)
    criterion = AnchorLoss(anchor="both")
    parameters = dict(network.named_parameters())

    def loss(parameters):
        return criterion(torch.func.functional_call(network, parameters, (logits,)), target)

    gradients = torch.func.grad(loss)(parameters)
    loss(parameters).backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(gradients[name], parameter.grad)
    assert torch.func.functional_call(criterion, {}, (logits, target)) == criterion(logits, target)


# Arguments that change what is computed, each with a target for `batch()`.
CASES = {
    "probabilities": ("p", {"weight": torch.tensor([0.5, 1, 2, 1, 0, 3])}),
    "smoothing": ("index", {"label_smoothing": 0.1, "pos_weight": torch.tensor([0.5, 1, 2, 1, 0, 3])}),
    "ignored": ("ignored", {"ignore_index": -1}),
}
COMPILED = {
    **CASES,
    "weights": (
        "ignored",
        {
            "ignore_index": -1,
            "weight": torch.linspace(0.5, 2, 6),
            "pos_weight": torch.linspace(3, 1, 6),
            "slack": 0.05,
        },
    ),
    "gammas": (
        "ignored",
        {"ignore_index": -1, "label_smoothing": 0.1, "gamma_target": 2.0, "slack": 0.05},
    ),
    "steep": ("p", {"gamma": 1.5, "slack": 0.05}),
    "dense": ("dense", {"ignore_index": -1, "reduction": "sum", "slack": 0.05}),
}


def case(name):
    logits, target = batch(dtype=torch.float64)
    kind, arguments = COMPILED[name]
    if kind == "p":
        generator = torch.Generator().manual_seed(4)
        p = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
        target = p.where(p > 0.5, 0.0)
        target[0], target[1] = 0.0, 1.0
    elif kind in ("ignored", "dense"):
        target[::3] = -1
    if kind == "dense":
        logits, target = logits.reshape(2, 6, 2, 2), target.reshape(2, 2, 2)
    return logits, target, arguments


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("anchor", ["none", "target", "background", "both"])
def test_every_target_compiles_whole(name, anchor):
    """The loss, its gradient, and the second derivative inside torch.func are those of eager mode."""
    logits, target, arguments = case(name)

    def loss(logits, target):
        return anchor_loss(logits, target, anchor=anchor, **arguments)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    ours = gradient_of(lambda x: compiled(x, target), logits)
    torch.testing.assert_close(ours, gradient_of(lambda x: loss(x, target), logits), rtol=1e-12, atol=1e-15)
    second = torch.compile(torch.func.hessian(loss), fullgraph=True, backend="aot_eager")(logits, target)
    eager = torch.autograd.functional.hessian(lambda x: loss(x, target), logits)
    torch.testing.assert_close(second, eager, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("anchor", ["none", "target", "background", "both"])
@pytest.mark.parametrize("detach", [True, False])
def test_every_target_under_torch_func(name, anchor, detach):
    logits, target, arguments = case(name)

    def losses(logits, target):
        return anchor_loss(logits, target, anchor=anchor, detach=detach, reduction="none", **arguments)

    def total(logits, target):
        return losses(logits, target).sum()

    expected = gradient_of(lambda x: losses(x, target), logits)
    torch.testing.assert_close(torch.func.grad(total)(logits, target), expected[1])
    torch.testing.assert_close(torch.func.vmap(losses)(logits, target), expected[0])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(losses))(logits, target), expected[1])
    jacobian = torch.func.jacrev(losses)(logits, target)
    torch.testing.assert_close(jacobian.sum(0), expected[1])
    tangent = torch.ones_like(logits)
    _, along = torch.func.jvp(lambda x: losses(x, target), (logits,), (tangent,))
    torch.testing.assert_close(along, expected[1].sum(1))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("detach", [True, False])
def test_second_derivatives_of_every_target(name, detach):
    logits, target, arguments = case(name)

    def loss(logits):
        return anchor_loss(logits, target, 1.5, "both", detach=detach, **arguments)

    twice = torch.autograd.functional.hessian(loss, logits)
    torch.testing.assert_close(twice, torch.func.hessian(loss)(logits), rtol=1e-11, atol=1e-14)
    if not detach:
        assert torch.autograd.gradgradcheck(loss, logits.clone().requires_grad_())


def test_forward_mode_differentiation():
    logits, target = batch()
    expected = gradient_of(lambda x: anchor_loss(x, target), logits)[1].sum()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits, torch.ones_like(logits))
        loss = torch.autograd.forward_ad.unpack_dual(anchor_loss(dual, target))
        torch.testing.assert_close(loss.tangent, expected)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("strict", [False, True])
def test_export(name, strict):
    logits, target, arguments = case(name)
    module = AnchorLoss(anchor="both", **arguments)
    exported = torch.export.export(module, (logits, target), strict=strict)
    ours, eager = (gradient_of(lambda x, f=f: f(x, target), logits) for f in (exported.module(), module))
    torch.testing.assert_close(ours, eager)


def test_pickle():
    logits, target, arguments = case("smoothing")
    module = AnchorLoss(2.0, "both", **arguments)
    copy = pickle.loads(pickle.dumps(module))
    assert torch.equal(copy(logits, target), module(logits, target))
    assert repr(copy) == repr(module)


@pytest.mark.parametrize("name", CASES)
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


def _gradients_of_half(rank):
    gradients = {}
    for name in CASES:
        logits, target, arguments = case(name)
        torch.manual_seed(0)
        network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(6, 6).double())
        half = slice(4 * rank, 4 * rank + 4)
        criterion = AnchorLoss(anchor="both", reduction="sum", **arguments)
        criterion(network(logits[half]), target[half]).backward()
        gradients[name] = 2 * network.module.weight.grad  # DDP takes the mean over processes
    return gradients


def _train_on_half(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    gradients = _gradients_of_half(rank)
    # A network that outlives the process group is the last to hold it, and frees it with the GIL, for which a thread of
    # the group may wait: a deadlock.
    gc.collect()
    if rank == 0:
        torch.save(gradients, f"{folder}/gradients.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradient_of_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(_train_on_half, (str(tmp_path),), nprocs=2)
    gradients = torch.load(tmp_path / "gradients.pt")
    for name in CASES:
        logits, target, arguments = case(name)
        torch.manual_seed(0)
        network = torch.nn.Linear(6, 6).double()
        AnchorLoss(anchor="both", reduction="sum", **arguments)(network(logits), target).backward()
        torch.testing.assert_close(gradients[name], network.weight.grad)


def test_uses_no_private_name_of_torch_and_states_its_licence():
    text = Path(anchorloss.loss.__file__).read_text()
    assert text.startswith("# SPDX-License-Identifier: MIT\n")
    assert "torch._" not in text


def test_imports_nothing_but_torch():
    tree = ast.parse(Path(anchorloss.loss.__file__).read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").split(".")[0])
    assert imported - sys.stdlib_module_names == {"torch"}


def test_a_copy_of_the_file_works_alone(tmp_path):
    copy = tmp_path / "copied_loss.py"
    copy.write_text(Path(anchorloss.loss.__file__).read_text())
    program = (
        "import sys, torch, copied_loss\n"
        "print(copied_loss.anchor_loss(torch.zeros(2, 3), torch.tensor([0, 1])).item())\n"
        "assert not any(name.startswith('anchorloss') for name in sys.modules)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    expected = anchor_loss(torch.zeros(2, 3), torch.tensor([0, 1])).item()
    assert float(finished.stdout) == expected
