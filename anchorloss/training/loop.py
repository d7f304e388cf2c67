"""One run, from its settings to its record: epochs, evaluation, checkpoints, history, progress.

`train` is a generator that yields between steps: whoever drives it may take turns among several runs, and may stop at
any yield by closing it, which saves a checkpoint first.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anchorloss.config.settings import RunSettings
from anchorloss.data.dataset import Dataset
from anchorloss.device import describe
from anchorloss.errors import ClaimLostError, UserError
from anchorloss.runs import checkpoint, provenance, store, weights
from anchorloss.runs.atomic import sha256, write_atomically
from anchorloss.runs.claims import Claim
from anchorloss.tracking.tracking import Tracker
from anchorloss.training.evaluation import Evaluation, EvaluationImages, evaluate
from anchorloss.training.progress import Story, Watch, now
from anchorloss.training.trainer import EpochTotals, Trainer, TrainingImages


@dataclass(frozen=True)
class Workplace:
    """What the runs of one process share: the data on the device, and how to train there."""

    dataset: Dataset
    device: torch.device
    training: TrainingImages
    evaluation: EvaluationImages
    compile: bool
    checkpoint_seconds: float
    keep_weights: bool

    @staticmethod
    def of(
        dataset: Dataset,
        device: torch.device,
        *,
        compile: bool,
        checkpoint_seconds: float,
        keep_weights: bool = False,
    ) -> Workplace:
        training, evaluation = TrainingImages.of(dataset, device), EvaluationImages.of(dataset, device)
        return Workplace(dataset, device, training, evaluation, compile, checkpoint_seconds, keep_weights)


def train(
    settings: RunSettings, folder: Path, claim: Claim, workplace: Workplace, tracker: Tracker
) -> Generator[None, None, store.Record]:
    """Train the run in `folder`, from its newest checkpoint if it has one, and write its record, which is returned.

    The caller holds `claim`, and has written `config.yaml`. Closing the generator saves a checkpoint.

    Raises: RunError if a file cannot be written or the claim is lost; UserError if a checkpoint is of another run.
    """
    trainer = Trainer(settings, workplace.training, workplace.device, compile=workplace.compile)
    story = _resume(folder, settings, trainer)
    stretch = provenance.stretch(describe(workplace.device), workplace.compile)
    if story.stretches[-1:] != [stretch]:
        story.stretches.append(stretch)
    steps, epochs = trainer.steps, settings.optim.epochs
    last: Evaluation | None = None
    totals: EpochTotals | None = None
    with Watch(settings, folder, story, trainer) as watch, tracker:
        saved = time.monotonic()
        try:
            while story.epoch < epochs:
                while trainer.step_in_epoch < steps:
                    trainer.train_step()
                    watch.step()
                    if time.monotonic() - saved >= workplace.checkpoint_seconds:
                        save(folder, settings, claim, trainer, story, watch.seconds)
                        saved = time.monotonic()
                    if trainer.step_in_epoch % trainer.steps_a_turn == 0:
                        yield
                # Reading the totals waits for the device: better when there is nothing left to wait for.
                while not trainer.is_idle:
                    yield
                totals = trainer.totals()
                if totals.failed_step is not None:
                    break
                last = _end_epoch(settings, trainer, workplace, story, totals)
                if last is not None and not math.isfinite(last.loss):
                    break
                story.epoch += 1
                if story.epoch < epochs:
                    trainer.start_epoch(story.epoch)
                claim.require()
                _write_history(folder, story)
                watch.epoch()
                tracker.log(story.history[-1])
        except GeneratorExit:
            save(folder, settings, claim, trainer, story, watch.seconds)
            raise
        finally:
            # Its memory must not be given to another run while the device still writes to it.
            trainer.wait()
        seconds = watch.seconds
    claim.require()
    record = _conclude(settings, folder, workplace, trainer, story, totals, last, seconds)
    checkpoint.remove(folder)
    (folder / store.PROGRESS).unlink(missing_ok=True)
    tracker.finish(record, folder)
    return record


def save(
    folder: Path, settings: RunSettings, claim: Claim, trainer: Trainer, story: Story, seconds: float
) -> None:
    """Write a checkpoint of the run as it stands between two steps.

    Raises: RunError if it cannot be written, or if the claim was lost.
    """
    claim.require()
    state = {
        "trainer": trainer.state(),
        "epoch": story.epoch,
        "history": story.history,
        "seconds": seconds,
        "resumed": story.resumed,
        "started": story.started,
        "stretches": story.stretches,
    }
    checkpoint.save(folder, settings.hash, state)


def _resume(folder: Path, settings: RunSettings, trainer: Trainer) -> Story:
    state = checkpoint.load(folder, settings.hash)
    if state is None:
        trainer.start_epoch(0)
        return Story()
    try:
        trainer.restore(state["trainer"], state["epoch"])
        return Story(
            state["epoch"],
            state["history"],
            state["seconds"],
            state["resumed"] + 1,
            state["started"],
            state.get("stretches", []),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:100]
        raise UserError(
            f"{folder}: its checkpoint is whole but not of such a run ({problem}); move it away to start this run anew"
        ) from error


def _end_epoch(
    settings: RunSettings, trainer: Trainer, workplace: Workplace, story: Story, totals: EpochTotals
) -> Evaluation | None:
    """Evaluate where the settings say so, and add the epoch's row to the history."""
    epochs = settings.optim.epochs
    done = story.epoch + 1
    evaluation = None
    if done % settings.optim.evaluate_every == 0 or done == epochs:
        evaluation = evaluate(trainer.network, trainer.loss, workplace.evaluation, settings.precision)
    row = {
        "epoch": done,
        "learning_rate": trainer.current_learning_rate,
        "train_loss": totals.train_loss,
        "train_top1": totals.train_top1,
        "test_loss": evaluation.loss if evaluation else None,
        "top1": evaluation.top1 if evaluation else None,
        "top5": evaluation.top5 if evaluation else None,
        **(evaluation.factors if evaluation else {}),
    }
    story.history.append(row)
    return evaluation


