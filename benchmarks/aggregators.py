"""Time and memory of one step of every aggregator as bags grow, ours beside torchmil's where both have the method.

    python benchmarks/aggregators.py [--models abmil,gtp] [--tiles 1000,10000,50000,200000] [--device cuda]

Forward and backward pass on one bag of 1,024 numbers a tile, default options, float32, training mode; ours builds its
graph within the step, torchmil's is there before (the row `graph` compares the building). Each row is a process of its
own: seconds (of the process where it runs on the CPU) are the better of two steps, memory is the peak of the process
less what it held before the step, features not counted. torchmil (pip install torchmil, for this benchmark only) gets
modules of the same widths and depths. Methods whose attention is N x N stop at 10,000 tiles. GFLOP are the
multiplications that PyTorch counts, forward and backward: below them no step can go.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

DIM = 1024
QUADRATIC = ("gashis", "mil_vt", "persam")
"""Their attention is N x N."""
MOST_QUADRATIC = 10_000
LIMIT_S = 240
PEERS = ("abmil", "clam", "dsmil", "gtp", "patch_gcn", "transmil")


def main() -> None:
    """Print a row a model and size as soon as it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="")
    parser.add_argument("--tiles", default="1000,10000,50000,200000")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs=3, metavar=("WHOSE", "MODEL", "TILES"), help="used by the command itself")
    arguments = parser.parse_args()
    if arguments.one:
        whose, name, tiles = arguments.one
        print(json.dumps(measure(whose, name, int(tiles), arguments.device)))
        return
    names = arguments.models.split(",") if arguments.models else ["graph", *known_models()]
    sizes = [int(size) for size in arguments.tiles.split(",")]
    print(f"| {'method':>16} | " + " | ".join(f"{size:,} tiles" for size in sizes) + " |")
    print("|---" * (len(sizes) + 1) + "|")
    for name in names:
        for whose in ("ours", "torchmil") if name in (*PEERS, "graph") else ("ours",):
            cells = [run_one(whose, name, size, arguments.device) for size in sizes]
            print(
                f"| {name + (' (torchmil)' if whose == 'torchmil' else ''):>16} | " + " | ".join(cells) + " |",
                flush=True,
            )


def known_models() -> list[str]:
    """Names of all aggregators."""
    from wsi_mil.models import MODELS

    return sorted(MODELS)


def run_one(whose: str, name: str, tiles: int, device: str) -> str:
    """One cell: seconds, memory and arithmetic, or why there are none."""
    if name in QUADRATIC and tiles > MOST_QUADRATIC:
        return "N x N: not run"
    command = [sys.executable, __file__, "--one", whose, name, str(tiles), "--device", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"over {LIMIT_S} s"
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["killed: out of memory"])[-1]
        return reason[:60]
    told = json.loads(done.stdout)
    return f"{told['seconds']:.3g} s, {told['mb']:,.0f} MB" + (f", {told['gflop']:.3g} GFLOP" if told["gflop"] else "")


def measure(whose: str, name: str, tiles: int, device: str) -> dict[str, float]:
    """Seconds, peak MB and GFLOP of a step."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    torch.manual_seed(0)
    side = math.isqrt(tiles - 1) + 1
    places = torch.stack([torch.arange(tiles) % side, torch.arange(tiles) // side], dim=1)
    features = torch.randn(tiles, DIM)
    step = (graph_step if name == "graph" else ours if whose == "ours" else theirs)(
        whose if name == "graph" else name, features.to(device), places.to(device)
    )
    before = resident(device)
    # on one thread the time of the process is that of the step, whoever else is on the machine
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds = []
    for _ in range(2):
        start = clock()
        step()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    peak = resident(device) - before
    gflop = 0.0
    if name != "graph" and tiles <= 10_000:
        with FlopCounterMode(display=False) as counter:
            step()
        gflop = counter.get_total_flops() / 1e9
    return {"seconds": min(seconds), "mb": peak / 2**20, "gflop": gflop}


def resident(device: str) -> int:
    """Most bytes held so far."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ours(name: str, features: Any, places: Any, **options: Any) -> Callable[[], None]:
    """A training step of one of our methods, its auxiliary values included."""
    import torch

    from wsi_mil.models import build_model

    model = build_model(name, dim=DIM, n_out=2, **options).to(features.device).train()
    offsets = torch.tensor([0, len(features)])

    def step() -> None:
        model.zero_grad()
        pooled = model(features, places, offsets)
        terms = [pooled.aux[key].sum() for key in model.losses if key in pooled.aux]
        (pooled.logits.sum() + sum(terms)).backward()

    return step


def theirs(name: str, features: Any, places: Any) -> Callable[[], None]:
    """A training step of torchmil's method of the same widths."""
    import torch
    from torch import nn

    def project(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(DIM, width), nn.ReLU())

    shape: tuple[int, ...] = (DIM,)
    if name == "abmil":
        from torchmil.models.abmil import ABMIL

        model: nn.Module = ABMIL(shape, att_dim=128, gated=True, feat_ext=project(256))
    elif name == "clam":
        from torchmil.models.clam import CLAM_SB

        model = CLAM_SB(
            shape, att_dim=128, gated=True, k_sample=8, inst_loss_name="CrossEntropyLoss", feat_ext=project(256)
        )
    elif name == "dsmil":
        from torchmil.models.dsmil import DSMIL

        model = DSMIL(shape, att_dim=128, feat_ext=project(256))
    elif name == "transmil":
        from torchmil.models.transmil import TransMIL

        model = TransMIL(shape, att_dim=512, n_layers=2, n_heads=8, n_landmarks=256, feat_ext=project(512))
    elif name == "patch_gcn":
        from torchmil.models.patch_gcn import PatchGCN

        model = PatchGCN(shape, n_gcn_layers=3, hidden_dim=128, att_dim=128, feat_ext=project(128))
    else:
        from torchmil.models.gtp import GTP

        model = GTP(shape, att_dim=64, n_clusters=100, n_layers=3, n_heads=8, feat_ext=project(64))
    model = model.to(features.device).train()
    bag = features[None]
    label = torch.ones(1, device=features.device)
    graph = torch.stack([their_graph(places, features)]) if name in ("gtp", "patch_gcn") else None

    def step() -> None:
        model.zero_grad()
        if graph is not None:
            _, losses = model.compute_loss(label, bag, graph)
        else:
            _, losses = model.compute_loss(label, bag)
        sum(losses.values()).backward()

    return step


def their_graph(places: Any, features: Any) -> Any:
    """The adjacency as torchmil builds it, as a sparse matrix with loops."""
    import torch
    from torchmil.utils.graph_utils import add_self_loops, build_adj, normalize_adj

    index, _ = build_adj(places.cpu().numpy(), None, dist_thr=1.5)
    index, weight = add_self_loops(index, n_nodes=len(places))
    weight = normalize_adj(index, weight, n_nodes=len(places))
    values = torch.from_numpy(np.asarray(weight, dtype=np.float32))
    shape = (len(places), len(places))
    return (
        torch.sparse_coo_tensor(torch.from_numpy(index.astype(np.int64)), values, shape).to(features.device).coalesce()
    )


def graph_step(whose: str, features: Any, places: Any) -> Callable[[], None]:
    """Building the graph alone."""
    import torch

    if whose == "torchmil":
        return lambda: [their_graph(places, features)].clear()
    from wsi_mil.models.graph import neighbour_edges
    from wsi_mil.models.layers import segments

    def step() -> None:
        neighbour_edges(places, segments(torch.tensor([0, len(places)]), device=places.device))

    return step


if __name__ == "__main__":
    main()
