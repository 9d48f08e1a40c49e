"""Time and memory of one step of every aggregator as bags grow, ours beside torchmil's where both have the method.

    python benchmarks/aggregators.py [--models abmil,gtp] [--tiles 1000,10000,50000,200000] [--device cuda]

Forward and backward pass on one bag of 1,024 numbers a tile, default options, float32, training mode, one thread; ours
builds its graph within the step, torchmil's is there before (the row `graph` compares the building). Each cell is a
process of its own, ours and torchmil's by turns: seconds (of the process where it runs on the CPU, so that other
programs count little) are the best of all steps, memory is the peak of the process less what it held before the step,
features not counted. torchmil (pip install torchmil, for this benchmark only) gets modules of the same widths and
depths; ours has no dropout in rows that torchmil has too, since its modules have none. `patch_gcn mean` is our plain
graph convolution, which is what torchmil's PatchGCN has in place of the paper's. Methods whose attention is N x N stop
at 10,000 tiles. Up to there a second table has parameters and the floor: the dense matrix products of the step alone,
of the same shapes and layouts, one after the other, and their GFLOP.
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
PEERS = ("abmil", "clam", "dsmil", "gtp", "patch_gcn", "patch_gcn mean", "transmil")


def main() -> None:
    """Print a row a model and size as soon as it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="")
    parser.add_argument("--tiles", default="1000,10000,50000,200000")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=2, help="processes a cell, where a peer takes turns")
    parser.add_argument("--one", nargs=3, metavar=("WHOSE", "MODEL", "TILES"), help="used by the command itself")
    arguments = parser.parse_args()
    if arguments.one:
        whose, name, tiles = arguments.one
        print(json.dumps(measure(whose, name, int(tiles), arguments.device)))
        return
    names = arguments.models.split(",") if arguments.models else ["graph", "patch_gcn mean", *known_models()]
    sizes = [int(size) for size in arguments.tiles.split(",")]
    print("| method | " + " | ".join(f"{size:,} tiles" for size in sizes) + " |")
    print("|---" * (len(sizes) + 1) + "|")
    floors = []
    for name in names:
        beside = ("ours", "torchmil") if name in (*PEERS, "graph") else ("ours",)
        cells: dict[str, list[str]] = {whose: [] for whose in beside}
        for size in sizes:
            turns = range(arguments.rounds if len(beside) > 1 else 1)
            rounds = [[run_one(whose, name, size, arguments.device) for whose in beside] for _ in turns]
            for whose, found in zip(beside, zip(*rounds, strict=True), strict=True):
                best = min(found, key=lambda one: float(one.get("seconds", math.inf)))
                cells[whose].append(told(best))
                if best.get("gflop"):
                    floors.append((name, whose, size, best))
        for whose in beside:
            label = f"`{name}`" + (" (torchmil)" if whose == "torchmil" else "")
            print(f"| {label} | " + " | ".join(cells[whose]) + " |", flush=True)
    print("\n| method | tiles | parameters | GFLOP | step | its matrix products alone |\n" + "|---" * 6 + "|")
    for name, whose, size, best in floors:
        label = f"`{name}`" + (" (torchmil)" if whose == "torchmil" else "")
        print(
            f"| {label} | {size:,} | {best['parameters']:,} | {best['gflop']:.3g} | {best['seconds']:.3g} s | "
            f"{best['floor']:.3g} s |"
        )


def known_models() -> list[str]:
    """Names of all aggregators."""
    from wsi_mil.models import MODELS

    return sorted(MODELS)


