"""What every way of reading a bag must keep; a method inherits all of it by naming itself.

A method that breaks a property on purpose says so in its `breaks`, and the test is skipped with that reason.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from contracts.planted import DIM, held_out_auroc, planted, ragged, two_classes
from torch import Tensor

from wsi_mil.errors import ModelError
from wsi_mil.models import MIL, Pooled, build_model
from wsi_mil.tasks import Classification
from wsi_mil.training import Auxiliary, FitSettings, Step, fit

N_OUT = 3


class AggregatorContract:
    """Inherit as `class TestMine(AggregatorContract): name = "mine"`."""

    name: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    learning_rate: ClassVar[float] = 1e-2
    """At which it learns eight bags by heart."""
    steps: ClassVar[int] = 290
    """In how many; fewer is more than is asked, and faster."""

    def build(self, *, dim: int = DIM, n_out: int = N_OUT, seed: int = 1) -> MIL:
        return build_model(self.name, dim=dim, n_out=n_out, seed=seed, **self.options).eval()

    def keeps(self, model: MIL, rule: str) -> None:
        if rule in model.breaks:
            pytest.skip(model.breaks[rule])

    def test_it_says_what_it_is(self) -> None:
        model = self.build()
        assert model.weights in ("softmax", "sigmoid", "none")
        assert model.paper
        assert model.use
        assert set(model.recipe) <= {"lr", "batch_bags"}
        assert "N" in model.cost
        assert len(set(model.queries)) == len(model.queries) > 0
        assert all(reason for reason in model.breaks.values())

    def test_shapes_and_finite(self) -> None:
        model = self.build()
        pooled = model(*ragged(5, 1, 9))
        queries = len(model.queries)
        assert pooled.embedding.shape == (3, queries, model.embedding_dim)
        assert pooled.scores.shape == (15, queries)
        assert pooled.logits.shape == (3, N_OUT)
        assert (pooled.attention is None) == (model.weights == "none")
        assert model.exact_contributions == (pooled.contributions is not None)
        assert all(torch.isfinite(value).all() for value in pooled[:5] if value is not None)

    def test_attention_is_what_it_says(self) -> None:
        model = self.build()
        batch = ragged(5, 1, 9)
        attention = model(*batch).attention
        if model.weights == "softmax":
            for start, stop in zip(batch[2], batch[2][1:], strict=False):
                torch.testing.assert_close(attention[start:stop].sum(0), torch.ones(len(model.queries)))
                assert (attention[start:stop] >= 0).all()
        elif model.weights == "sigmoid":
            assert ((attention >= 0) & (attention <= 1)).all()

    def test_contributions_add_up_to_the_logit(self) -> None:
        model = self.build()
        if not model.exact_contributions:
            pytest.skip("the method gives no exact contributions")
        model.standardise(torch.full((DIM,), 0.3), torch.full((DIM,), 1.7))
        batch = ragged(5, 1, 9, 40)
        pooled = model(*batch)
        sums = torch.stack([part.sum(0) for part in pooled.contributions.split(batch[2].diff().tolist())])
        rest = pooled.logits - sums
        torch.testing.assert_close(rest, rest[:1].expand_as(rest), atol=1e-5, rtol=0)
        if model.head is not None:
            torch.testing.assert_close(rest[0], model.head.bias, atol=1e-5, rtol=0)

    def test_a_bag_does_not_see_its_neighbours(self) -> None:
        model = self.build()
        features, cells, offsets = ragged(5, 1, 9)
        together = model(features, cells, offsets)
        for bag, (start, stop) in enumerate(zip(offsets.tolist(), offsets.tolist()[1:], strict=False)):
            alone = model(features[start:stop], cells[start:stop], torch.tensor([0, stop - start]))
            torch.testing.assert_close(alone.logits[0], together.logits[bag], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(alone.scores, together.scores[start:stop], atol=1e-5, rtol=1e-5)

    def test_order_of_tiles_changes_nothing(self) -> None:
        model = self.build()
        self.keeps(model, "permutation")
        features, cells, offsets = ragged(50)
        order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
        straight, shuffled = model(features, cells, offsets), model(features[order], cells[order], offsets)
        torch.testing.assert_close(shuffled.logits, straight.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(shuffled.scores, straight.scores[order], atol=1e-5, rtol=0)
        if straight.attention is not None:
            torch.testing.assert_close(shuffled.attention, straight.attention[order], atol=1e-5, rtol=0)
        if straight.contributions is not None:
            torch.testing.assert_close(shuffled.contributions, straight.contributions[order], atol=1e-5, rtol=0)

    @pytest.mark.parametrize("garbage", [1e6, float("nan")])
    def test_padding_changes_nothing(self, garbage: float) -> None:
        model = self.build()
        lengths = [1, 2, 7, 1000]
        features, cells, offsets = ragged(*lengths)
        alone = model(features, cells, offsets)
        mask = torch.arange(1010)[None] < torch.tensor(lengths)[:, None]
        mask = mask.flip(1)  # tiles at the end of the rows: a mask, not a length, says where they are
        rows = torch.full((*mask.shape, DIM), garbage)
        rows[mask] = features
        places = torch.full((*mask.shape, 2), -7)
        places[mask] = cells
        padded = model.padded(rows, places, mask)
        torch.testing.assert_close(padded.logits, alone.logits, atol=1e-6, rtol=0)
        torch.testing.assert_close(padded.embedding, alone.embedding, atol=1e-6, rtol=0)
        torch.testing.assert_close(padded.scores[mask], alone.scores, atol=1e-6, rtol=0)
        assert torch.isneginf(padded.scores[~mask]).all()
        for name in ("attention", "contributions"):
            if getattr(alone, name) is not None:
                torch.testing.assert_close(getattr(padded, name)[mask], getattr(alone, name), atol=1e-6, rtol=0)
                assert not getattr(padded, name)[~mask].any()

    def test_repeating_every_tile_changes_no_logit(self) -> None:
        model = self.build()
        self.keeps(model, "duplication")
        features, cells, offsets = ragged(6, 9)
        once = model(features, cells, offsets)
        thrice = model(features.repeat_interleave(3, 0), cells.repeat_interleave(3, 0), offsets * 3)
        torch.testing.assert_close(thrice.logits, once.logits, atol=1e-5, rtol=0)
        if once.attention is not None:
            copies = 3 if model.weights == "softmax" else 1
            torch.testing.assert_close(thrice.attention * copies, once.attention.repeat_interleave(3, 0))

    def test_places_matter_as_it_says(self) -> None:
        model = self.build()
        features, cells, offsets = ragged(30, 20)
        here = model(features, cells, offsets).logits
        elsewhere = ragged(30, 20, seed=9)[1]
        assert torch.equal(model(features, elsewhere, offsets).logits, here) != model.spatial

    def test_moving_the_whole_slide_changes_nothing(self) -> None:
        model = self.build()
        self.keeps(model, "translation")
        features, cells, offsets = ragged(30, 20)
        here = model(features, cells, offsets).logits
        # No multiple of the side of any region or window.
        moved = model(features, cells + torch.tensor([1003, -517]), offsets).logits
        torch.testing.assert_close(moved, here, atol=1e-5, rtol=0)

    def test_gradients_are_right(self) -> None:
        model = self.build(dim=4).double()
        self.keeps(model, "gradient")
        features, cells, offsets = ragged(2, 3, dim=4)
        tiles = features.double().requires_grad_()
        assert torch.autograd.gradcheck(lambda values: model(values, cells, offsets).logits, (tiles,))

    def test_every_weight_learns(self) -> None:
        model = self.build().train()
        batch, target = ragged(20, 30, 25, 40), torch.tensor([0, 1, 2, 0])
        pooled, task = model(*batch), Classification(classes=("a", "b", "c"))
        step = Step(pooled, target, batch[2], task, [0, 1, 2, 3], 0.5)
        Auxiliary(model.losses)(task.loss(pooled.logits, target), step).backward()
        still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
        assert not still

    def test_one_tile(self) -> None:
        model = self.build()
        pooled = model(*ragged(1))
        if model.weights == "softmax":
            assert torch.equal(pooled.attention, torch.ones(1, len(model.queries)))

    def test_identical_tiles_share_alike(self) -> None:
        model = self.build()
        if model.weights != "softmax":
            pytest.skip("its weights are no shares of the bag")
        self.keeps(model, "identical")
        _, cells, offsets = ragged(8)
        pooled = model(torch.ones(8, DIM), cells, offsets)
        torch.testing.assert_close(pooled.attention, torch.full((8, len(model.queries)), 1 / 8))

    def test_an_empty_bag_is_refused(self) -> None:
        model = self.build()
        features, cells, _ = ragged(4)
        with pytest.raises(ModelError, match="bag 1 of 3 is empty"):
            model(features, cells, torch.tensor([0, 2, 2, 4]))
        mask = torch.tensor([[True, True], [False, False]])
        with pytest.raises(ModelError, match="bag 1 of 2 is empty"):
            model.padded(features.reshape(2, 2, DIM), cells.reshape(2, 2, 2), mask)

    def test_half_precision_in(self) -> None:
        model = self.build()
        features, cells, offsets = ragged(9, 4)
        half = features.half()
        torch.testing.assert_close(model(half, cells, offsets).logits, model(half.float(), cells, offsets).logits)
        alone = model.aggregator(half, cells, offsets)
        torch.testing.assert_close(alone.scores, model.aggregator(half.float(), cells, offsets).scores)

    def test_autocast_keeps_the_softmax_in_full_precision(self) -> None:
        model = self.build()
        batch = ragged(300, 200)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pooled = model(*batch)
        if model.weights == "softmax":
            assert pooled.attention.dtype == torch.float32
            torch.testing.assert_close(pooled.attention[:300].sum(0), torch.ones(len(model.queries)))
        torch.testing.assert_close(pooled.logits.float(), model(*batch).logits, atol=0.1, rtol=0.1)

    def test_half_precision_weights(self) -> None:
        model = self.build()
        batch = ragged(30, 20)
        wanted = model(*batch).logits
        pooled = model.bfloat16()(*batch)
        torch.testing.assert_close(pooled.logits.float(), wanted, atol=0.1, rtol=0.1)

    def test_same_seed_same_model_and_twice_the_same_answer(self) -> None:
        first, second, other = self.build(), self.build(), self.build(seed=2)
        weights = [list(model.state_dict().values()) for model in (first, second, other)]
        assert all(map(torch.equal, weights[0], weights[1]))
        assert not all(map(torch.equal, weights[0], weights[2]))
        batch = ragged(30, 20)
        answers: list[Pooled] = [first(*batch), first(*batch), second(*batch)]
        assert all(torch.equal(answers[0].logits, answer.logits) for answer in answers)
        assert all(torch.equal(answers[0].scores, answer.scores) for answer in answers)

    def test_memory_grows_with_tiles_alone(self) -> None:
        model = self.build().train()
        self.keeps(model, "linear")

        def kept(tiles: int) -> int:
            """Bytes that the forward pass keeps for the backward pass."""
            sizes: dict[int, int] = {}

            def pack(value: Tensor) -> Tensor:
                storage = value.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
                return value

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
                model(*ragged(tiles)).logits.sum()
            return sum(sizes.values())

        assert kept(2000) < 2.2 * kept(1000)

    def test_it_can_learn_eight_bags_by_heart(self) -> None:
        model = self.build(n_out=2)
        source, targets, _ = planted(8, delta=0, share=0.5, seed=0, tiles=(10, 20), dim=DIM)
        assert self.steps < 300
        settings = FitSettings(
            epochs=self.steps, batch_bags=8, lr=self.learning_rate, patience=0, weight_decay=0, warmup=0.02
        )
        history = fit(
            model,
            source,
            fit_index=range(8),
            select_index=[],
            targets=targets,
            task=two_classes(),
            settings=settings,
            seed=0,
        ).history
        model.eval()
        loss = 0.0
        for bag in range(8):
            features, cells = source.load(bag)
            logits = model(torch.tensor(features), torch.tensor(cells), torch.tensor([0, len(features)])).logits
            loss += torch.nn.functional.cross_entropy(logits, targets[bag : bag + 1]).item() / 8
        assert loss < 0.01, history[-1]

    def test_shuffled_labels_teach_nothing(self) -> None:
        source, targets, _ = planted(80, delta=4, share=0.1, seed=0, tiles=(15, 30))
        test = planted(240, delta=4, share=0.1, seed=1, tiles=(15, 30))
        shuffled = targets[torch.randperm(80, generator=torch.Generator().manual_seed(5))]
        order = torch.randperm(240, generator=torch.Generator().manual_seed(6))
        value, _ = held_out_auroc(
            self.name, self.options, (source, shuffled), (test[0], test[1][order]), epochs=5, seed=0
        )
        assert abs(value - 0.5) < 0.1
