"""GTP: what the graph does to it, and GraphCAM against gradients taken by hand."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged, two_classes

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model
from wsi_mil.models.graph import neighbour_edges
from wsi_mil.models.layers import segments
from wsi_mil.training import Bags, FitSettings, fit, infer


class TestGTP(AggregatorContract):
    name = "gtp"
    options = {"hidden": 16, "clusters": 6, "depth": 2, "heads": 2}


def _model(**options: object) -> torch.nn.Module:
    return build_model("gtp", dim=4, n_out=2, hidden=16, clusters=5, depth=2, heads=2, **options).eval().double()


def test_number_of_parameters() -> None:
    """As counted from the published shapes, less the bias before the norm, with two numbers a channel for the norm."""
    model = build_model("gtp", dim=512, n_out=3)
    block = 64 * 192 + 64 * 64 + 64 + 2 * 128 + 64 * 128 + 128 + 128 * 64 + 64
    wanted = 512 * 64 + 128 + 64 * 100 + 100 + 64 + 3 * block + 128 + 64 * 3 + 3
    assert sum(weight.numel() for weight in model.parameters()) == wanted


def test_without_neighbours_the_graph_convolution_is_a_layer_a_tile() -> None:
    model = _model()
    method = model.aggregator
    features, cells, _ = ragged(12, dim=4)
    parts = segments(torch.tensor([0, 12]), device=features.device)
    shares, tokens = method._clustered(features.double(), neighbour_edges(cells * 10, parts), parts)
    nodes = method.norm(features.double() @ method.graph.weight.T).relu()
    wanted = (nodes @ method.assign.weight.T + method.assign.bias).softmax(1)
    torch.testing.assert_close(shares, wanted)
    torch.testing.assert_close(tokens[0], (wanted.T @ nodes) / wanted.sum(0)[:, None])


def test_without_neighbours_the_tiles_are_a_set() -> None:
    model = _model()
    features, cells, offsets = ragged(12, dim=4)
    apart = model(features, cells * 10, offsets).logits
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(features, cells[order] * 10, offsets).logits, apart)
    assert not torch.allclose(model(features, cells, offsets).logits, apart)


def test_clusters_cut_the_graph() -> None:
    pooled = _model()(*ragged(12, 3, dim=4))
    assert ((pooled.aux["min_cut"] >= -1) & (pooled.aux["min_cut"] <= 0)).all()
    assert pooled.aux["orthogonality"][1] == 0  # fewer tiles than clusters


def test_graph_cam_by_hand() -> None:
    model = _model()
    method = model.aggregator
    tokens = torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = method.graph_cam(tokens)
    for bag in range(2):
        for out in range(2):
            read, maps = method._read(tokens[bag : bag + 1])
            for attention in maps:
                attention.retain_grad()
            method.head(read)[0, out].backward()
            rollout = torch.eye(6, dtype=torch.float64)
            for attention in maps:
                rollout = (torch.eye(6) + (attention.grad * attention)[0].clamp_min(0).mean(0)) @ rollout
            torch.testing.assert_close(seen[bag, out], rollout[0, 1:].detach())


def test_graph_cam_in_inference_mode_is_the_same_and_shares_out_over_tiles() -> None:
    model = _model()
    batch = ragged(12, dim=4)
    scores = model(*batch).scores
    with torch.inference_mode():
        torch.testing.assert_close(model(*batch).scores, scores)
    assert not scores.requires_grad
    assert not model.train()(*batch).scores.any()
    # a map of ones is one everywhere, because each tile shares itself out whole
    method = model.eval().aggregator
    method.graph_cam = lambda tokens: torch.ones(1, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(model(*batch).scores, torch.ones(12, 2, dtype=torch.float64))


@pytest.mark.parametrize("options", [{"heads": 3}, {"clusters": 1}, {"depth": 0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="gtp"):
        build_model("gtp", dim=4, n_out=2, **options)


def test_the_sparse_graph_is_the_dense_one() -> None:
    """Logit, tokens and both losses with the whole N x N matrix written out."""
    model = _model()
    method = model.aggregator
    features, cells, offsets = ragged(30, dim=4)
    with torch.no_grad():
        method.norm.norm.running_var.fill_(3.0)
    adjacency = ((cells[:, None] - cells).abs().amax(2) == 1).double()
    looped = adjacency + torch.eye(30, dtype=torch.float64)
    nodes = method.norm(looped @ method.graph(features.double())).relu()
    shares = method.assign(nodes).softmax(1)
    tokens = (shares / shares.sum(0)).T @ nodes
    read, _ = method._read(tokens[None])
    pooled = model(features, cells, offsets)
    torch.testing.assert_close(pooled.logits, method.head(read))
    cut = -torch.trace(shares.T @ adjacency @ shares) / torch.trace(shares.T @ torch.diag(adjacency.sum(0)) @ shares)
    torch.testing.assert_close(pooled.aux["min_cut"][0], cut)
    # a map over clusters is dealt to the tiles without loss: each cluster counts by its mass
    seen = method.graph_cam(tokens[None])[0]
    torch.testing.assert_close(pooled.scores.sum(0), seen @ shares.sum(0))


def test_the_map_finds_a_planted_lesion() -> None:
    """Of the highest 5 % of tiles more than five times as many lie in the lesion as by chance."""
    random = torch.Generator().manual_seed(0)
    cells = torch.cartesian_prod(torch.arange(14), torch.arange(14))
    bags, lesions = [], []
    for number in range(80):
        features = torch.randn(196, 8, generator=random)
        corner = torch.randint(0, 12, (2,), generator=random)
        lesion = ((cells >= corner) & (cells < corner + 3)).all(1) & bool(number % 2)
        features[lesion, 0] += 3
        bags.append((features.numpy(), cells.numpy()))
        lesions.append(lesion)
    model = build_model("gtp", dim=8, n_out=2, seed=0, hidden=16, clusters=6, depth=1, heads=2)
    settings = FitSettings(epochs=25, batch_bags=8, lr=3e-3, patience=0)
    targets = torch.arange(80) % 2
    fit(
        model,
        Bags(bags),
        fit_index=range(60),
        select_index=[],
        targets=targets,
        task=two_classes(),
        settings=settings,
        seed=0,
    )
    enriched = []
    for number in range(61, 80, 2):
        top = torch.from_numpy(infer(model, *bags[number]).scores[:, 1]).topk(10).indices
        enriched.append(lesions[number][top].float().mean() / lesions[number].float().mean())
    assert torch.stack(enriched).mean() > 5
