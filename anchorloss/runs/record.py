"""The content of record.json: its format, its reading and writing.

The format is described under "The run folder" in docs/architecture.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from anchorloss.config.identity import identity_hash
from anchorloss.config.settings import (
    NAME,
    DataSettings,
    ModelSettings,
    Name,
    OptimSettings,
    Text,
    data_label,
)
from anchorloss.config.validation import OneOf, Written, first_problem
from anchorloss.errors import UserError
from anchorloss.runs.reading import LARGEST_MEASURED, check_plain, damaged, parse_json, require

if TYPE_CHECKING:
    from anchorloss.config.identity import RunSettings

RECORD, HISTORY, PREDICTIONS = "record.json", "history.csv", "predictions.npz"
WEIGHTS = "weights.safetensors"  # with keep_weights=true alone
RUN_NAME = re.compile(
    rf"(?P<loss>{NAME.pattern})-(?P<model>{NAME.pattern})-seed(?P<seed>\d{{1,10}})-[0-9a-f]{{10}}"
)
_OUTCOME = ("top1", "top5", "test_loss", "best", "failure")


def _known_format(number: int) -> int:
    if number != 1:
        raise ValueError("only format 1 is known")
    return number


Percentage = Annotated[float, Field(ge=0, le=100)]
Finite = Annotated[float, Field(ge=-LARGEST_MEASURED, le=LARGEST_MEASURED)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Epoch = Annotated[int, Field(ge=1, le=1_000_000)]
Checksum = Annotated[str, Written(re.compile("sha256:[0-9a-f]{64}").fullmatch, "a SHA-256")]


class StrictModel(BaseModel):
    """Strict: no unknown key, no conversion between types, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Best(StrictModel):
    """The best epoch by Top-1, for information; the result is the last epoch's."""

    epoch: Epoch
    top1: Percentage
    top5: Percentage


class Failure(StrictModel):
    """Where a run diverged; `last_finite_loss` is None when not even the first loss was finite.

    `step` is -1 if the loss was finite in training and not on the evaluation set.
    """

    epoch: Epoch
    step: Annotated[int, Field(ge=-1, lt=2**53)]
    reason: Text
    last_finite_loss: Finite | None


class Data(StrictModel):
    """What a run was trained and evaluated on."""

    name: Name
    label: Text
    checksum: Text
    training_images: Count
    evaluation_images: Count
    # Of a data set of one's own.
    class_names: list[Text] | None = None


class Provenance(StrictModel):
    """Where a result comes from: the only part in which two records of one result may differ.

    `commit` is `unknown` outside of git.
    """

    commit: Annotated[str, Written(re.compile("[0-9a-z]{1,64}").fullmatch, "a commit or unknown")]
    dirty: bool
    versions: dict[Text, Text]
    device: Text
    host: Text
    precision: Text
    started: Text
    finished: Text
    duration_seconds: Finite
    resumed: Count
    # Whether the network was compiled, which rounds differently.
    compile: bool = False
    # The segments before a resume that had another commit, device or versions, by number; null if there was none.
    earlier: dict[Text, Text] | None = None
    # Torch threads of a run on a CPU, which decide how it rounds; null elsewhere. `device` says it too, for people.
    threads: Count | None = None


class _Identity(StrictModel):
    """The settings that were hashed, with the types and ranges of `Config`."""

    loss: dict[str, Any]
    model: ModelSettings
    data: DataSettings
    optim: OptimSettings
    precision: Text
    seed: Annotated[int, Field(ge=0, lt=2**31)]


