"""What a record says, when two say the same, and the strict reading of record.json.

The format is described under "The run folder" in docs/architecture.md.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchorloss.config.nested import flatten
from anchorloss.config.settings import DATA_SETS, identity_hash
from anchorloss.errors import UserError
from anchorloss.runs import typed_json

RECORD, HISTORY, PREDICTIONS = "record.json", "history.csv", "predictions.npz"
WEIGHTS = "weights.safetensors"  # with keep_weights=true alone
NAME = re.compile(r"[A-Za-z0-9_+.]*[A-Za-z0-9_+]")
RUN_NAME = re.compile(
    rf"(?P<loss>{NAME.pattern})-(?P<model>{NAME.pattern})-seed(?P<seed>\d{{1,10}})-[0-9a-f]{{10}}"
)
_COMMIT = re.compile(r"[0-9a-z]{1,64}")
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Best:
    """The best epoch by Top-1: a labelled extra, never the result."""

    epoch: int
    top1: float
    top5: float


@dataclass(frozen=True)
class Failure:
    """Where a run diverged; `last_finite_loss` is None when not even the first loss was finite."""

    epoch: int
    step: int
    reason: str
    last_finite_loss: float | None


@dataclass(frozen=True)
class Data:
    """What a run was trained and evaluated on."""

    name: str
    label: str
    checksum: str
    training_images: int
    evaluation_images: int
    # Of a data set of one's own.
    class_names: list[str] | None = None


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: the only part in which two records of one result may differ.

    `commit` is `unknown` outside of git.
    """

    commit: str
    dirty: bool
    versions: dict[str, str]
    device: str
    host: str
    precision: str
    started: str
    finished: str
    duration_seconds: float
    resumed: int
    # Whether the network was compiled, which rounds differently.
    compile: bool = False
    # Stretches before a resume that had another commit, device or versions, by number; null if there was none.
    earlier: dict[str, str] | None = None


@dataclass(frozen=True)
class Record:
    """The content of record.json. Accuracies in percent, of the last epoch, on the set `evaluated_on` names.

    Raises: ValueError when made from values that contradict each other.
    """

    format: int
    status: str
    experiment: str
    run: str
    loss: str
    model: str
    seed: int
    epochs: int
    evaluated_on: str
    top1: float | None
    top5: float | None
    test_loss: float | None
    best: Best | None
    failure: Failure | None
    data: Data
    identity: dict[str, Any]
    hash: str
    files: dict[str, str]
    provenance: Provenance

    def __post_init__(self) -> None:
        _require(self.format == 1, "format", self.format, "only format 1 is known")
        _require(self.status in ("finished", "failed"), "status", self.status, "must be finished or failed")
        _require(
            self.evaluated_on in ("test", "validation"),
            "evaluated_on",
            self.evaluated_on,
            "test or validation",
        )
        label = DATA_SETS.get(self.data.name, self.data.name)
        _require(self.data.label == label, "data.label", self.data.label, f"should be {label!a:.80}")
        for key in ("experiment", "loss", "model", "data.name"):
            _require(NAME.fullmatch(_dotted(self, key)) is not None, key, _dotted(self, key), "not a name")
        _require(self.hash == identity_hash(self.identity), "hash", self.hash, "not that of the identity")
        run = f"{self.loss}-{self.model}-seed{self.seed}-{self.hash}"
        _require(
            RUN_NAME.fullmatch(self.run) is not None and self.run == run,
            "run",
            self.run,
            f"should be {run!a:.80}",
        )
        for key in ("seed", "data.training_images", "data.evaluation_images", "provenance.resumed"):
            value = _dotted(self, key)
            _require(value >= 0, key, value, "must not be negative")
        commit = self.provenance.commit
        _require(
            _COMMIT.fullmatch(commit) is not None, "provenance.commit", commit, "neither a commit nor unknown"
        )
        _require(self.epochs >= 1, "epochs", self.epochs, "must be at least 1")
        for name, checksum in self.files.items():
            _require(name in (HISTORY, PREDICTIONS, WEIGHTS), "files", name, "not a file of a run")
            _require(_CHECKSUM.fullmatch(checksum) is not None, f"files.{name}", checksum, "not a SHA-256")
        (self._check_finished if self.status == "finished" else self._check_failed)()

    def _check_finished(self) -> None:
        for key in ("top1", "top5", "best.top1", "best.top5"):
            value = _dotted(self, key)
            _require(value is not None and 0 <= value <= 100, key, value, "must be a percentage")
        _require(self.test_loss is not None, "test_loss", None, "a finished run has one")
        assert self.best is not None
        _require(
            1 <= self.best.epoch <= self.epochs, "best.epoch", self.best.epoch, f"of {self.epochs} epochs"
        )
        _require(self.failure is None, "failure", self.failure, "a finished run has none")
        for name in (HISTORY, PREDICTIONS):
            _require(name in self.files, "files", sorted(self.files), f"{name} is missing")

    def _check_failed(self) -> None:
        for key in ("top1", "top5", "test_loss", "best"):
            _require(getattr(self, key) is None, key, getattr(self, key), "a failed run has none")
        _require(self.failure is not None, "failure", None, "a failed run says why")

    @classmethod
    def from_json(cls, text: bytes | str, source: Path | str = RECORD) -> Record:
        """The record in `text`. Raises: UserError naming `source` and what is wrong, in one line."""
        try:
            return typed_json.build(cls, typed_json.parse(text))
        except ValueError as error:
            raise damaged(source, error) from error

    def to_json(self) -> str:
        """The text of record.json. Raises: ValueError for a number that JSON does not have."""
        return typed_json.dump(self)


