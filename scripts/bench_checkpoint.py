"""Measure what checkpoints cost a run of the small profile: time to save one, against the time between two.

Writes results/bench/checkpoint-DEVICE.csv; a file that is there is kept.
"""

from __future__ import annotations

import statistics
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

import torch
from _common import folder, parser, run

from anchorloss.config.identity import LossSettings, RunSettings
from anchorloss.config.settings import Config, DataSettings, ModelSettings, OptimSettings
from anchorloss.data.dataset import load_dataset
from anchorloss.device import describe, slug
from anchorloss.runs import checkpoint, provenance
from anchorloss.runs.files import write_once
from anchorloss.training.trainer import Trainer, TrainingImages


def measure(steps: int, saves: int) -> tuple[float, float]:
    """Median seconds of a training step of ResNet-8 on the CPU, and of a checkpoint."""
    data = DataSettings(name="synthetic", training_images=5000, test_images=100)
    loss = LossSettings("bce", "anchorloss.loss.anchor_loss", {"anchor": "none"})
    settings = RunSettings("bench", loss, ModelSettings("resnet8"), data, OptimSettings(), "bf16", 0)
    device = torch.device("cpu")
    images = TrainingImages.of(load_dataset(data), device)
    trainer = Trainer(settings, images, device)
    trainer.start_epoch(0)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:

        def save() -> None:
            checkpoint.save(Path(folder), settings.hash, {"trainer": trainer.state(), "history": []})

        return _median_seconds(trainer.train_step, min(steps, trainer.steps)), _median_seconds(save, saves)


def _median_seconds(work: Callable[[], object], times: int) -> float:
    # With the garbage collector on, as in training; timeit turns it off.
    return statistics.median(timeit.repeat(work, "import gc; gc.enable()", number=1, repeat=times))


def main() -> None:
    options = parser(__doc__, results_dir=None)
    options.add_argument("--output", type=folder, default=Path("results/bench"), help="default: %(default)s")
    arguments = options.parse_args()
    step, save = measure(steps=30, saves=20)
    interval = Config().checkpoint_seconds
    share = 100 * save / interval
    device = describe(torch.device("cpu"))
    print(f"{device}: a step {1000 * step:.1f} ms, a checkpoint {1000 * save:.1f} ms")
    print(f"one checkpoint every {interval:.0f} s of training: {share:.3f} % of the time")
    commit, dirty = provenance.commit()
    rows = (
        "device,torch,commit,dirty,model,step_seconds,checkpoint_seconds,interval_seconds,share_percent\n"
        f'"{device}",{torch.__version__},{commit},{dirty},resnet8,{step:.5f},{save:.5f},{interval:.0f},{share:.4f}\n'
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"checkpoint-{slug(device)}.csv"
    try:
        write_once(path, rows.encode())
    except FileExistsError:
        print(f"{path} is there already and stays as it is")


if __name__ == "__main__":
    run(main)
