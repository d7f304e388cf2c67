"""From a composed config to checked settings, and what is wrong with one in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ValidationError

from anchorloss.config.own_code import source_hash
from anchorloss.config.settings import (
    DATA_SETS,
    LARGEST_ARGUMENTS,
    PAPER_LOSSES,
    UNKNOWN,
    Config,
    DataSettings,
    Execution,
    LossSettings,
    RunSettings,
    did_you_mean,
    first_problem,
)
from anchorloss.errors import UserError

SHOW_ALL = "`python train.py --help` shows what can be set"
# Arguments of `anchor_loss` that change nothing with an anchor.
_WITHOUT_EFFECT = {
    "none": ("gamma", "gamma_target", "gamma_background", "slack"),
    "target": ("gamma_background",),
    "background": ("gamma_target",),
}
_ANCHOR_LOSS = "anchorloss.loss.anchor_loss"


def parse(config: DictConfig) -> tuple[list[RunSettings], Execution]:
    """Check a composed config and take it apart into runs and their execution.

    `precision=auto` is bf16 where the device computes it natively, else fp32.

    Raises:
        UserError: names the key, its value and the remedy.
    """
    checked = _validated(Config, OmegaConf.to_container(config, resolve=True))
    shared = {key: getattr(checked, key) for key in Execution.model_fields}
    values = {key: getattr(checked, key) for key in ("loss", "model", "data", "optim")}
    values["precision"] = checked.precision
    if checked.precision == "auto":
        from anchorloss.device import computes_bf16, resolve_device

        values["precision"] = "bf16" if computes_bf16(resolve_device(checked.device)) else "fp32"
    values["experiment"] = checked.experiment.name
    seeds = checked.seeds
    _require(len(set(seeds)) == len(seeds), "seeds", seeds, "each seed may stand there once")
    first = _checked(RunSettings(**values, seed=seeds[0]))
    return [first.model_copy(update={"seed": seed}) for seed in seeds], Execution.model_construct(**shared)


def recorded_run(experiment: str, identity: Mapping[str, Any]) -> RunSettings:
    """The run that a record's identity names.

    Raises:
        UserError: as `parse`.
    """
    return _checked(_validated(RunSettings, {**identity, "experiment": experiment}))


def unknown_key(key: str) -> str:
    """Say that there is no such key, which one is near, and how an argument of a function of one's own is added."""
    known = {"loss": [*LossSettings.model_fields, "anchor", "gamma", "slack"]}
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            known.setdefault(name, list(field.annotation.model_fields))
    group, _, last = key.rpartition(".")
    full = {name: f"{part}.{name}" for part in reversed(known) for name in known[part]}
    full |= {name: name for name in Config.model_fields}
    near: list[str] = []
    if not group.endswith(".arguments"):
        # In its own group first, where a name may stand in several.
        near = [f"{group}.{name}" for name in get_close_matches(last, known.get(group, ()), n=1, cutoff=0.7)]
        near = near or [full[name] for name in get_close_matches(last, full, n=1, cutoff=0.7)]
    if near:
        return f"{key}: there is no such key (did you mean {near[0]}?); {SHOW_ALL}"
    part = group.partition(".")[0]
    where = {"loss": "loss", "model": "model.arguments", "data": "data.arguments"}.get(part)
    own = f"; an argument of a function is added with +{where}.{last}=..." if where else ""
    return f"{key}: there is no such key{own}; {SHOW_ALL}"


def _validated(model: type[Any], values: Any) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        key, value, text = first_problem(error)
    if text == UNKNOWN:
        raise UserError(unknown_key(key))
    if text == "is missing":
        raise UserError(f"{key}: is missing; write {key}=...")
    if text == "must be a valid list" and not isinstance(value, dict | None):
        text = f"must be a list; write '{key}=[{value}]'"
    raise UserError(f"{key}={_shown(value)}: {text}")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() and value else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _require(ok: bool, key: str, value: Any, remedy: str) -> None:
    if not ok:
        raise UserError(f"{key}={_shown(value)}: {remedy}")


def _checked(run: RunSettings) -> RunSettings:
    """The run with the hashes of the source of its functions, if what it says fits together."""
    model, optim = run.model, run.optim
    if model.function is None:
        digits = re.fullmatch(r"resnet([1-9][0-9]{0,3})", model.name)
        depth = int(digits[1]) if digits else 0
        remedy = (
            "must be resnet18, resnet34, resnet50 or resnetD with D = 6n+2 from 8 to 1202; a network of your own needs "
            "model.function"
        )
        is_known = depth in (18, 34, 50) or (8 <= depth <= 1202 and depth % 6 == 2)
        _require(is_known, "model.name", model.name, remedy)
    _check_data(run.data)
    _check_loss(run.loss)
    _require(not optim.nesterov or optim.momentum > 0, "optim.nesterov", True, "needs optim.momentum > 0")
    parts = {}
    for name in ("loss", "model", "data"):
        part = getattr(run, name)
        found = None if part.function is None else source_hash(part.function)
        remedy = f"the code of {part.function} is another now (hash {found}); restore it, or leave {name}.source out"
        _require(part.source in (None, found), f"{name}.source", part.source, remedy)
        if part.function is None:
            remedy = f"are those of {name}.function, which is not set"
            _require(not part.arguments, f"{name}.arguments", part.arguments, remedy)
        parts[name] = part.model_copy(update={"source": found})
    return run.model_copy(update=parts)


def _check_data(data: DataSettings) -> None:
    if data.function is None:
        near = did_you_mean(data.name, DATA_SETS)
        remedy = f"must be one of {', '.join(DATA_SETS)}{near}; a data set of your own needs data.function"
        _require(data.name in DATA_SETS, "data.name", data.name, remedy)
    else:
        taken = {word.lower() for name, facts in DATA_SETS.items() for word in (name, facts["label"])}
        remedy = "is taken; name your data set otherwise"
        _require(data.name.lower() not in taken, "data.name", data.name, remedy)
    remedy = "needs held-out images: set data.validation=5000"
    _require(data.evaluate_on == "test" or data.validation > 0, "data.evaluate_on", data.evaluate_on, remedy)
    if data.name == "synthetic":
        for key in ("training_images", "test_images"):
            size = getattr(data, key)
            _require(size is not None, f"data.{key}", size, "the synthetic set needs a size: at least 100")
    else:
        remedy = "is for data=synthetic: other test sets are used whole"
        _require(data.test_images is None, "data.test_images", data.test_images, remedy)


def _check_loss(loss: LossSettings) -> None:
    name, arguments = loss.name, loss.arguments
    for key, largest in LARGEST_ARGUMENTS.items():
        value = arguments.get(key)
        is_right = value is None or (isinstance(value, float) and 0 <= value <= largest)
        _require(is_right, f"loss.{key}", value, f"must be a number from 0 to {largest:g}")
    anchor = arguments.get("anchor") if loss.function == _ANCHOR_LOSS else None
    if name in PAPER_LOSSES:
        # An anchor that does not exist is refused by the loss itself.
        is_its_own = anchor == PAPER_LOSSES[name] or anchor not in PAPER_LOSSES.values()
        is_the_papers = loss.function == _ANCHOR_LOSS and is_its_own
        _require(is_the_papers, "loss.name", name, "is taken; name your loss otherwise")
    for key in _WITHOUT_EFFECT.get(anchor, ()) if isinstance(anchor, str) else ():
        remedy = (
            f"changes nothing with loss.anchor={anchor} (loss={name}); choose another loss, as loss=anchor_bg"
        )
        _require(not arguments.get(key), f"loss.{key}", arguments.get(key), remedy)
