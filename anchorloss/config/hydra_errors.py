"""Hydra's and OmegaConf's complaints as one line: which override, what is wrong, what to use instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from anchorloss.errors import UserError


@contextmanager
def config_errors() -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise for a wrong config into `UserError`."""
    try:
        yield
    except YAMLError as error:
        raise UserError(" ".join(f"a config is not YAML: {error}".split())) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error)) from error
    except (ValueError, TypeError, AttributeError, KeyError, AssertionError, RecursionError) as error:
        if not _raised_by_hydra(error):
            raise
        raise UserError(f"the config cannot be composed: {_explain(error)}") from error


def _raised_by_hydra(error: Exception) -> bool:
    """Whether the exception was raised in the code of Hydra, OmegaConf or a parser of theirs."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.partition(".")[0] in ("hydra", "omegaconf", "antlr4", "yaml")


def _explain(error: Exception) -> str:
    text = str(error)
    unknown_option = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if unknown_option:
        group, option = unknown_option.groups()
        options = text.partition("Available options")[2].partition("Config search path")[0].split()[2:]
        return f"{group}={option}: there is no such config; use one of {', '.join(options)}"
    unknown_key = re.search(r"Could not override '([^']+)'", text)
    if unknown_key:
        return (
            f"{unknown_key.group(1)}: there is no such key; `python train.py --cfg job` shows those there are"
        )
    cause = error.__cause__
    detail = (
        str(cause).splitlines()[0] if cause is not None else "`python train.py --help` shows how to write it"
    )
    return f"{' '.join(text.split())}: {detail}"