def same_result(a: Record, b: Record) -> bool:
    """Whether two records say the same thing: equal in everything but their provenance, and in who kept weights."""
    if (WEIGHTS in a.files) != (WEIGHTS in b.files):
        a, b = (
            dataclasses.replace(record, files={k: v for k, v in record.files.items() if k != WEIGHTS})
            for record in (a, b)
        )
    return _without_provenance(a) == _without_provenance(b)


def describe_difference(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The dotted keys in which two nested settings differ, each with its two values as JSON (or `absent`)."""
    flat_a, flat_b = (
        {key: json.dumps(value) for key, value in flatten(settings).items()} for settings in (a, b)
    )
    pairs = {
        key: (flat_a.get(key, "absent"), flat_b.get(key, "absent")) for key in sorted({*flat_a, *flat_b})
    }
    return {key: values for key, values in pairs.items() if values[0] != values[1]}


def differences(
    runs: Sequence[tuple[str, dict[str, Any]]],
) -> Iterator[tuple[int, int, dict[str, tuple[str, str]]]]:
    """Which of these runs, (loss, settings), differ in more than the seed, and in what: two places and the difference.

    Each is held against the first of all and the first of its loss; `loss.*` counts between runs of one loss alone.
    """
    of_loss: dict[str, int] = {}
    for place, (loss, settings) in enumerate(runs):
        for first in dict.fromkeys((0, of_loss.setdefault(loss, place))):
            other_loss, others = runs[first]
            difference = {
                key: values
                for key, values in describe_difference(others, settings).items()
                if key != "seed" and (loss == other_loss or not key.startswith("loss."))
            }
            if difference:
                yield first, place, difference


def damaged(path: Path | str, problem: object) -> UserError:
    """The one line for a file whose content cannot be trusted."""
    reason = " ".join(ascii(str(problem))[1:-1].split())[:200]
    return UserError(f"{path}: {reason}; damaged or foreign: restore it from a copy, or move its folder away")


def _without_provenance(record: Record) -> str:
    # As text, because Python finds 1, 1.0 and True equal.
    content = dataclasses.asdict(record)
    del content["provenance"]
    return json.dumps(content, sort_keys=True)


def _dotted(record: Record, key: str) -> Any:
    value: Any = record
    for part in key.split("."):
        value = getattr(value, part, None)
    return value


def _require(ok: bool, key: str, value: Any, problem: str) -> None:
    if not ok:
        raise ValueError(f"{key} is {value!a:.80}: {problem}")
