"""The benchmark: what it measures is what it says, and its numbers reach the page unchanged."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from anchorloss.benchmark.allocator import keep_freed_memory
from anchorloss.benchmark.counting import Traffic, count_work
from anchorloss.benchmark.ladder import (
    MEAN,
    STD,
    OurLoop,
    Variant,
    build_loop,
    build_trainers,
    random_images,
    rungs,
)
from anchorloss.benchmark.measure import Effort, in_turns, measure_ceilings
from anchorloss.benchmark.operators import measure_operators
from anchorloss.benchmark.rows import Row, read_csv, to_csv
from anchorloss.benchmark.tables import insert, tables
from anchorloss.benchmark.textbook import TextbookImages, fastest_workers, textbook_loss
from anchorloss.data import augmentation
from anchorloss.errors import RunError, UserError
from anchorloss.sweep.side_by_side import cores
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "performance.md"
SMALL = Variant("ours", "resnet8", batch_size=16, in_memory=True, trainer=True, threads=1)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "bench.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def test_the_textbook_draws_crops_and_flips_of_the_padded_image():
    images, labels = random_images()
    data = TextbookImages(images[:1], labels[:1], MEAN, STD)
    windows = augmentation.pad_images(images[:1])
    places = [(row, column, flip) for row in range(9) for column in range(9) for flip in (False, True)]
    rows, columns, flips = (torch.tensor(values) for values in zip(*places, strict=True))
    crops = augmentation.augment(windows, torch.zeros(len(places), dtype=torch.int64), rows, columns, flips)
    possible = augmentation.normalize(crops, MEAN, STD)
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        image, label = data[0]
        assert label == labels[0]
        same = (possible - image).abs().amax((1, 2, 3)) < 1e-4
        assert same.sum() == 1
        seen.add(int(same.nonzero()))
    assert len(seen) > 10


def test_the_textbook_loss_is_binary_cross_entropy():
    logits, target = torch.randn(8, 100), torch.arange(8)
    labels = torch.nn.functional.one_hot(target, 100).float()
    expected = (
        torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1).mean()
    )
    torch.testing.assert_close(textbook_loss(logits, target), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", rungs("resnet8", "cpu", True, 2, False), ids=lambda variant: variant.name)
def test_every_rung_trains(variant, monkeypatch):
    """Noise with fixed labels is learnt by heart: the loss falls, so the gradient and the update are there."""
    torch.set_num_threads(1)
    monkeypatch.setattr("anchorloss.benchmark.ladder.IMAGES", 16)
    loop = build_loop(replace(variant, batch_size=8, threads=1))

    def loss_of_a_step() -> float:
        if isinstance(loop, OurLoop):
            loop.steps(1)
            return float(loop._trainers[0]._totals["loss"])
        before = loop.total_loss
        loop.steps(1)
        return loop.total_loss - before

    first = loss_of_a_step()
    loop.steps(25)
    assert 0 < loss_of_a_step() < 0.95 * first


def test_runs_at_once_compute_what_each_computes_alone():
    torch.set_num_threads(1)
    together = OurLoop(replace(SMALL, runs=3), torch.device("cpu"))
    together.steps(4)
    alone = OurLoop(SMALL, torch.device("cpu"))
    alone.steps(4)
    pairs = zip(
        together._trainers[0].state()["network"].items(),
        alone._trainers[0].state()["network"].items(),
        strict=True,
    )
    for (name, ours), (_, expected) in pairs:
        assert ours.equal(expected), name
    assert not together._trainers[1].state()["momentum"][0].equal(alone._trainers[0].state()["momentum"][0])


def test_operations_are_those_of_the_layers():
    """resnet8: per block two 3x3 convolutions; each is done three times, the stem's input needing no gradient."""
    stem = 32 * 32 * 9 * 3 * 16
    others = 2 * 32 * 32 * 9 * 16 * 16
    others += 16 * 16 * 9 * (16 * 32 + 32 * 32) + 8 * 8 * 9 * (32 * 64 + 64 * 64) + 64 * 100
    assert count_work("resnet8", bf16=False).operations == 2 * (2 * stem + 3 * others)


def test_bytes_are_those_read_and_written():
    values = torch.ones(1000)
    with Traffic() as traffic:
        values.view(10, 100).t().relu()
    assert traffic.bytes == 8000
    fp32, bf16 = (count_work("resnet8", bf16=bf16).bytes for bf16 in (False, True))
    assert 0.4 < bf16 / fp32 < 0.7


def test_loops_are_measured_in_processes_of_their_own():
    variants = [SMALL, replace(SMALL, name="two", runs=2)]
    first, (one, two) = in_turns(variants, Effort(rounds=2, seconds=0.05), say=lambda _: None)
    # After the first round there is something to write already.
    assert [len(each.rates) for each in first] == [1, 1]
    assert len(one.rates) == len(two.rates) == 2
    assert min(one.rates + two.rates) > 0
    assert one.first_step_seconds > 0
    assert 100 < one.memory < 5000


def test_a_loop_that_cannot_start_is_an_error_in_one_line():
    with pytest.raises(RunError, match="resnet9"):
        list(in_turns([replace(SMALL, model="resnet9")], Effort(1, 0.05), say=lambda _: None))
    said: list[str] = []
    (found,) = in_turns(
        [replace(SMALL, name="broken", model="resnet9"), SMALL], Effort(1, 0.05), say=said.append
    )
    assert [each.variant for each in found] == [SMALL]
    assert any("broken does not start here" in line for line in said)