class Record(StrictModel):
    """The content of record.json. Accuracies in percent, of the last epoch, on the set that `evaluated_on` names.

    Keys that a record does not have are not written back, so a new optional key leaves old records as they are.

    Raises:
        pydantic.ValidationError: a ValueError; if made from values that contradict each other.
    """

    format: Annotated[int, AfterValidator(_known_format)]
    status: Annotated[str, OneOf("finished", "failed")]
    experiment: Name
    run: Text
    loss: Name
    model: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    epochs: Epoch
    evaluated_on: Annotated[str, OneOf("test", "validation")]
    top1: Percentage | None
    top5: Percentage | None
    test_loss: Finite | None
    best: Best | None
    failure: Failure | None
    data: Data
    identity: dict[str, Any]
    hash: str
    files: dict[Annotated[str, OneOf(HISTORY, PREDICTIONS, WEIGHTS)], Checksum]
    provenance: Provenance

    @classmethod
    def finished(
        cls, settings: RunSettings, *, top1: float, top5: float, test_loss: float, best: Best, **common: Any
    ) -> Record:
        """The record of a run that reached its last epoch; `common` is its data, files and provenance."""
        return cls._of(settings, top1=top1, top5=top5, test_loss=test_loss, best=best, **common)

    @classmethod
    def failed(cls, settings: RunSettings, *, failure: Failure, **common: Any) -> Record:
        """The record of a run that diverged; `common` is its data, files and provenance."""
        return cls._of(settings, failure=failure, **common)

    @classmethod
    def _of(
        cls,
        settings: RunSettings,
        *,
        data: Data,
        files: dict[str, str],
        provenance: Provenance,
        **outcome: Any,
    ) -> Record:
        return cls(
            format=1,
            status="failed" if "failure" in outcome else "finished",
            experiment=settings.experiment,
            run=settings.run,
            loss=settings.loss.name,
            model=settings.model.name,
            seed=settings.seed,
            epochs=settings.optim.epochs,
            evaluated_on=settings.data.evaluate_on,
            data=data,
            identity=settings.identity(),
            hash=settings.hash,
            files=files,
            provenance=provenance,
            **dict.fromkeys(_OUTCOME) | outcome,
        )

    @model_validator(mode="after")
    def _check(self) -> Record:
        self._check_identity()
        label = data_label(self.data.name, self.identity["data"].get("training_images"))
        problem = f"must be {label}, as the data set is {self.data.name}"
        require(self.data.label == label, "data.label", self.data.label, problem)
        self._check_outcome()
        return self

    def _check_identity(self) -> None:
        """The identity is what the hash is made of, and says the same as the fields beside it."""
        check_plain(self.identity)
        require(self.hash == identity_hash(self.identity), "hash", self.hash, "must be that of the identity")
        run = f"{self.loss}-{self.model}-seed{self.seed}-{self.hash}"
        require(self.run == run, "run", self.run, f"must be {run:.120}")
        for key, value in (
            ("loss.name", self.loss),
            ("model.name", self.model),
            ("data.name", self.data.name),
            ("data.evaluate_on", self.evaluated_on),
            ("optim.epochs", self.epochs),
            ("precision", self.provenance.precision),
            ("seed", self.seed),
        ):
            found: Any = self.identity
            for part in key.split("."):
                found = found.get(part) if isinstance(found, dict) else None
            same = type(found) is type(value) and found == value
            require(same, f"identity.{key}", found, f"must be {value}, as the record says beside it")
        try:
            _Identity.model_validate_json(json.dumps(self.identity))
        except ValidationError as error:
            key, value, text = first_problem(error)
            require(False, f"identity.{key}", value, text)

    def _check_outcome(self) -> None:
        for key in _OUTCOME:
            value = getattr(self, key)
            needed = (key == "failure") == (self.status == "failed")
            problem = f"must be {'there' if needed else 'null'} in a {self.status} run"
            require((value is not None) == needed, key, value, problem)
        for part, epoch in (("best", self.best), ("failure", self.failure)):
            if epoch is not None:
                problem = f"must not be above epochs, {self.epochs}"
                require(epoch.epoch <= self.epochs, f"{part}.epoch", epoch.epoch, problem)
        if self.top1 is None or self.top5 is None or self.best is None:  # a failed run
            return
        top1, best = self.top1, self.best
        require(top1 <= self.top5, "top1", top1, f"must not be above top5, {self.top5}")
        require(best.top1 <= best.top5, "best.top1", best.top1, "must not be above best.top5")
        require(top1 <= best.top1, "best.top1", best.top1, f"must not be below top1, {top1}")
        for name in (HISTORY, PREDICTIONS):
            require(name in self.files, "files", sorted(self.files), f"must have {name}")

    @classmethod
    def from_json(cls, text: bytes | str, source: Path | str = RECORD) -> Record:
        """The record in `text`.

        Raises:
            UserError: names `source` and what is wrong, in one line.
        """
        try:
            return cls.model_validate(parse_json(text))
        except ValidationError as error:
            key, value, text = first_problem(error)
            if not key and not text.startswith("must be"):  # a rule across keys, which says which they are
                raise damaged(source, text) from None
            found = "" if text == "is missing" else f" is {value!a:.80}"
            raise damaged(source, f"{key or 'the whole file'}{found}: {text}") from None
        except ValueError as error:
            raise damaged(source, error) from None

    def to_json(self) -> str:
        """The text of record.json. Raises: ValueError for a number that JSON does not have."""
        content = self.model_dump(exclude_unset=True, warnings="none")
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def result(self) -> dict[str, Any]:
        """The record as plain nested data without its provenance: what two equal results have alike."""
        return self.model_dump(exclude={"provenance"}, exclude_unset=True, warnings="none")


def require_recordable(settings: RunSettings) -> None:
    """Make sure, before a run is trained, that its outcome can be recorded.

    Raises:
        UserError: names the setting that no record accepts.
    """
    unknown = "not known yet"
    data, precision = settings.data, settings.precision
    facts = {
        "name": data.name,
        "label": data.label,
        "training_images": 0,
        "evaluation_images": 0,
        "checksum": unknown,
    }
    told = dict.fromkeys(("device", "host", "started", "finished"), unknown)
    none = {"dirty": False, "versions": {}, "duration_seconds": 0.0, "resumed": 0}
    try:
        Record.failed(
            settings,
            failure=Failure(epoch=1, step=0, reason=unknown, last_finite_loss=None),
            data=Data.model_validate(facts),
            files={},
            provenance=Provenance.model_validate(
                {"commit": "unknown", "precision": precision, **told, **none}
            ),
        )
    except ValidationError as error:
        key, value, problem = first_problem(error)
        said = f"{key}={value!a:.80}: {problem}" if key else problem
        raise UserError(f"{said}; no record of {settings.run:.120} could hold it") from None
