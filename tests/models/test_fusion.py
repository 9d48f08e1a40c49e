"""A record fused into methods that read none: it interacts with the tiles, may be missing, and leaves maps exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts.planted import planted, ragged, two_classes
from torch import Tensor

from wsi_mil.errors import ModelError
from wsi_mil.evaluation import score
from wsi_mil.models import MIL, MODELS, Clinical, build_model
from wsi_mil.training import Bags, FitSettings, fit, infer

FACTORS = (1, 3)
FUSIONS = ("concat", "gated", "film")
READS_ITSELF = ("persam",)
SMALL = {"lca_db": {"region": 2}}


def record(bags: int, *, seed: int = 0) -> Clinical:
    random = torch.Generator().manual_seed(seed)
    return Clinical(torch.randn(bags, 4, generator=random), torch.zeros(bags, 4, dtype=torch.bool))


def awake(model: MIL) -> MIL:
    """The model with a fusion that has learnt something: at first it changes nothing."""
    assert model.fusion is not None
    with torch.no_grad():
        for weights in model.fusion.parameters():
            weights.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return model.eval()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("name", ["abmil", "clam", "transmil", "instance", "gtp"])
def test_the_record_counts_and_contributions_stay_exact(name: str, fusion: str) -> None:
    features, cells, offsets = ragged(7, 5)
    plain = build_model(name, dim=12, n_out=2)
    model = awake(build_model(name, dim=12, n_out=2, factors=FACTORS, fusion=fusion))
    with torch.inference_mode():
        first, second = (model(features, cells, offsets, record(2, seed=seed)) for seed in (0, 1))
    assert not torch.allclose(first.logits, second.logits)
    assert model.exact_contributions == (plain.exact_contributions and fusion != "concat")
    if fusion == "concat":
        assert first.contributions is None
    if not model.exact_contributions:
        return
    # What remains is the record's own: the same for another bag of the same patient.
    one = Clinical(*(part[:1].expand(2, -1) for part in record(2)))
    with torch.inference_mode():
        both = model(features, cells, offsets, one)
    sums = torch.stack([part.sum(dim=0) for part in torch.split(both.contributions, offsets.diff().tolist())])
    rest = both.logits - sums
    torch.testing.assert_close(rest[0], rest[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(READS_ITSELF)))
def test_every_method_takes_a_record(name: str) -> None:
    features, cells, offsets = ragged(9, 6, dim=24 if name == "lca_db" else 12)
    model = build_model(name, dim=features.shape[1], n_out=3, factors=FACTORS, fusion="film", **SMALL.get(name, {}))
    logits = model(features, cells, offsets, record(2)).logits
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert model.fusion is not None
    assert model.fusion.added.weight.grad is not None


@pytest.mark.parametrize("fusion", FUSIONS)
def test_no_record_is_a_record_of_which_nothing_is_known(fusion: str) -> None:
    features, cells, offsets = ragged(7, 5)
    model = awake(build_model("abmil", dim=12, n_out=2, factors=FACTORS, fusion=fusion))
    nothing = Clinical(torch.full((2, 4), torch.nan), torch.ones(2, 4, dtype=torch.bool))
    with torch.inference_mode():
        said = model(features, cells, offsets, nothing).logits
        assert torch.equal(said, model(features, cells, offsets).logits)
        assert not torch.allclose(said, model(features, cells, offsets, record(2)).logits)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ModelError, match="unknown fusion 'flim': did you mean 'film'"):
        build_model("abmil", dim=4, n_out=2, factors=(1,), fusion="flim")
    with pytest.raises(ModelError, match="needs a clinical record"):
        build_model("abmil", dim=4, n_out=2, fusion="film")
    with pytest.raises(ModelError, match="reads the clinical record itself"):
        build_model("persam", dim=4, n_out=2, factors=(1,), fusion="film")
    with pytest.raises(ModelError, match="set fusion to concat, gated or film"):
        build_model("abmil", dim=4, n_out=2, factors=(1,))
    model = build_model("abmil", dim=12, n_out=2, factors=FACTORS, fusion="film")
    features, cells, offsets = ragged(7, 5)
    with pytest.raises(ModelError, match="1 records for 2 bags"):
        model(features, cells, offsets, record(1))


COUNT, LEARNT = 400, 240


def _auroc(source: Bags, flags: Tensor, labels: Tensor, fusion: str) -> float:
    """AUROC on bags that were not learnt from."""
    options = {"factors": (1,), "fusion": fusion} if fusion != "none" else {}
    records = Clinical(flags[:, None].float(), torch.zeros(COUNT, 1, dtype=torch.bool))
    model = build_model("abmil", dim=16, n_out=2, hidden=16, attention=8, dropout=0.0, **options)
    fit(
        model,
        source,
        fit_index=range(LEARNT - 30),
        select_index=range(LEARNT - 30, LEARNT),
        targets=labels,
        task=two_classes(),
        settings=FitSettings(epochs=30, lr=5e-3, batch_bags=8, patience=0),
        seed=0,
        records=records if fusion != "none" else None,
    )
    said = []
    for bag in range(LEARNT, COUNT):
        one = Clinical(records.values[bag : bag + 1], records.missing[bag : bag + 1]) if fusion != "none" else None
        logits = infer(model, *source.load(bag), record=one).logits
        said.append(logits[1] - logits[0])
    values = 1 / (1 + np.exp(-np.array(said)))
    return score("auroc", labels[LEARNT:].numpy(), np.stack([1 - values, values], axis=1))


@pytest.mark.slow
def test_an_interaction_is_learnt_by_fused_models_alone() -> None:
    """Label = XOR of a flag of the record and a lesion in the bag: neither says anything by itself."""
    source, lesion, _ = planted(COUNT, delta=5, share=0.2, seed=0, tiles=(15, 30), dim=16)
    flags = torch.from_numpy(np.random.default_rng(1).integers(0, 2, COUNT))
    labels = lesion ^ flags
    empty = Bags(
        [
            (np.random.default_rng(bag).normal(size=(20, 16)).astype(np.float32), source.load(bag)[1][:1].repeat(20, 0))
            for bag in range(COUNT)
        ]
    )
    found = {fusion: _auroc(source, flags, labels, fusion) for fusion in FUSIONS}
    assert min(found.values()) > 0.97, found
    assert abs(_auroc(source, flags, labels, "none") - 0.5) < 0.15, "tiles alone"
    assert abs(_auroc(empty, flags, labels, "film") - 0.5) < 0.15, "record alone"
