"""PersAM: attention to tiles as the patient's record asks for it; tiles, classes and factors read one another."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Projection, Segments, segment_softmax, segments, weighted_sum
from wsi_mil.models.record import RecordTokens
from wsi_mil.models.transformer import MaskedBlock, rolled

_FLOOR = 1e-6
"""Least exploratory attention: its logarithm stays finite."""


class PersAM(Aggregator):
    """h = relu(P x);  [h; v] = T_1([h; v]), v_c a learned token of class c;  e_kc = q(v_c) k(h_k) / sqrt(hidden);

    [h; u; v] = T_2([h; u; v]), u_m = MLP_m(factor m) + type m;  and three maps of each bag:
    class-wise a_kc = softmax_k(e_kc), which no record can change;  exploratory psi_k = mean_m sigmoid(q'(u_m) k'(h_k)),
    where the record asks to look;  explanatory a_kc psi_k phi_c with phi_c = mean_m sigmoid(q''(v_c) k''(u_m)).
    logit_c = phi_c w_c sum_k a'_kc h_k + b_c, a' = a psi, which `renorm` divides by its sum over the bag.

    A missing factor has a learned token in place of its own, and no say in psi and phi. Without `factors`, without a
    record, or with one in which all is missing, a bag is read by its tiles alone: no u, psi = phi = 1. In training each
    factor is dropped with probability `record_dropout`. `scores` are e + log psi, whose softmax is a'. `aux` has
    "classwise" [tile, out], "exploratory" [tile, 1], "explanatory" [tile, out] and "relevance" [bag, out], phi.

    Numbers of the record are to be standardised beforehand, on the training role. Claims the mechanism, not the
    published accuracy: depth, widths and phi's form could not be read. Departures: T_1 before the record comes in, so
    that the class-wise map is free of it; no direct path from the record to the logit, so that tiles explain it whole.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = False
    own_logits = True
    query_per_class = True
    use = "small bags with a clinical record that should direct the look"
    paper = "Takagi et al.: Transformer-based personalized attention mechanism (PersAM), J Pathol Inform 2023"
    cost = "time O(N^2 hidden), so up to some 10,000 tiles; memory O(N hidden)"
    tile_maps = {"classwise": "attention", "exploratory": "attention", "explanatory": "attention"}
    breaks = {"duplication": "classes and factors are voices among those of the tiles, and their number counts"}

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        factors: tuple[int, ...] = (),
        hidden: int = 256,
        heads: int = 8,
        depth: int = 2,
        renorm: bool = True,
        record_dropout: float = 0.1,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if hidden % heads or depth < 2 or not 0 <= record_dropout < 1 or any(size < 1 for size in factors):
            raise ModelError(
                f"persam: hidden={hidden}, heads={heads}, depth={depth}, record_dropout={record_dropout}, "
                f"factors={factors}; hidden is a multiple of heads, depth 2 or more, record_dropout in [0, 1), and "
                "each factor has a column"
            )
        self.weights = "softmax" if renorm else "sigmoid"
        self.queries = tuple(f"class {number}" for number in range(n_out))
        self.embedding_dim, self.renorm = hidden, renorm
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.classes = nn.Parameter(torch.randn(n_out, hidden) * 0.02)
        self.alone = nn.ModuleList(MaskedBlock(hidden, heads=heads) for _ in range(depth // 2))
        self.joint = nn.ModuleList(MaskedBlock(hidden, heads=heads) for _ in range(depth - depth // 2))
        self.norm_alone, self.norm_joint = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        # no bias for keys under a softmax: it would cancel
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.head = nn.Parameter(torch.empty(n_out, hidden).uniform_(-(hidden**-0.5), hidden**-0.5))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.record = _Record(factors, hidden, dropout=record_dropout) if factors else None

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Tiles weighed for each class as the record asks."""
        parts = segments(offsets, device=features.device)
        tiles, likeness, psi, phi = self._read(self.projection(features), clinical, parts)
        classwise = segment_softmax(likeness, parts)  #                                   tile out
        scores = likeness + psi.log()
        attention = segment_softmax(scores, parts) if self.renorm else classwise * psi
        embedding = weighted_sum(tiles, attention, parts)  #                              bag out hidden
        contributions = None
        if not self.training:
            contributions = phi[parts.bag] * attention * (tiles @ self.head.T)
        return Pooled(
            embedding=embedding,
            scores=scores,
            attention=attention,
            logits=phi * (embedding * self.head).sum(dim=2) + self.bias,
            contributions=contributions,
            aux={
                "classwise": classwise,
                "exploratory": psi,
                "explanatory": classwise * psi * phi[parts.bag],
                "relevance": phi,
            },
        )

    def rollout(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        clinical: Clinical | None = None,
    ) -> Float[Tensor, "tile out"]:
        """For each class, from the tiles as it weighs them through all layers; classes and factors take a part.

        Of one bag. A record in which all is missing is no record.
        """
        parts = segments(torch.tensor([0, len(features)]), device=features.device)
        tiles = self.projection(features)
        _, likeness, psi, _ = self._read(tiles, clinical, parts)
        weights = (likeness + psi.log()).softmax(dim=0)  #                                tile out
        tokens, flow = torch.cat([tiles, self.classes.to(tiles.dtype)])[None], None
        tokens, flow = _flow(self.alone, tokens, flow)
        record = None if clinical is None else self._tokens(clinical, 1)
        if record is not None and bool(record[1].any()):
            more = record[0].shape[1]
            tokens = torch.cat([tokens, record[0].to(tokens.dtype)], dim=1)
            # a factor has seen nothing but itself before
            flow = functional.pad(flow, (0, more, 0, more))
            flow[-more:, -more:].fill_diagonal_(1.0)
        _, flow = _flow(self.joint, tokens, flow)
        return (weights.T @ flow[: len(tiles), : len(tiles)]).T

    def _read(self, tiles: Tensor, clinical: Clinical | None, parts: Segments) -> tuple[Tensor, ...]:
        """Tiles as pooled, their likeness to each class, psi of each tile, and phi of each bag.

        Bags of one length go through the transformer together, without padding.
        """
        record = None if clinical is None else self._tokens(clinical, len(parts.lengths))
        with_record = [False] * len(parts.lengths) if record is None else record[1].any(dim=1).tolist()
        groups: dict[tuple[int, bool], list[int]] = {}
        for bag, kind in enumerate(zip(parts.lengths, with_record, strict=True)):
            groups.setdefault(kind, []).append(bag)
        bags = torch.split(tiles, parts.lengths)
        found: dict[int, tuple[Tensor, ...]] = {}
        for (_, has_record), members in groups.items():
            some = (record[0][members], record[1][members]) if record is not None and has_record else None
            answers = self._alike(torch.stack([bags[bag] for bag in members]), some)
            found.update(zip(members, zip(*answers, strict=True), strict=True))
        seen, likeness, psi, phi = zip(*(found[bag] for bag in range(len(bags))), strict=True)
        return torch.cat(seen), torch.cat(likeness), torch.cat(psi), torch.stack(phi)

    def _tokens(self, clinical: Clinical, bags: int) -> tuple[Tensor, Tensor]:
        """Tokens of each bag's factors, and which of these are known."""
        if self.record is None:
            raise ModelError("persam was built without factors and is given a record; build it with factors=(...)")
        if len(clinical.values) != bags:
            raise ModelError(f"{len(clinical.values)} records for {bags} bags; each bag needs one")
        tokens, known = self.record(clinical)
        return tokens, known

    def _alike(self, tiles: Tensor, record: tuple[Tensor, Tensor] | None) -> tuple[Tensor, ...]:
        """What `_read` gives, for bags of one length, with or without a record: [bag, tile, ...] and [bag, out]."""
        count, kinds = tiles.shape[1], len(self.classes)
        tokens = torch.cat([tiles, self.classes.to(tiles.dtype).expand(len(tiles), -1, -1)], dim=1)
        tokens = _through(self.alone, tokens)
        alone = self.norm_alone(tokens)
        likeness = self.key(alone[:, :count]) @ self.query(alone[:, count:]).mT / self.embedding_dim**0.5
        if record is None or self.record is None:
            seen = self.norm_joint(_through(self.joint, tokens))[:, :count]
            return seen, likeness, likeness.new_ones(len(tiles), count, 1), likeness.new_ones(len(tiles), kinds)
        factors, known = record
        seen = self.norm_joint(_through(self.joint, torch.cat([tokens, factors.to(tokens.dtype)], dim=1)))
        whole, classes, asking = seen.split([count, kinds, factors.shape[1]], dim=1)
        return whole, likeness, *self.record.filters(whole, classes, asking, known)


class _Record(RecordTokens):
    """Tokens of the factors, and what they ask of tiles and classes."""

    def __init__(self, factors: tuple[int, ...], hidden: int, *, dropout: float) -> None:
        super().__init__(factors, hidden, dropout=dropout)
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.class_query, self.class_key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)

    def filters(self, tiles: Tensor, classes: Tensor, factors: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """psi [bag, tile, 1] and phi [bag, out], means over the factors that are known."""
        scale = tiles.shape[2] ** 0.5
        look = (self.key(tiles) @ self.query(factors).mT / scale).sigmoid()  #            bag tile factor
        relevant = (self.class_query(classes) @ self.class_key(factors).mT / scale).sigmoid()
        share = (known / known.sum(dim=1, keepdim=True)).to(look.dtype)[:, :, None]  #    bag factor 1
        return (look @ share).clamp_min(_FLOOR), (relevant @ share)[:, :, 0]


def _flow(blocks: nn.ModuleList, tokens: Tensor, flow: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens after some blocks, and the rollout up to there."""
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    for block in blocks:
        assert isinstance(block, MaskedBlock)
        flow, tokens = rolled(flow, block.attention(tokens)[0]), block(tokens, mask)
    assert flow is not None  # there is one block at least
    return tokens, flow


def _through(blocks: nn.ModuleList, tokens: Tensor) -> Tensor:
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    for block in blocks:
        tokens = block(tokens, mask)
    return tokens


def replace_factor(
    clinical: Clinical, factors: tuple[int, ...], factor: int, values: Float[Tensor, "column"] | None
) -> Clinical:
    """The record of each bag with one factor set to `values`, or missing where None: what if it had been so?

    `factors` are the columns of each factor, as the model was built with. ModelError if the factor or its columns do
    not fit.
    """
    if not 0 <= factor < len(factors) or (values is not None and len(values) != factors[factor]):
        raise ModelError(
            f"factor {factor} with {'no' if values is None else len(values)} values does not fit factors {factors}; "
            "number them from 0 and give a value for each column"
        )
    columns = slice(sum(factors[:factor]), sum(factors[: factor + 1]))
    changed, missing = clinical.values.clone(), clinical.missing.clone()
    missing[:, columns] = values is None
    changed[:, columns] = 0.0 if values is None else values.to(changed)
    return Clinical(changed, missing)
