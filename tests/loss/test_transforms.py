"""The loss under torch.compile, autocast, vmap, grad and functional_call; and what it imports."""

from __future__ import annotations

import ast
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
