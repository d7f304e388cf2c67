"""The saved view of an experiment in the W&B project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

# The columns of the table of runs; W&B keeps a nested config value under `<first key>.value.<others>`.
COLUMNS = (
    "config:loss.value.name",
    "config:loss.value.gamma",
    "config:loss.value.slack",
    "config:model.value.name",
    "config:optim.value.epochs",
    "config:seed.value",
    "summary:top1",
    "summary:top5",
    "summary:best_top1",
    "summary:status",
    "config:data_label.value",
    "config:precision.value",
    "config:hash.value",
)
SCORES = {"top1": "Top-1 of the last epoch, %", "top5": "Top-5 of the last epoch, %"}
CURVES = {
    "top1": "Top-1, %",
    "top5": "Top-5, %",
    "test_loss": "Loss on the evaluation set",
    "train_loss": "Training loss",
    "train_top1": "Top-1 on augmented training images, %",
    "learning_rate": "Learning rate",
}
FACTORS = {
    "target_factor_q50": "Factor of the target term, median",
    "target_factor_q90": "Factor of the target term, 90 % quantile",
    "background_factor_q50": "Factor of the background term, median",
    "background_factor_q90": "Factor of the background term, 90 % quantile",
    "background_factor_q99": "Factor of the background term, 99 % quantile",
}
TABLES = ("per_class", "confusion")


def build(entity: str, project: str, experiment: str, group_by: Sequence[str]) -> ws.Workspace:
    """The view of one experiment's runs, grouped by the config keys `group_by`.

    Each curve shows the mean and standard deviation over the runs of a group, against the epoch.
    """
    # More than one key groups the runs in the table of runs, and panels without a key of their own follow it.
    spread: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    if len(group_by) == 1:
        spread["groupby"] = wr.Config(group_by[0])
    across = [
        *(
            wr.ParallelCoordinatesPlotColumn(wr.Config(key))
            for key in ("loss.name", "loss.gamma", "loss.slack")
        ),
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric("top1"), display_name=SCORES["top1"]),
    ]
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
            pinned_columns=list(COLUMNS),
        ),
        sections=[
            ws.Section(
                name="Result",
                is_open=True,
                pinned=True,
                panels=[
                    wr.BarPlot(title=title, metrics=[key], max_runs_to_show=100, **spread)
                    for key, title in SCORES.items()
                ],
            ),
            _lines("Curves: mean and standard deviation over seeds", CURVES, spread),
            _lines("Modulating factors on the evaluation set", FACTORS, spread),
            ws.Section(
                name="Predictions of the last epoch",
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=2, rows=1),
                panels=[wr.WeavePanelSummaryTable(table_name=name) for name in TABLES],
            ),
            ws.Section(
                name="Gamma and slack",
                layout_settings=ws.SectionLayoutSettings(columns=1, rows=1),
                panels=[wr.ParallelCoordinatesPlot(columns=across)],
            ),
        ],
    )


def _lines(name: str, metrics: dict[str, str], spread: dict[str, Any]) -> ws.Section:
    return ws.Section(
        name=name,
        is_open=True,
        panels=[
            wr.LinePlot(
                title=title,
                x="epoch",
                y=[key],
                title_x="epoch",
                ignore_outliers=False,
                smoothing_type="none",
                max_runs_to_show=100,
                **spread,
            )
            for key, title in metrics.items()
        ],
    )


def as_json(view: ws.Workspace) -> dict[str, Any]:
    """The view as it is sent to W&B."""
    model: dict[str, Any] = view._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")
    return model
