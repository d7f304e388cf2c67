"""What Hydra takes in its own way, or refuses over many lines, as one line: what is wrong, and what to use instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from anchorloss.config.parsing import SHOW_ALL, unknown_key
from anchorloss.config.settings import did_you_mean
from anchorloss.config.yaml_files import config_files
from anchorloss.errors import UserError

_GROUPS = ("loss", "model", "data", "optim", "experiment", "logger")


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse overrides that Hydra takes and that would quietly train something else.

    Raises:
        UserError: for `~optim`, `optim=null`, `model=[a,b]`, `seeds=0,1`, another class as launcher or sweeper, and
            overrides without a key.
    """
    for argument in arguments:
        key, equals, value = argument.partition("=")
        name, is_removed = key.lstrip("+~"), key.startswith("~") and value in ("", "null")
        problem = None
        if equals and not name:
            problem = f"has no key; write key=value. {SHOW_ALL}"
        elif name == "seeds" and re.fullmatch(r"\d+(,\d+)*", value):
            problem = f"must be a list; write 'seeds=[{value}]', which needs no -m"
        elif name in ("hydra.launcher._target_", "hydra.sweeper._target_"):
            problem = "cannot be replaced; choose a launcher, as in hydra/launcher=slurm"
        elif name in _GROUPS and (
            is_removed or (equals and value in ("", "null")) or value[:1] in ("[", "{")
        ):
            problem = f"a run needs one {name} config; choose one, as in {name}=NAME"
            if value.startswith("[") and name not in ("experiment", "logger"):
                problem += f"; write {name}=a,b to sweep over several"
        if problem:
            raise UserError(f"{argument}: {problem}")


@contextmanager
def config_errors(folders: Sequence[Path]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise for a config composed from these folders into `UserError`."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error)) from error
    except RecursionError as error:
        lists = [str(path) for path in config_files(folders[1:]) if "defaults:" in path.read_text("utf-8")]
        if not lists:
            raise
        raise UserError(f"{', '.join(lists)}: a defaults list leads back to itself; shorten it") from error
    except Exception as error:
        *_, (frame, _) = walk_tb(error.__traceback__)
        module = frame.f_globals.get("__name__", "").partition(".")[0]
        if isinstance(error, UserError) or module not in ("hydra", "omegaconf", "antlr4", "yaml"):
            raise
        raise UserError(f"the config cannot be composed: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    text = str(error)
    if option := re.search(r"Could not find '((?:hydra/)?\w+)/(.+?)'", text):
        options = text.partition("Available options")[2].partition("Config search path")[0].split()[2:]
        known = f"; use one of {', '.join(options)}" if options else ""
        return f"{option[1]}={option[2]}: there is no such config{did_you_mean(option[2], options)}{known}"
    if key := re.search(r"Could not override '([^']+)'", text):
        return unknown_key(key[1])
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as key=value; quote what is not plain, as in key='\"a b\"'"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {text.splitlines()[0]}; write its value out"
    if isinstance(error.__cause__, UserError):  # of a launcher
        return str(error.__cause__)
    said = " ".join(text.partition("Config search path")[0].split())
    cause = str(error.__cause__ or "")
    return f"{said}: {cause.splitlines()[0]}" if cause else f"{said}; {SHOW_ALL}"
