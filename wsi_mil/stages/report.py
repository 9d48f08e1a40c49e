"""Everything on one page: report/index.html, and figures.json for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from wsi_mil import files
from wsi_mil.config import StudyPath, explain
from wsi_mil.evaluation import Interval, Localisation
from wsi_mil.report import Headline, Part, page
from wsi_mil.stages import believed, judge, ledger
from wsi_mil.stages.evaluate import Evaluation, evaluate
from wsi_mil.stages.judgement import Judgement, judge_study
from wsi_mil.stages.making import STUDY_YAML
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.truth import Truth

if TYPE_CHECKING:
    from wsi_mil.stages.judge import Judged
    from wsi_mil.stages.work import Work

Maps = Mapping[str, Mapping[str, Localisation]]
"""How well heatmaps find lesions: by group of slides, then by score."""


class Report(Stage):
    """Gather the study on one page."""

    name: ClassVar[str] = "report"

    title: str = "Slide study"
    """Title of the page."""
    truth: StudyPath | None = None
    """Where the lesions are, to judge the heatmaps by: CSV with slide, x, y, label, or a folder of GeoJSON polygons."""
    truth_of: str = ""
    """Classification of the polygons that are lesions; empty takes all."""
    groups: tuple[str, ...] = ("site",)
    """Columns of the cohort whose values are judged apart, such as site, scanner or sex."""
    draws: int = Field(default=1000, ge=100)
    """Resamples of the patients behind each interval."""
    heatmaps: int = Field(default=12, ge=0)
    """Heatmaps shown on the page."""
    tiles: int = Field(default=6, ge=0)
    """Highest and lowest tiles shown for each of a few slides."""
    errors: int = Field(default=8, ge=0)
    """Most confident errors shown with their heatmaps."""
    faults: int = Field(default=8, ge=0)
    """Tiles shown for each fault of quality."""
    thumbnails: int = Field(default=48, ge=0)
    """Thumbnails with tissue contours shown on the page."""

    @property
    def after(self) -> tuple[str, ...]:
        """The heatmaps and the decisions."""
        return ("heatmap", "calibrate")

    def folder(self, work: Work) -> Path:
        """report/."""
        return work.root / self.name

    def items(self, work: Work) -> list[Item]:
        """One: the page."""
        return [Item("study")]

    def output(self, item: Item, work: Work) -> Path:
        """index.html; figures.json and study.yaml are put in their places before it."""
        return self.folder(work) / "index.html"

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """The predictions, the records of all stages before, and which slides have a case report to link to."""
        from wsi_mil.stages import rejection_page
        from wsi_mil.stages.galleries import written_cases

        told = [files.digest_file(ledger.require("predict", "slides", work))]
        decided = work.stage("calibrate").output(Item("slides"), work)
        told.append(files.digest_file(decided) if decided.exists() else "")
        for name in ("tissue", "tile", "extract", "heatmap"):
            stage = work.stage(name)
            for slide in work.slide_items():
                record = ledger.read_record(stage, slide.name, work)
                told.append(str(record and (record["outcome"], record["why"], record["inputs"])))
        told.append(" ".join(written_cases(work)))
        told.append(rejection_page.digest(work))
        return [*told, str(self.truth and _changed(self.truth)), believed.digest(work)]

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Evaluate, draw, and write the page."""
        told, judged, trusted, found, parts = self._judged(work)
        headlines = [*judge.headlines(judged), *self._headlines(told, found, work)]
        parts = [*_in("Cohort", self._cohort(work)), *parts, *self._galleries(found, work)]
        label = ", ".join(work.study.task.columns)
        subtitle = f"{len(work.cohort)} slides of {work.cohort.frame['patient'].nunique()} patients" + (
            f", {label!r} by {work.study.model.name} on {work.study.extract.encoder} features" if label else ""
        )
        predicted = ledger.read_record(work.stage("predict"), "slides", work)
        if predicted and predicted["facts"].get("warning"):
            subtitle += f". Note: {predicted['facts']['warning']}"
        draft.write_text(page(title=self.title, subtitle=subtitle, headlines=headlines, parts=parts), encoding="utf-8")
        files.write_text(self.folder(work) / STUDY_YAML, explain(work.study))
        figures = _figures(told, found, headlines, judged, trusted)
        files.write_json(self.folder(work) / "figures.json", figures)
        return {"slides": len(work.cohort)}

    def _judged(self, work: Work) -> tuple[Evaluation | None, Sequence[Judged], Judgement | None, Maps, list[Part]]:
        """All numbers of the study, and the parts of the page that tell them."""
        from wsi_mil.stages import galleries, judgement_pages, pages, rejection_page
        from wsi_mil.stages.rivals import rivals

        truth = Truth(self.truth, of=self.truth_of) if self.truth is not None else None
        others = [*rivals(work, draws=self.draws), *galleries.mistakes(work, self.errors)]
        if work.study.task.kind != "classification":
            judged, found = judge.judge(work, draws=self.draws, truth=truth, columns=self.groups)
            both = _in("Results", [*judge.pages(judged), *others])
            both += _in("Reliance", judgement_pages.parts_of_questions(judged, work))
            return None, judged, None, found, both
        told = evaluate(work, draws=self.draws, truth=truth)
        trusted = judge_study(work, columns=self.groups, draws=self.draws) if told else None
        parts = [pages.performance(told), pages.baselines(told)] if told else []
        reliance = judgement_pages.parts_of(trusted, told, work)
        reliance += rejection_page.part(work)
        both = [*_in("Results", [*parts, *others]), *_in("Reliance", reliance)]
        return told, (), trusted, told.localisation if told else {}, both

    def _cohort(self, work: Work) -> list[Part]:
        """The parts that say who takes part."""
        from wsi_mil.stages import flow, galleries

        return [flow.flow(work), *flow.dealt(work), galleries.cohort(work)]

    def _galleries(self, found: Maps, work: Work) -> list[Part]:
        """The parts that show slides, tiles, faults and how all was made."""
        from wsi_mil.stages import contact, galleries, making, pages
        from wsi_mil.stages.faults import faults

        maps = [*([pages.localisation(found, work)] if found else []), *believed.parts(work)]
        maps.append(galleries.heatmaps(work, self.heatmaps))
        maps += [galleries.tiles(work, self.tiles)] if self.tiles else []
        slides = [galleries.cases(work), contact.quality(work, self.thumbnails), faults(work, self.faults)]
        made = [pages.training(work)] if work.study.predict.models is None else []
        made += [*making.pace(work), making.provenance(work)]
        return [*_in("Heatmaps", maps), *_in("Slides", slides), *_in("Making", made)]

    def _headlines(self, told: Evaluation | None, maps: Maps, work: Work) -> list[Headline]:
        found = []
        if told:
            found.append(_headline("slide AUROC", told.slides.metrics["auroc"], f"{len(told.slides.names)} slides"))
            if told.patients:
                count = f"{len(told.patients.names)} patients"
                found.append(_headline("patient AUROC", told.patients.metrics["auroc"], count))
            if "mean colour" in told.baselines:
                found.append(_headline("slide AUROC, mean colour alone", told.baselines["mean colour"], "baseline"))
        found += _found_by_maps(maps, work)
        records = [ledger.read_record(work.stage("extract"), item.name, work) for item in work.slide_items()]
        tiles = sum(int(one["facts"].get("tiles", 0)) for one in records if one)
        if tiles:
            found.append(Headline(f"{tiles:,}", "tiles", f"{sum(bool(one and one['facts']) for one in records)} bags"))
        return found