def run_one(whose: str, name: str, tiles: int, device: str) -> dict[str, Any]:
    """What one process measured, or, under `why`, why there is nothing."""
    if name in QUADRATIC and tiles > MOST_QUADRATIC:
        return {"why": "N x N: not run"}
    command = [sys.executable, __file__, "--one", whose, name, str(tiles), "--device", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"why": f"over {LIMIT_S} s"}
    if done.returncode:
        return {"why": (done.stderr.strip().splitlines() or ["killed: out of memory"])[-1][:60]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def told(found: dict[str, Any]) -> str:
    """A cell of the table."""
    return str(found["why"]) if "why" in found else f"{found['seconds']:.3g} s, {found['mb']:,.0f} MB"


def measure(whose: str, name: str, tiles: int, device: str) -> dict[str, float]:
    """Seconds and peak MB of a step; up to 10,000 tiles its matrix products and how long they take alone."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    side = math.isqrt(tiles - 1) + 1
    places = torch.stack([torch.arange(tiles) % side, torch.arange(tiles) // side], dim=1)
    features = torch.randn(tiles, DIM).to(device)
    if name == "graph":
        step, parameters = graph_step(whose, features, places.to(device)), 0
    else:
        step, parameters = (ours if whose == "ours" else theirs)(name, features, places.to(device))
    before = resident(device)
    seconds = [timed(step, device)]
    # the first step fills caches; a long one is not worth a fourth
    seconds += [timed(step, device) for _ in range(3 if seconds[0] < 5 else 1)]
    peak = resident(device) - before
    found = {"seconds": min(seconds), "mb": peak / 2**20, "parameters": parameters}
    if name != "graph" and tiles <= MOST_QUADRATIC:
        found["gflop"], found["floor"] = products_alone(step, device)
    return found


def timed(step: Callable[[], object], device: str) -> float:
    """Seconds of one step."""
    import torch

    # on one thread the time of the process is that of the step, whoever else is on the machine
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def strided(shape: tuple[int, ...], strides: tuple[int, ...], device: str) -> Any:
    """Random numbers laid out as asked."""
    import torch

    extent = 1 + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    return torch.randn(extent, device=device).as_strided(shape, strides)


def products_alone(step: Callable[[], None], device: str) -> tuple[float, float]:
    """GFLOP of the step's dense matrix products, and the seconds they take alone: below them no step can go."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    aten = torch.ops.aten
    known = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}
    shapes: dict[Any, int] = {}

    class Listen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in known and not any(part.is_sparse for part in args[known[func] : known[func] + 2]):
                pair = args[known[func] : known[func] + 2]
                shape = tuple((tuple(part.shape), part.stride()) for part in pair)
                shapes[shape] = shapes.get(shape, 0) + 1
            return func(*args, **(kwargs or {}))

    with Listen():
        step()
    total, gflop = 0.0, 0.0
    for (left, right), times in shapes.items():
        gflop += times * 2e-9 * math.prod(left[0]) * right[0][-1]
        pair = [strided(*one, device) for one in (left, right)]
        total += times * min(timed(lambda pair=pair: pair[0] @ pair[1], device) for _ in range(3))
    return gflop, total


def resident(device: str) -> int:
    """Most bytes held so far."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ours(name: str, features: Any, places: Any) -> tuple[Callable[[], None], int]:
    """A training step of one of our methods, its own loss terms included, and its number of parameters."""
    import torch

    from wsi_mil.models import build_model
    from wsi_mil.tasks import Classification
    from wsi_mil.training import Auxiliary, Step

    method, _, message = name.partition(" ")
    options: dict[str, Any] = {"dropout": 0.0} if name in PEERS else {}
    if message:
        options["message"] = message
    if method == "clam":
        options["branches"] = "single"
    model = build_model(method, dim=DIM, n_out=2, **options).to(features.device).train()
    offsets, target = torch.tensor([0, len(features)]), torch.ones(1, dtype=torch.int64, device=features.device)
    task, auxiliary = Classification(classes=("0", "1")), Auxiliary(model.losses)

    def step() -> None:
        model.zero_grad()
        pooled = model(features, places, offsets)
        loss = auxiliary(task.loss(pooled.logits, target), Step(pooled, target, offsets, task, [0], 0.5))
        torch.autograd.backward(loss)

    return step, sum(weight.numel() for weight in model.parameters())


def theirs(name: str, features: Any, places: Any) -> tuple[Callable[[], None], int]:
    """A training step of torchmil's method of the same widths, and its number of parameters."""
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
            shape, att_dim=128, gated=True, k_sample=8, inst_loss_name="SmoothTop1SVM", feat_ext=project(256)
        )
    elif name == "dsmil":
        from torchmil.models.dsmil import DSMIL

        model = DSMIL(shape, att_dim=128, feat_ext=project(256))
    elif name == "transmil":
        from torchmil.models.transmil import TransMIL

        model = TransMIL(shape, att_dim=512, n_layers=2, n_heads=8, n_landmarks=256, feat_ext=project(512))
    elif name.startswith("patch_gcn"):
        from torchmil.models.patch_gcn import PatchGCN

        model = PatchGCN(shape, n_gcn_layers=3, hidden_dim=128, att_dim=128, feat_ext=project(128))
    else:
        from torchmil.models.gtp import GTP

        model = GTP(shape, att_dim=64, n_clusters=100, n_layers=3, n_heads=8, feat_ext=project(64))
    model = model.to(features.device).train()
    bag = features[None]
    label = torch.ones(1, device=features.device)
    graph = torch.stack([their_graph(places, features)]) if name.startswith(("gtp", "patch_gcn")) else None

    def step() -> None:
        model.zero_grad()
        if graph is not None:
            _, losses = model.compute_loss(label, bag, graph)
        else:
            _, losses = model.compute_loss(label, bag)
        sum(losses.values()).backward()

    return step, sum(weight.numel() for weight in model.parameters())


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


def graph_step(whose: str, features: Any, places: Any) -> Callable[[], object]:
    """Building the graph alone."""
    import torch

    if whose == "torchmil":
        return lambda: their_graph(places, features)
    from wsi_mil.models.graph import neighbour_edges
    from wsi_mil.models.layers import segments

    def step() -> None:
        neighbour_edges(places, segments(torch.tensor([0, len(places)]), device=places.device))

    return step


if __name__ == "__main__":
    main()
