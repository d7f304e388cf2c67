"""record.json: what it holds, how it is written, and how it is read back. Its keys are explained in docs/architecture.md.

What follows from a run's settings and outcome has one writer, `Record.of`. Reading makes the record again from its
identity, and refuses a file that says anything else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anchorloss.config.settings import NAME, Name, Text, data_label, first_problem, identity_hash
from anchorloss.runs.files import damaged, sha256

RECORD, HISTORY, PREDICTIONS = "record.json", "history.csv", "predictions.npz"
WEIGHTS = "weights.safetensors"  # with keep_weights=true alone
RUN_NAME = re.compile(
    rf"(?P<loss>{NAME.pattern})-(?P<model>{NAME.pattern})-seed(?P<seed>\d{{1,10}})-[0-9a-f]{{10}}"
)
_OUTCOME = ("top1", "top5", "test_loss", "best", "failure")

Percentage = Annotated[float, Field(ge=0, le=100)]
# No loss in float32 comes near it; larger numbers overflow in what is computed from them, as sums and plots.
Finite = Annotated[float, Field(ge=-1e60, le=1e60)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Epoch = Annotated[int, Field(ge=1, le=1_000_000)]
FileName = Annotated[str, Field(pattern=r"^(history\.csv|predictions\.npz|weights\.safetensors)$")]
Checksum = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


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

    commit: Annotated[str, Field(pattern="^[0-9a-z]{1,64}$")]
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


class Record(StrictModel):
    """The content of record.json. Accuracies in percent, of the last epoch, on the set that `evaluated_on` names.

    Keys that a record does not have are not written back, so a new optional key leaves old records as they are.
    """

    format: Literal[1]
    status: Literal["finished", "failed"]
    experiment: Name
    run: Text
    loss: Name
    model: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    epochs: Epoch
    evaluated_on: Literal["test", "validation"]
    top1: Percentage | None
    top5: Percentage | None
    test_loss: Finite | None
    best: Best | None
    failure: Failure | None
    data: Data
    identity: dict[str, Any]
    hash: str
    files: dict[FileName, Checksum]
    provenance: Provenance
    # SHA-256 of the same text without this key. Records made before December 2026 have none.
    checksum: Checksum | None = None

    @classmethod
    def of(
        cls,
        experiment: str,
        identity: dict[str, Any],
        *,
        data: Data,
        files: dict[str, str],
        provenance: Provenance,
        has_checksum: bool = True,
        **outcome: Any,
    ) -> Self:
        """The record of a run that ended; name and label of the data, and the precision, are those of its identity.

        Args:
            experiment: the experiment's name.
            identity: the run's settings, as `RunSettings.identity` gives them.
            data: what it was trained on.
            files: the SHA-256 of each file beside the record.
            provenance: where the result comes from.
            has_checksum: False for a record as they were before there was one.
            **outcome: `top1`, `top5`, `test_loss` and `best` of a run that reached its last epoch, else its `failure`.

        Raises: pydantic.ValidationError, a ValueError, if a value is not one that a record holds.
        """
        loss, model, seed = identity["loss"]["name"], identity["model"]["name"], identity["seed"]
        digest, data_set = identity_hash(identity), identity["data"]
        named = {
            "name": data_set["name"],
            "label": data_label(data_set["name"], data_set.get("training_images")),
        }
        record = cls(
            format=1,
            status="finished" if outcome.get("failure") is None else "failed",
            experiment=experiment,
            run=f"{loss}-{model}-seed{seed}-{digest}",
            loss=loss,
            model=model,
            seed=seed,
            epochs=identity["optim"]["epochs"],
            evaluated_on=data_set["evaluate_on"],
            data=data.model_copy(update=named),
            identity=identity,
            hash=digest,
            files=files,
            provenance=provenance.model_copy(update={"precision": identity["precision"]}),
            **dict.fromkeys(_OUTCOME) | outcome,
        )
        if not has_checksum:
            return record
        return record.model_copy(update={"checksum": sha256(record.to_json().encode())})

    @model_validator(mode="after")
    def _check_outcome(self) -> Self:
        measured = (self.top1, self.top5, self.test_loss, self.best)
        expected = 0 if self.status == "failed" else len(measured)
        if len(measured) - measured.count(None) != expected:
            raise ValueError("must have all of top1, top5, test_loss and best, or a failure and none of them")
        return self

    @classmethod
    def from_json(cls, text: bytes, source: Path | str = RECORD) -> Self:
        """The record in `text`, which is what `of` would write from its identity.

        Raises:
            UserError: names `source` and what is wrong, in one line.
        """
        try:
            found = cls.model_validate_json(text)
            outcome = {key: getattr(found, key) for key in _OUTCOME}
            again = cls.of(
                found.experiment,
                found.identity,
                data=found.data,
                files=found.files,
                provenance=found.provenance,
                has_checksum="checksum" in found.model_fields_set,
                **outcome,
            )
            written = again.to_json().encode()
        except ValidationError as error:
            key, value, problem = first_problem(error)
            raise damaged(source, f"{key} is {value!a:.80}: {problem}" if key else problem) from None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise damaged(source, f"its identity is not that of a run ({error!a:.80})") from None
        for key, value in again:
            if value != getattr(found, key):
                raise damaged(source, f"{key} is {getattr(found, key)!a:.80}: must be {value!a:.80}")
        if written != text:
            raise damaged(source, "is not written as a run writes it")
        return again

    def to_json(self) -> str:
        """The text of record.json. Raises: ValueError for a number that JSON does not have."""
        content = self.model_dump(exclude_unset=True)
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def result(self) -> dict[str, Any]:
        """The record as plain nested data without provenance and checksum: what two equal results have alike."""
        return self.model_dump(exclude={"provenance", "checksum"}, exclude_unset=True)
