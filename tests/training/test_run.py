"""A run from settings to record: repeated, resumed, interleaved, lost, diverged."""

from __future__ import annotations

import pytest
import torch

from anchorloss.errors import ClaimLostError, UserError
from anchorloss.runs import checkpoint
from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import run_folder
from anchorloss.tracking import Logger
from anchorloss.training import run as run_module
from anchorloss.training.run import train
from anchorloss.training.trainer import Trainer
from tests.in_process import SMALLER, counted_steps, data_of, execution, files, finish, settings, start
from tests.training import textbook


def test_a_run_is_the_textbooks(tmp_path):
    data_of(settings()[0])  # one thread
    textbook.check_a_run(torch.device("cpu"), tmp_path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One run, trained alone and undisturbed."""
    results = tmp_path_factory.mktemp("alone")
    (run,) = settings("loss=anchor_both", "seeds=[3]")
    data = data_of(run)
    record = finish(start(run, data, results, keep_weights=True))
    return run, data, record, files(results, run)


@pytest.mark.parametrize("stops", [(), (1,), (4,), (5,), (7, 1), (2, 3, 2)])
def test_a_run_stopped_anywhere_and_resumed_gives_the_same_record(alone, tmp_path, stops):
    run, data, record, expected = alone
    for steps_to_do in stops:
        steps = start(run, data, tmp_path, keep_weights=True)
        for _ in range(steps_to_do):
            next(steps)
        steps.close()
    resumed = finish(start(run, data, tmp_path, keep_weights=True))
    assert resumed.provenance.resumed == len(stops)
    assert same_result(resumed, record)
    assert files(tmp_path, run) == expected


def test_a_record_names_what_trained_the_segments_before_a_resume(alone, tmp_path):
    run, data, record, _ = alone
    assert record.provenance.earlier is None
    assert record.provenance.duration_seconds > 0
    steps = start(run, data, tmp_path)
    for _ in range(6):
        next(steps)
    steps.close()
    torch.set_num_threads(2)
    try:
        elsewhere = finish(start(run, data, tmp_path)).provenance
    finally:
        torch.set_num_threads(1)
    assert "(2 threads" in elsewhere.device
    assert (record.provenance.threads, elsewhere.threads) == (1, 2)
    assert "(1 thread" in elsewhere.earlier["1"]


def test_a_run_among_others_gives_the_same_record(alone, tmp_path):
    run, data, record, expected = alone
    others = [settings(f"loss={loss}", "seeds=[3]")[0] for loss in ("bce", "anchor_bg", "softmax")]
    live = {
        each.run: start(each, data, tmp_path, keep_weights=True) for each in [*others[:2], run, *others[2:]]
    }
    records = {}
    while live:
        for name, steps in list(live.items()):
            try:
                next(steps)
            except StopIteration as end:
                records[name] = end.value
                del live[name]
    assert same_result(records[run.run], record)
    assert files(tmp_path, run) == expected


def test_all_losses_of_a_seed_see_the_same_start():
    """Paired by seed: the same initial weights, order and augmentation, whatever the loss."""
    runs = [settings(f"loss={loss}", "seeds=[5]")[0] for loss in ("bce", "anchor_bg", "softmax")]
    first, *others = (Trainer(run, data_of(run)).network.state_dict() for run in runs)
    for state in others:
        assert all(first[name].equal(value) for name, value in state.items())


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("another", 1),
        ("trainer", None),
        ("trainer.momentum", []),
        ("trainer.network", {}),
        ("trainer.totals", {"loss": torch.zeros(2)}),
    ],
)
def test_a_whole_checkpoint_of_another_kind_of_run_is_refused_and_kept(alone, tmp_path, part, wrong):
    run, data, *_ = alone
    steps = start(run, data, tmp_path)
    for _ in range(7):
        next(steps)
    steps.close()
    folder = run_folder(tmp_path, run.experiment, run.run)
    content = checkpoint.load(folder, run.hash)
    assert content["seconds"] > 0
    *outer, key = part.split(".")
    (content[outer[0]] if outer else content)[key] = wrong
    checkpoint.save(folder, run.hash, content)
    before = (folder / checkpoint.NEWEST).read_bytes()
    with pytest.raises(UserError, match="move it away"):
        finish(start(run, data, tmp_path))
    assert (folder / checkpoint.NEWEST).read_bytes() == before


def test_a_run_that_is_lost_writes_no_further_file(tmp_path, monkeypatch):
    """However late it is lost; where it is tracked it ends as interrupted."""
    monkeypatch.setattr(run_module, "SHOW_SECONDS", 0)
    (run,) = settings(*SMALLER, "seeds=[3]")
    data, written, ended = data_of(run), [], []

    class Watching(Logger):
        def __exit__(self, kind, *_):
            ended.append(kind)

    def files_after(calls):
        folder = run_folder(tmp_path / str(calls), run.experiment, run.run)
        folder.mkdir(parents=True)
        left = calls

        def require_claim():
            nonlocal left
            left -= 1
            if left < 0:
                written.append({path.name: path.read_bytes() for path in folder.iterdir()})
                raise ClaimLostError("another process has it")

        try:
            finish(train(run, folder, data, execution(keep_weights=True), Watching(), require_claim))
        except ClaimLostError:
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == written[-1]
            assert ended[-1] is ClaimLostError
            return False
        return True

    calls = 0
    while not files_after(calls):
        calls += 1
    # Before what is shown of each step and each epoch's history, and before each file at the end.
    assert calls >= 2 * 3 + 2 + 4
    assert "record.json" not in {name for each in written for name in each}


def test_a_run_that_diverges_ends_at_the_next_look(tmp_path, monkeypatch):
    (run,) = settings("loss=bce", "optim.lr=1e30", "optim.batch_size=10")
    monkeypatch.setattr(run_module, "SHOW_SECONDS", 0)
    with counted_steps() as steps:
        record = finish(start(run, data_of(run), tmp_path))
    assert (record.status, record.top1, record.failure.epoch) == ("failed", None, 1)
    assert steps.count == record.failure.step + 1 < 30
    assert record.failure.last_finite_loss > 0
