"""Maps by every method that a study names, in one file with the prediction that they explain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from studies import open_work, run_stage

from wsi_mil.errors import ConfigError, ModelError
from wsi_mil.heatmaps import Heatmap, heatmap_from_hdf5
from wsi_mil.models import MIL, build_model
from wsi_mil.stages import Work
from wsi_mil.stages.explained import explain, novelty
from wsi_mil.stages.trained import answer, question, read_checked_bag, trained_models

EVERY = (
    "heatmap.methods=[contribution, attention, alone, novelty, occlusion, integrated_gradients, gradient_input, "
    "rollout, graphcam]"
)


def drawn(work: Work, *, shard: tuple[int, int] = (1, 12)) -> Heatmap:
    """The heatmap of S02, made now."""
    assert [(one.kind, one.why) for one in run_stage(work, "heatmap", shard=shard)] == [("made", "")]
    folder = work.root / "heatmap" / work.study.model.name / "S02"
    return heatmap_from_hdf5((folder / "S02.h5").read_bytes())


def test_every_method_is_in_the_file(copy_of: Callable[..., Work], cohort: Path) -> None:
    root = copy_of("tissue", "tile", "extract", "split", "train", "predict").root
    work = open_work(cohort, root, EVERY, "heatmap.channel=occlusion", "heatmap.smooth=1", "heatmap.export=[tiff, png]")
    heatmap = drawn(work)
    methods = ("contribution", "alone", "occlusion", "integrated_gradients", "gradient_input")
    answers = {f"{method}_{name}" for method in methods for name in ("benign", "lesion")}
    # no rollout, no GraphCAM in abmil
    assert set(heatmap.channels) == {"attention_logit", "attention", "novelty"} | answers
    assert heatmap.kinds["gradient_input_lesion"] == "gradient x input"
    assert np.isfinite(heatmap.scores).all()
    # two classes against their mean: what one gains, the other loses
    np.testing.assert_allclose(heatmap.column("occlusion_benign"), -heatmap.column("occlusion_lesion"), atol=1e-6)
    np.testing.assert_allclose(heatmap.column("alone_benign") + heatmap.column("alone_lesion"), 1, atol=1e-6)
    made = (root / "heatmap/abmil/.made/S02.json").read_text()
    assert '"channel": "occlusion_lesion"' in made


def test_novelty_is_one_on_average_in_the_fit_role_and_large_far_from_it() -> None:
    model = build_model("abmil", dim=5, n_out=2)
    random = np.random.default_rng(0)
    learnt = random.normal(size=(4000, 5)) * [1, 2, 3, 4, 5] + 7
    model.standardise(*(torch.from_numpy(one.astype(np.float32)) for one in (learnt.mean(axis=0), learnt.std(axis=0))))
    told = novelty(model, learnt.astype(np.float16))
    assert (told**2).mean() == pytest.approx(1, abs=0.01)
    far = novelty(model, learnt[:9] + 10 * learnt.std(axis=0))
    assert far.min() > 5, "beyond the limit at which the model itself cuts features"


def test_contributions_are_those_of_the_prediction(finished: Work) -> None:
    model = trained_models(finished)[0]
    bag = read_checked_bag("S02", finished)
    told = explain(question(model, bag, finished), ("contribution",))
    np.testing.assert_array_equal(told.answer.values, answer(model, bag, finished).values)
    checkpoint = question(model, bag, finished).checkpoint
    logits = told.answer.inference.logits - checkpoint.model.head.bias.detach().numpy()
    total = told.matrix().sum(axis=0)
    np.testing.assert_allclose(total, checkpoint.task.scores(logits[None])[0], atol=1e-5)


def test_a_model_that_breaks_its_word_is_refused(finished: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    model, bag = trained_models(finished)[0], read_checked_bag("S02", finished)
    straight = MIL.pool

    def wrong(self: MIL, *batch: object) -> object:
        pooled = straight(self, *batch)  # type: ignore[arg-type]
        return pooled._replace(contributions=pooled.contributions * 1.5)

    monkeypatch.setattr(MIL, "pool", wrong)
    with pytest.raises(ModelError, match="do not add up"):
        explain(question(model, bag, finished), ("contribution",))


def test_what_is_shown_must_be_drawn(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not among the methods"):
        open_work(cohort, tmp_path, "heatmap.methods=[alone]")
    with pytest.raises(ConfigError, match="methods"):
        open_work(cohort, tmp_path, "heatmap.methods=[lime]")


def test_a_method_that_the_model_has_not_is_said(copy_of: Callable[..., Work], cohort: Path) -> None:
    root = copy_of("tissue", "tile", "extract", "split", "train", "predict").root
    work = open_work(cohort, root, "heatmap.methods=[attention, graphcam]", "heatmap.channel=graphcam")
    (one,) = run_stage(work, "heatmap", shard=(1, 12))
    assert one.kind == "failed"
    assert "'graphcam', which seed-0/fold-" in one.why
    assert "it has attention_logit, attention" in one.why


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ("{name: gtp, options: {hidden: 16, heads: 2, clusters: 4}}", {"graphcam_lesion", "rollout"}),
        ("{name: gashis, options: {hidden: 16}}", {"global_lesion", "local_benign", "rollout"}),
        ("{name: persam, options: {hidden: 16, heads: 2}}", {"classwise_lesion", "exploratory", "rollout_benign"}),
    ],
)
def test_what_a_model_has_besides(settings: str, wanted: set[str], copy_of: Callable[..., Work], cohort: Path) -> None:
    root = copy_of("tissue", "tile", "extract", "split").root
    work = open_work(cohort, root, f"model={settings}", "train.epochs=1", EVERY, "heatmap.export=[]")
    for name in ("train", "predict"):
        assert {one.kind for one in run_stage(work, name)} == {"made"}
    heatmap = drawn(work)
    assert wanted <= set(heatmap.channels)
    assert np.isfinite(heatmap.scores).all()


def test_a_patients_slides_share_a_scale(copy_of: Callable[..., Work], cohort: Path) -> None:
    root = copy_of("tissue", "tile", "extract", "split").root
    work = open_work(cohort, root, "model.bag_of=patient", "train.epochs=1", "heatmap.export=[tiff]")
    for name in ("split", "train", "predict"):
        assert {one.kind for one in run_stage(work, name, redo=True)} == {"made"}
    drawn(work)
    with tifffile.TiffFile(root / "heatmap/abmil/S02/S02.tiff") as tiff:
        told = tiff.pages[0].description  # type: ignore[union-attr]
    siblings = work.cohort.frame.set_index("slide")["patient"]
    assert (siblings == siblings["S02"]).sum() > 1
    assert "of this patient's slides" in told
