"""Save a view of an experiment in W&B: runs by loss, curves averaged over seeds, results, tables. Needs a login."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run

from anchorloss.errors import RunError, UserError


def main() -> None:
    options = parser(__doc__, experiment="table1", results_dir=None)
    options.add_argument("--project", default="anchor-loss", help="the W&B project (default: %(default)s)")
    options.add_argument("--entity", help="the W&B team or user (default: your own)")
    options.add_argument(
        "--group-by",
        nargs="+",
        default=["loss.name"],
        metavar="KEY",
        help="config keys, as in --group-by loss.gamma loss.slack (default: loss.name)",
    )
    options.add_argument("--dry-run", action="store_true", help="print the view's JSON; needs no login")
    arguments = options.parse_args()
    # W&B would otherwise report its own errors over many lines.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb

        from anchorloss.tracking import wandb_view
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install -e '.[dashboards]'") from None
    entity = arguments.entity or ("entity" if arguments.dry_run else default_entity())
    view = wandb_view.build(entity, arguments.project, arguments.experiment, arguments.group_by)
    if arguments.dry_run:
        print(json.dumps(wandb_view.as_json(view), indent=2))
        return
    try:
        wandb.setup(wandb.Settings(silent=True))
        view.save()
    except Exception as error:
        raise RunError(f"W&B did not accept the view: {error}") from None
    print(view.url)


def default_entity() -> str:
    """The user's own W&B entity.

    Raises:
        UserError: Without a login.
        RunError: If W&B does not answer.
    """
    import wandb

    remedy = "`wandb login`, or --dry-run to see the view's JSON"
    wandb.setup(wandb.Settings(silent=True))
    try:
        found = wandb.login(prompt=False, verify=False)
    except Exception as error:
        raise UserError(f"W&B: the key cannot be used ({error}); {remedy}") from None
    if not found:
        raise UserError(f"W&B: no key found; {remedy}")
    try:
        return str(wandb.Api(timeout=10).default_entity)
    except Exception as error:
        raise RunError(f"W&B: {error}") from None


if __name__ == "__main__":
    run(main)
