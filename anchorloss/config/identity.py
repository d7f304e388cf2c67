"""The identity of a run: the settings that can change its result, and the hash of them in its name.

What only decides where or how fast a run trains stands in `Execution` and never reaches the identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from anchorloss.config.settings import DataSettings, ModelSettings, OptimSettings


@dataclass(frozen=True)
class LossSettings:
    """A loss by its name, the dotted path of its function, and the arguments that go with `(logits, target)`."""

    name: str
    function: str
    arguments: Mapping[str, Any]
    # How scores become probabilities: `sigmoid` or `softmax`; None where the function says so itself.
    scores: str | None = None
    # Hash of the function's source, where it is not part of this package.
    source: str | None = None

    def identity(self) -> dict[str, Any]:
        """The part of a run's identity that says which loss it is."""
        extras = {"scores": self.scores, "source": self.source}
        set_extras = {key: value for key, value in extras.items() if value is not None}
        return {"name": self.name, "function": self.function, **self.arguments, **set_extras}


def identity_hash(identity: Mapping[str, Any]) -> str:
    """The first 10 hex digits of the SHA-256 of an identity's JSON with sorted keys."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class RunSettings:
    """Everything that can change the result of one run, and the experiment it is filed under."""

    experiment: str
    loss: LossSettings
    model: ModelSettings
    data: DataSettings
    optim: OptimSettings
    precision: str
    seed: int

    def identity(self) -> dict[str, Any]:
        """The settings that can change the result, as plain nested data; what the hash is made of."""
        data = _without_unset(asdict(self.data))
        del data["root"], data["download"]
        return {
            "loss": self.loss.identity(),
            "model": _without_unset(asdict(self.model)),
            "data": data,
            "optim": asdict(self.optim),
            "precision": self.precision,
            "seed": self.seed,
        }

    @property
    def functions(self) -> tuple[str, ...]:
        """The import paths of the loss, and of the network and data set where they have one."""
        return tuple(
            part.function for part in (self.loss, self.model, self.data) if part.function is not None
        )

    @property
    def hash(self) -> str:
        """The run's `identity_hash`."""
        return identity_hash(self.identity())

    @property
    def run(self) -> str:
        """The name of the run's folder; legal on Windows."""
        return f"{self.loss.name}-{self.model.name}-seed{self.seed}-{self.hash}"


def _without_unset(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out the keys that came later, as long as they are not set: identities from before have none of them."""
    return {
        key: value
        for key, value in settings.items()
        if key not in ("function", "arguments", "source") or value
    }