def _conclude(
    settings: RunSettings,
    folder: Path,
    workplace: Workplace,
    trainer: Trainer,
    story: Story,
    totals: EpochTotals | None,
    last: Evaluation | None,
    seconds: float,
) -> store.Record:
    """Write history, predictions, weights if they are kept and, last, the record.

    It says `failed` if the run did not reach its last epoch.
    """
    finished = story.epoch == settings.optim.epochs and last is not None
    failure = None
    files = {}
    if story.history:
        files[store.HISTORY] = sha256(_write_history(folder, story))
    if finished:
        assert last is not None
        predictions = last.predictions()
        write_atomically(folder / store.PREDICTIONS, predictions)
        files[store.PREDICTIONS] = sha256(predictions)
    # One that no record names may be left of a process that was to keep weights and was killed.
    (folder / store.WEIGHTS).unlink(missing_ok=True)
    if finished and workplace.keep_weights:
        content = weights.to_bytes(trainer.network.state_dict())
        write_atomically(folder / store.WEIGHTS, content)
        files[store.WEIGHTS] = sha256(content)
    if not finished:
        failure = _failure(story, totals)
    dataset = workplace.dataset
    commit, dirty = provenance.commit()
    record = store.Record(
        format=1,
        status="finished" if finished else "failed",
        experiment=settings.experiment,
        run=settings.run,
        loss=settings.loss.name,
        model=settings.model.name,
        seed=settings.seed,
        epochs=settings.optim.epochs,
        evaluated_on=dataset.evaluated_on,
        top1=last.top1 if finished and last else None,
        top5=last.top5 if finished and last else None,
        test_loss=last.loss if finished and last else None,
        best=_best(story.history) if finished else None,
        failure=failure,
        data=store.Data(
            name=dataset.name,
            label=dataset.label,
            checksum=dataset.checksum,
            training_images=len(dataset.train_labels),
            evaluation_images=len(dataset.evaluation_labels),
        ),
        identity=settings.identity(),
        hash=settings.hash,
        files=files,
        provenance=store.Provenance(
            commit=commit,
            dirty=dirty,
            versions=provenance.versions(),
            device=describe(workplace.device),
            host=provenance.host(),
            precision=settings.precision,
            started=story.started,
            finished=now(),
            duration_seconds=round(seconds, 3),
            resumed=story.resumed,
            compile=workplace.compile,
            earlier={str(number): text for number, text in enumerate(story.stretches[:-1], 1)} or None,
        ),
    )
    try:
        store.write_record(folder, record)
    except FileExistsError:
        raise ClaimLostError(f"{folder.name}: another process has ended this run meanwhile") from None
    return record


def _failure(story: Story, totals: EpochTotals | None) -> store.Failure:
    if totals is not None and totals.failed_step is not None:
        epoch, step = story.epoch + 1, totals.failed_step
        # A first step that fails has its last finite loss, the mean of an epoch, in the epoch before.
        last_finite_loss = totals.last_finite_loss
        if last_finite_loss is None and story.history:
            last_finite_loss = story.history[-1]["train_loss"]
        return store.Failure(epoch, step, "non-finite loss", last_finite_loss)
    row = story.history.pop()
    return store.Failure(row["epoch"], -1, "non-finite loss on the evaluation set", row["train_loss"])


def _best(history: list[dict[str, Any]]) -> store.Best:
    row = max((row for row in history if row["top1"] is not None), key=lambda row: row["top1"])
    return store.Best(row["epoch"], row["top1"], row["top5"])


def _write_history(folder: Path, story: Story) -> bytes:
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in story.history for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(story.history)
    content = text.getvalue().encode()
    write_atomically(folder / store.HISTORY, content)
    return content