def _in(chapter: str, parts: Sequence[Part]) -> list[Part]:
    """The parts under a heading of the contents list."""
    return [replace(part, chapter=chapter) for part in parts]


def _headline(name: str, interval: Interval, note: str) -> Headline:
    return Headline(f"{interval.value:.3f}", name, f"95 % {interval.low:.3f} to {interval.high:.3f}, {note}")


def _found_by_maps(maps: Maps, work: Work) -> list[Headline]:
    """Tile AUROC of what the pictures show, for each group of slides that has truth."""
    patients = dict(zip(work.cohort.frame["slide"], work.cohort.frame["patient"], strict=True))
    found = []
    for part, scores in maps.items():
        name, localised = next(iter(scores.items()))
        if localised.slides:
            interval = localised.interval(patients)
            told_part = "" if part == "cross-validation" else f", {part} slides"
            note = f"{name}, mean of {len(localised.slides)} slides"
            found.append(_headline(f"tile AUROC of the heatmaps{told_part}", interval, note))
    return found


def _figures(
    told: Evaluation | None,
    maps: Maps,
    headlines: Sequence[Headline],
    judged: Sequence[Judged],
    trusted: Judgement | None,
) -> dict[str, Any]:
    """The numbers of the page for programs."""
    figures: dict[str, Any] = {"headlines": [vars(one) for one in headlines]}
    if trusted is not None:
        from wsi_mil.stages.judgement_pages import figures_of

        figures["judgement"] = figures_of(trusted)
    figures["tile_auroc"] = {
        part: {
            name: {"mean": one.mean_auroc, "slides": len(one.slides), "average_precision": one.mean_average_precision}
            for name, one in scores.items()
        }
        for part, scores in maps.items()
    }
    if told is None:
        from wsi_mil.stages.judge import figures as of_questions

        return {**figures, "questions": of_questions(judged)}
    figures["slides"] = {name: _plain(one) for name, one in told.slides.metrics.items()}
    figures["fold_means"] = {name: one.plain for name, one in told.folds.items()}
    figures["fold_means_patients"] = {name: one.plain for name, one in told.patient_folds.items()}
    figures["patients"] = {name: _plain(one) for name, one in told.patients.metrics.items()} if told.patients else None
    figures["baselines_auroc"] = {name: _plain(one) for name, one in told.baselines.items()}
    figures["auroc_less_baseline"] = {name: _plain(one) for name, one in told.differences.items()}
    figures["seeds_auroc"] = told.seeds
    return figures


def _plain(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _changed(path: Path) -> list[tuple[str, int]]:
    inner = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    return [(one.name, one.stat().st_mtime_ns) for one in inner]
