"""Invasive ductal carcinoma, whole study: both grids, from slides to two reports and a table of results.

WSI_MIL_TEST_DATA=../shared/data python pipelines/idc.py --work work [--on processes:2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

STUDY = Path(__file__).parents[1] / "configs" / "idc.yaml"
GRIDS = ("tiles.csv", "tiles_needle.csv")


def main() -> None:
    """Run the study on each grid and print what they found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--on", default="here")
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    data = Path(os.environ["WSI_MIL_TEST_DATA"]).absolute() / "idc"
    rows = []
    for grid in GRIDS:
        work = arguments.work / f"idc_{Path(grid).stem}"
        settings = [f"tile.table={data / grid}", f"report.truth={data / grid}", *arguments.settings]
        command = [sys.executable, "-m", "wsi_mil", "run", str(STUDY), *settings, "--work", str(work)]
        subprocess.run([*command, "--on", arguments.on], check=True)
        rows.append((grid, json.loads((work / "report" / "figures.json").read_text())))
    print_table(rows)


def print_table(rows: list[tuple[str, dict]]) -> None:  # type: ignore[type-arg]
    """One column a grid, as Markdown."""
    print("| slide AUROC (95 % interval) | " + " | ".join(grid for grid, _ in rows) + " |")
    print("|---" * (len(rows) + 1) + "|")
    names = ["gated attention MIL", *rows[0][1]["baselines_auroc"]]
    for name in names:
        told = [one["slides"]["auroc"] if name == names[0] else one["baselines_auroc"][name] for _, one in rows]
        print(f"| {name} | " + " | ".join(f"{v['value']:.3f} ({v['low']:.3f} to {v['high']:.3f})" for v in told) + " |")
    for part in rows[0][1]["tile_auroc"]:
        for name in rows[0][1]["tile_auroc"][part]:
            told = [one["tile_auroc"].get(part, {}).get(name) for _, one in rows]
            cells = " | ".join(f"{v['mean']:.3f} ({v['slides']} slides)" if v else "–" for v in told)
            print(f"| mean tile AUROC, {part}: {name} | {cells} |")


if __name__ == "__main__":
    main()