def test_a_loop_that_does_not_start_in_time_is_left_out():
    said = []
    effort = Effort(rounds=2, seconds=0.05, deadline=time.monotonic())
    assert list(in_turns([SMALL], effort, say=said.append)) == []
    assert said[-1] == "  no time to start ours"


def test_the_number_of_loader_workers_is_one_that_the_machine_can_run():
    images, labels = random_images()
    workers = fastest_workers(TextbookImages(images[:256], labels[:256], MEAN, STD), 32, seconds=0.1)
    assert 1 <= workers <= max(cores(), 1)


def test_ceilings_are_rates_of_known_work():
    rows = measure_ceilings(torch.device("cpu"), Effort(1, 0.02))
    assert any("copy" in row.variant for row in rows)
    assert all(1 < row.median < 1e6 for row in rows)


def test_freed_memory_is_kept():
    """A fresh block costs a page fault every 4 KiB; a block that was kept costs none."""
    resource = pytest.importorskip("resource")
    if not keep_freed_memory():
        pytest.skip("not glibc")

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def use() -> None:
        for _ in range(4):
            torch.empty(8 << 20, dtype=torch.uint8).fill_(1)

    use()
    before = faults()
    for _ in range(20):
        use()
    assert faults() - before < 2048


def test_rows_survive_their_file(tmp_path):
    rows = [
        Row("provenance", "device", variant="a CPU, fast"),
        Row(
            "ladder", "images", "ours", "resnet20", "bf16", 128, 2, 1, "images/s", 1234.5, 1200.25, 1300.0, 5
        ),
    ]
    path = tmp_path / "rows.csv"
    path.write_text(to_csv(rows))
    assert read_csv(path) == rows
    lines = path.read_text().replace("CPU, fast", "CPU")
    for content in (
        "",
        "section,median\nladder,1\n",
        lines.replace(",5\n", f",{'9' * 40}\n"),
        lines.replace("device", "x"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match="no measurement"):
            read_csv(path)


def test_a_measured_process_loads_no_pandas():
    """It would count as memory of the training."""
    code = "import sys, anchorloss.benchmark.worker; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_page_takes_its_tables_from_the_rows():
    rows = [
        Row("provenance", "device", variant="a CPU"),
        Row("growth", "step", "ours", "resnet20", "bf16", 512, 1, 0, "ms", 20.0, 19.0, 22.0, 3),
    ]
    page = "a\n<!-- table: Growing work -->\nold\n<!-- end -->\nb\n<!-- table: The ladder -->\n<!-- end -->\n"
    filled = insert(page, rows)
    assert "old" not in filled
    assert "| resnet20 | 512 | 20.0 (19.0 to 22.0) | not measured | not measured | not measured |" in filled
    assert filled.startswith("a\n")
    assert "b\n<!-- table: The ladder -->\nnot measured" in filled
    assert insert(filled, rows) == filled
    with pytest.raises(UserError, match="no such table"):
        insert("<!-- table: Nonsense -->\n<!-- end -->", rows)


@pytest.mark.slow
def test_a_measurement_is_written_and_never_overwritten(tmp_path):
    arguments = (
        "--only",
        "ladder",
        "--models",
        "resnet8",
        "--no-compile",
        "--rounds",
        "1",
        "--seconds",
        "0.05",
    )
    for files in (2, 4):
        done = bench(*arguments, "--results-dir", str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "bench").iterdir())) == files
    assert "resnet8  textbook" in done.stdout


@pytest.mark.slow
def test_a_compiled_run_among_others_computes_what_it_computes_alone():
    """Compiled for full batches only, so that it does not matter which sizes came before."""
    torch.set_num_threads(1)
    compiled = replace(SMALL, bf16=True, compile=True)
    together = OurLoop(replace(compiled, runs=3), torch.device("cpu"))
    together.steps(3)
    alone = OurLoop(compiled, torch.device("cpu"))
    alone.steps(3)
    ours, expected = (loop._trainers[0].state()["network"] for loop in (together, alone))
    assert all(ours[name].equal(value) for name, value in expected.items())


def test_the_operators_of_a_step_add_up_to_its_time():
    rows = measure_operators(replace(SMALL, batch_size=64), rounds=3)
    kinds = {row.variant: row.median for row in rows}
    assert all(spent > 0 for spent in kinds.values())
    (trainer,) = build_trainers(replace(SMALL, batch_size=64), torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    steps = []
    for _ in range(5):
        begun = time.perf_counter()
        trainer.train_step()
        steps.append(1000 * (time.perf_counter() - begun))
    torch.set_num_threads(threads)
    assert min(steps) / 2 < sum(kinds.values()) < 3 * max(steps)


def test_the_page_says_what_its_file_says():
    page = PAGE.read_text()
    names = dict.fromkeys(re.findall(r"results/bench/[\w.-]+\.csv", page))
    rows = [row for name in names for row in read_csv(ROOT / name)]
    assert insert(page, rows) == page
    assert set(re.findall(r"<!-- table: ([^>]+) -->", page)) <= set(tables(rows))
