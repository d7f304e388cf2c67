"""A run from settings to record: repeated, resumed, interleaved, diverged."""

from __future__ import annotations

import copy

import pytest
import torch

from anchorloss.errors import ClaimLostError, UserError
from anchorloss.runs import checkpoint
from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import read_record, run_folder
from anchorloss.tracking import Logger
from anchorloss.training.run import train
from tests.in_process import data_of, execution, files, finish, settings, start


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One run, trained alone and undisturbed."""
    results = tmp_path_factory.mktemp("alone")
    (run,) = settings("loss=anchor_both", "seeds=[3]")
    context = data_of(run)
    record = finish(start(run, context, results))
    return run, context, record, files(results, run)


def test_the_same_config_gives_the_same_record(alone, tmp_path):
    run, context, record, expected = alone
    again = finish(start(run, context, tmp_path))
    assert same_result(again, record)
    assert files(tmp_path, run) == expected


def test_a_run_that_cannot_be_recorded_is_not_left_open_where_it_is_tracked(alone, tmp_path):
    run, context, _, _ = alone
    ended: list[type[BaseException] | None] = []

    class Watching(Logger):
        def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
            ended.append(kind)

    folder = run_folder(tmp_path, run.experiment, run.run)
    folder.mkdir(parents=True)

    def lost_after_the_last_epoch() -> None:
        history = folder / "history.csv"
        if history.exists() and len(history.read_text().splitlines()) > run.optim.epochs:
            raise ClaimLostError("another process has it")

    with pytest.raises(ClaimLostError):
        finish(train(run, folder, context, execution(), Watching(), lost_after_the_last_epoch))
    assert ended == [ClaimLostError]
    assert not (folder / "record.json").exists()


def test_another_seed_gives_another_record(alone, tmp_path):
    _, context, record, _ = alone
    (other,) = settings("loss=anchor_both", "seeds=[4]")
    assert finish(start(other, context, tmp_path)).test_loss != record.test_loss


@pytest.mark.parametrize("stops", [(1,), (4,), (5,), (7, 1), (2, 3, 2)])
def test_a_run_stopped_anywhere_and_resumed_gives_the_same_record(alone, tmp_path, stops):
    run, context, record, expected = alone
    for steps_to_do in stops:
        steps = start(run, context, tmp_path)
        for _ in range(steps_to_do):
            next(steps)
        steps.close()
    resumed = finish(start(run, context, tmp_path))
    assert resumed.provenance.resumed == len(stops)
    assert same_result(resumed, record)
    assert files(tmp_path, run) == expected


def test_a_record_names_what_trained_the_segments_before_a_resume(alone, tmp_path):
    run, context, record, _ = alone
    assert record.provenance.earlier is None
    assert record.provenance.threads == 1
    steps = start(run, context, tmp_path)
    for _ in range(6):
        next(steps)
    steps.close()
    torch.set_num_threads(2)
    try:
        elsewhere = finish(start(run, context, tmp_path)).provenance
    finally:
        torch.set_num_threads(1)
    assert "(2 threads" in elsewhere.device
    assert elsewhere.threads == 2
    assert elsewhere.earlier is not None
    assert "(1 thread" in elsewhere.earlier["1"]


@pytest.fixture(scope="module")
def stopped(alone, tmp_path_factory):
    """What the checkpoint of `alone` holds when it is stopped in its second epoch, as the project wrote it before."""
    run, context, *_ = alone
    results = tmp_path_factory.mktemp("stopped")
    steps = start(run, context, results)
    for _ in range(7):
        next(steps)
    steps.close()
    return checkpoint.load(folder_of(results, run), run.hash)


def folder_of(results, run):
    return run_folder(results, run.experiment, run.run)


def resumed_from(content, alone, results):
    """The record of the run `alone`, gone on from a checkpoint that holds `content`."""
    run, context, *_ = alone
    folder = folder_of(results, run)
    folder.mkdir(parents=True)
    checkpoint.save(folder, run.hash, content)
    return finish(start(run, context, results))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epoch": 2},
        {"epoch": 200},
        {"epoch": -1},
        {"history": []},
        {"trainer": None},
        {"trainer": {}},
        {"trainer": {"step_in_epoch": 6}},
        {"trainer": {"step_in_epoch": -5}},
        {"trainer": {"momentum": []}},
        {"trainer": {"network": {}}},
        {"trainer": {"totals": {}}},
        {"trainer": {"totals": {"loss": torch.zeros(2)}}},
    ],
    ids=str,
)
def test_a_whole_checkpoint_with_wrong_contents_is_refused_and_kept(alone, stopped, tmp_path, wrong):
    """Its checksum is right, and its content no state of this run."""
    run, context, *_ = alone
    wrong = dict(wrong)
    if wrong.get("trainer"):
        wrong["trainer"] = {**stopped["trainer"], **wrong["trainer"]}
    folder = folder_of(tmp_path, run)
    folder.mkdir(parents=True)
    checkpoint.save(folder, run.hash, {**stopped, **wrong})
    before = (folder / checkpoint.NEWEST).read_bytes()
    with pytest.raises(UserError, match="move it away"):
        finish(start(run, context, tmp_path))
    assert (folder / checkpoint.NEWEST).read_bytes() == before


def test_a_tensor_of_another_shape_in_a_checkpoint_is_refused(alone, stopped, tmp_path):
    """Copied without a look, one number would fill a whole layer."""
    for part in ("network", "momentum"):
        trainer = copy.deepcopy(stopped["trainer"])
        tensors = trainer[part]
        key = next(iter(tensors)) if part == "network" else 0
        tensors[key] = torch.zeros(1)
        with pytest.raises(UserError, match="shape"):
            resumed_from({**stopped, "trainer": trainer}, alone, tmp_path / part)


def test_a_run_among_seven_others_gives_the_same_record(alone, tmp_path):
    run, context, record, expected = alone
    others = [
        other
        for loss in ("bce", "anchor_target", "anchor_bg", "softmax")
        for other in settings(f"loss={loss}", "seeds=[0,3]")
    ][:7]
    live = {each.run: start(each, context, tmp_path) for each in [*others[:3], run, *others[3:]]}
    records = {}
    while live:
        for name, steps in list(live.items()):
            try:
                next(steps)
            except StopIteration as end:
                records[name] = end.value
                del live[name]
    assert len(records) == 8
    assert same_result(records[run.run], record)
    assert files(tmp_path, run) == expected


def test_all_losses_of_a_seed_see_the_same_start(tmp_path):
    """Paired by seed: the same initial weights, order and augmentation, whatever the loss."""
    from anchorloss.training.trainer import Trainer

    runs = [settings(f"loss={loss}", "seeds=[5]")[0] for loss in ("bce", "anchor_bg", "softmax")]
    context = data_of(runs[0])
    trainers = [Trainer(run, context) for run in runs]
    first = trainers[0].network.state_dict()
    for trainer in trainers[1:]:
        state = trainer.network.state_dict()
        assert all(state[name].equal(value) for name, value in first.items())


def test_a_diverged_run_is_recorded_as_failed(tmp_path):
    (run,) = settings("loss=bce", "optim.lr=1e30")
    record = finish(start(run, data_of(run), tmp_path))
    assert record.status == "failed"
    assert record.top1 is None
    assert record.failure.epoch == 1
    assert 1 <= record.failure.step <= 4
    assert record.failure.last_finite_loss > 0


def test_warm_up_trains_with_softmax_first(tmp_path):
    (warm,) = settings("loss=bce", "optim.softmax_warmup_epochs=1")
    (softmax,) = settings("loss=softmax")
    context = data_of(warm)
    first_rows = []
    for run in (warm, softmax):
        finish(start(run, context, tmp_path))
        header, first, *_ = files(tmp_path, run)["history.csv"].decode().splitlines()
        first_rows.append(dict(zip(header.split(","), first.split(","), strict=True)))
    assert first_rows[0]["train_loss"] == first_rows[1]["train_loss"]


def test_names_of_machines_that_cannot_be_printed_are_recorded_as_text(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "host\n\x1b[31m" + "x" * 1000)
    monkeypatch.setattr(
        "anchorloss.device._field", lambda path, name: "CPU\r\n\\input{x}\x00" if name == "model name" else ""
    )
    (run,) = settings("optim.epochs=1")
    record = finish(start(run, data_of(run), tmp_path))
    assert read_record(run_folder(tmp_path, run.experiment, run.run)) == record
    assert record.provenance.host.startswith("host??[31m")
    assert record.provenance.device.startswith(r"CPU??\input{x}? (1 thread")
