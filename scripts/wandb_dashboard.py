"""Save a view of an experiment in W&B: curves as mean and deviation over seeds, results, tables. Needs a login."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run

from anchorloss.config.settings import RunSettings
from anchorloss.errors import RunError, UserError

CONFIG = ("loss.value.name", "loss.value.gamma", "loss.value.slack", "model.value.name", "seed.value")
COLUMNS = [*(f"config:{key}" for key in CONFIG), "summary:top1", "summary:top5", "summary:status"]
SCORES = {"top1": "Top-1 of the last epoch, %", "top5": "Top-5 of the last epoch, %"}
CURVES = {
    **dict.fromkeys(("test", "validation"), ("top1", "top5", "loss")),
    "train": ("loss", "top1", "learning_rate", "images_per_second"),
    "factors": ("target_q50", "target_q90", "background_q50", "background_q90", "background_q99"),
}


def build(entity: str, project: str, experiment: str, group_by: list[str]) -> Any:
    """The view of one experiment's runs, grouped by the config keys `group_by`."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    shown: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    if len(group_by) == 1:  # more than one key groups the table of runs, which panels without a key follow
        shown["groupby"] = wr.Config(group_by[0])
    panels: dict[str, list[Any]] = {
        "results": [wr.BarPlot(title=title, metrics=[key], **shown) for key, title in SCORES.items()],
        "predictions": [wr.WeavePanelSummaryTable(table_name=name) for name in ("per_class", "confusion")],
    }
    for part, names in CURVES.items():
        keys = [f"{part}/{name}" for name in names]
        panels[part] = [wr.LinePlot(title=key, x="epoch", y=[key], **shown) for key in keys]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"Anchor Loss: {experiment}",
        auto_generate_panels=False,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=50),
        runset_settings=ws.RunsetSettings(
            filters=[ws.Config("experiment") == experiment],
            groupby=[ws.Config(key) for key in group_by],
            order=[ws.Ordering(ws.Summary("top1"), ascending=False)],
            pinned_columns=COLUMNS,
        ),
        sections=[ws.Section(name=name, is_open=True, panels=each) for name, each in panels.items()],
    )


def main() -> None:
    options = parser(__doc__, experiment="table1")
    options.add_argument("--project", default="anchor-loss", help="the W&B project (default: %(default)s)")
    options.add_argument("--entity", help="the W&B team or user (default: your own)")
    options.add_argument("--group-by", nargs="+", default=["loss.name"], help="default: loss.name")
    options.add_argument("--dry-run", action="store_true", help="print the view's JSON; needs no login")
    given = options.parse_args()
    configs = Path(__file__).parents[1].glob("configs/experiment/*.yaml")
    if given.experiment not in {path.stem for path in (*configs, *given.results_dir.glob("runs/*"))}:
        raise UserError(f"--experiment {given.experiment}: {given.results_dir}/runs has no such experiment")
    for name in given.group_by:
        part, _, key = name.partition(".")
        group = getattr(RunSettings.model_fields.get(part), "annotation", None)
        if part not in ("seed", "precision", "loss") and key not in getattr(group, "model_fields", ()):
            raise UserError(f"--group-by {name}: no such setting; name one, as loss.gamma or optim.lr")
    os.environ.update({"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"})
    try:
        import wandb

        if not given.dry_run and not wandb.login(prompt=False, verify=False):
            raise UserError("W&B: no key found; `wandb login`, or --dry-run to see the view's JSON")
        entity = given.entity or ("entity" if given.dry_run else str(wandb.Api(timeout=10).default_entity))
        view = build(entity, given.project, given.experiment, given.group_by)
        if not given.dry_run:
            view.save()
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install -e '.[dashboards]'") from None
    except (ValueError, wandb.errors.AuthenticationError) as error:
        raise UserError(f"W&B: {error}; `wandb login` with another key, or give another name") from None
    except Exception as error:
        raise error if isinstance(error, UserError) else RunError(f"W&B: {error}") from None
    model = view._to_model() if given.dry_run else None
    print(json.dumps(model.model_dump(by_alias=True, exclude_none=True, mode="json")) if model else view.url)


if __name__ == "__main__":
    run(main)
