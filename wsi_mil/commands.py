"""Commands that look: encoders listed and checked, one slide shown; and bags imported, exported and verified."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_mil.errors import ConfigError

if TYPE_CHECKING:
    from wsi_mil.stages import Exchanged


def encoders(
    action: Annotated[str, typer.Argument(metavar="[check]", help="Nothing lists them; `check` loads one.")] = "",
    name: Annotated[str, typer.Argument(help="A name of the list, timm:MODEL or local:FOLDER.")] = "",
    weights: Annotated[str, typer.Option("--weights", help="File or folder of its weights, or `random`.")] = "",
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16.")] = "fp32",
    pooling: Annotated[str, typer.Option("--pooling", help="cls, mean, cls+mean or tokens; empty: its own.")] = "",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, or auto.")] = "auto",
    golden: Annotated[
        Path | None, typer.Option("--golden", help="Golden embedding to compare with; else the weights folder's own.")
    ] = None,
    save_golden: Annotated[
        Path | None, typer.Option("--save-golden", help="Keep this encoder's golden embedding as a file.")
    ] = None,
) -> None:
    """List the encoders; or load one, say what it is, and compare its golden embedding.

    The golden embedding is the vectors of four tiles that are the same on every machine. Where it differs from the one
    that was kept, the exit code is 1.
    """
    from rich.console import Console

    from wsi_mil.console import show_encoders

    if not action:
        show_encoders(Console())
        return
    if action != "check" or not name:
        raise ConfigError("write `wsi-mil encoders` for the list, or `wsi-mil encoders check NAME`")
    how = {"weights": weights or None, "precision": precision, "pooling": pooling}
    _check(name, how, device=device, golden=golden, save_golden=save_golden)


def slide(
    file: Annotated[str, typer.Argument(help="A slide: a file, a folder of OME-Zarr or DICOM, or a URL of a TIFF.")],
    mpp: Annotated[float | None, typer.Option("--mpp", help="Its scale, where the file does not say.")] = None,
    reader: Annotated[str, typer.Option("--reader", help="Read it with this reader and no other.")] = "",
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Read random regions with every reader that opens it, and compare them."),
    ] = False,
) -> None:
    """Show what a slide is: levels, size, scale and where it comes from; which reader was chosen, and why no other."""
    from rich.console import Console

    from wsi_mil.console import show_comparison, show_readers, show_slide
    from wsi_mil.slides import open_slide, survey

    console = Console()
    with open_slide(file, mpp=mpp, reader=reader or None) as opened:
        show_slide(opened, console)
    if reader or "://" in str(file):
        return
    found = survey(file, mpp=mpp)
    show_readers(found, console)
    if compare:
        show_comparison(found, console)


Truth = Annotated[Path | None, typer.Option("--truth", help="Folder with SLIDE.geojson: where the lesions are.")]
Moved = Annotated[Path | None, typer.Option("--slides", help="Folder of the slides, if they were moved.")]
WorkGiven = Annotated[Path, typer.Argument(metavar="WORK", help="A work folder.")]


def view(
    work: WorkGiven,
    truth: Truth = None,
    slides: Moved = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; others than loopback are open to all.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    token: Annotated[
        str, typer.Option("--token", envvar="WSI_MIL_TOKEN", help="Of 16 characters or more; else a new one each time.")
    ] = "",
) -> None:
    """Look at slides and heatmaps in a browser, until interrupted. Works offline and through `ssh -L`."""
    from wsi_mil.viewer import Address, new_token, read_cases, serve

    def told(address: Address) -> None:
        typer.echo(f"open    {address.url}")
        if address.tunnel:
            typer.echo(f"remote  {address.tunnel}   (on your own machine, then open the same address there)")
        else:
            typer.echo("note    it listens to the network: whoever has the address sees the slides, unencrypted")

    cohort = read_cases(work, truth=truth, slides=slides)
    typer.echo(f"slides  {len(cohort.cases)}, models {', '.join(cohort.models) or 'none'}; Ctrl-C ends")
    serve(cohort, host=host, port=port, token=token or new_token(), told=told)


def export_viewer(
    work: WorkGiven,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; must not exist yet.")],
    only: Annotated[list[str] | None, typer.Option("--slide", help="Only this slide; may be repeated.")] = None,
    truth: Truth = None,
    slides: Moved = None,
    max_px: Annotated[int, typer.Option("--max-px", min=256, help="Longest side of a slide in the folder.")] = 2048,
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="Of its pictures (WebP).")] = 60,
) -> None:
    """Write a folder with slides and heatmaps that opens from disk, without a server, small enough to mail."""
    from wsi_mil.viewer import export_viewer, read_cases

    cohort = read_cases(work, truth=truth, slides=slides)
    told = export_viewer(cohort, output, only=only or (), max_px=max_px, quality=quality)
    typer.echo(f"{told.slides} slides, {told.bytes / 1e6:.1f} MB: open {output / 'index.html'}")
    for slide, why in told.left_out.items():
        typer.echo(f"left out {slide}: {why}", err=True)


def case(
    work: WorkGiven,
    slides: Annotated[list[str] | None, typer.Argument(metavar="SLIDE...", help="Slides by their ids.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every slide that has a prediction.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; else WORK/case/MODEL.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Folder under predict/, where there are several.")] = "",
    pdf: Annotated[
        bool, typer.Option("--pdf/--no-pdf", help="Print each page to PDF where a Chromium is found.")
    ] = True,
) -> None:
    """One page a slide: prediction with its spread, decision, heatmap, tiles, quality and provenance. Research only."""
    from wsi_mil.stages import find_browser, open_work, report_cases

    if bool(slides) == everyone:
        raise ConfigError("name the slides, or give --all, and not both")
    place = open_work(work, model=model)
    browser = find_browser() if pdf else None
    if pdf and browser is None:
        typer.echo("no Chromium is found: HTML only (its print dialogue makes the PDF)", err=True)
    failed = 0
    for told in report_cases(place, slides or [], output, browser=browser):
        written = [str(path) for path in (told.html, told.pdf) if path is not None]
        if written:
            typer.echo("  ".join(written))
        if told.why:
            failed += told.html is None
            typer.echo(f"{told.slide}: {told.why}", err=True)
    if failed:
        raise typer.Exit(1)


bags = typer.Typer(help="Import, export and verify bags of features.", no_args_is_help=True)

Bags = Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or folders of them.")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")]


@bags.command("import")
def import_(
    paths: Bags,
    output: Folder,
    slides: Annotated[str, typer.Option("--slides", help="Folder of the slides: scale, size and identity.")] = "",
    table: Annotated[
        Path | None, typer.Option("--table", help="CSV with slide and mpp (and width, height), without the slides.")
    ] = None,
    mpp: Annotated[float | None, typer.Option("--mpp", help="Scale of all slides, um per level-0 pixel.")] = None,
    patches: Annotated[Path | None, typer.Option("--patches", help="CLAM's folder patches/, if elsewhere.")] = None,
    encoder: Annotated[str, typer.Option("--encoder", help="Name of the encoder, where the files do not say.")] = "",
    tile_px: Annotated[int, typer.Option("--tile-px", help="Side of a tile in pixels, where unknown.")] = 0,
    tile_mpp: Annotated[float, typer.Option("--tile-mpp", help="Scale of the tiles, where unknown.")] = 0.0,
    redo: Annotated[bool, typer.Option("--redo", help="Import again what is there already.")] = False,
) -> None:
    """Take features that TRIDENT, CLAM, STAMP or slideflow made, as bags of a study (work/extract/ENCODER/)."""
    from wsi_mil.stages import Help, import_bags

    known = Help(slides, table, mpp, patches, encoder, tile_px, tile_mpp)
    _tell(import_bags(paths, output, known, redo=redo))


@bags.command("export")
def export(
    paths: Bags,
    output: Folder,
    layout: Annotated[str, typer.Option("--as", help="clam, trident or stamp.")],
) -> None:
    """Write bags as CLAM's, TRIDENT's or STAMP's own files."""
    from wsi_mil.stages import export_bags

    _tell(export_bags(paths, output, layout))


@bags.command("verify")
def verify(paths: Bags) -> None:
    """Read bags whole and compare their digests: finds what a disk has changed."""
    from wsi_mil.stages import verify_bags

    _tell(verify_bags(paths))


@bags.command("embed")
def embed(
    paths: Bags,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV to write, a row a slide.")],
    encoder: Annotated[str, typer.Option("--with", help="feather-conch-v1.5, feather-uni or feather-uni2-h.")],
    weights: Annotated[str, typer.Option("--weights", help="File or folder of its weights, or `random`.")] = "",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, or auto.")] = "auto",
) -> None:
    """One vector a slide by a pretrained slide encoder, from the tiles of the encoder it reads."""
    from wsi_mil.encoders import build_slide_encoder, choose_device
    from wsi_mil.stages import embed_slides

    built = build_slide_encoder(encoder, weights_from=weights, device=choose_device(device))
    _tell(embed_slides(paths, output, built))


def _tell(rows: Iterable[Exchanged]) -> None:
    """A table of what became of each file; exit code 1 where one failed."""
    from rich.console import Console

    from wsi_mil.console import show_table

    console, told = Console(), list(rows)
    shown = [(one.slide, one.kind, one.tiles or "", one.dim or "", one.what, one.note) for one in told]
    show_table(shown, ("slide", "outcome", "tiles", "dim", "what", "note"), console)
    failed = sum(one.kind == "failed" for one in told)
    console.print(f"{len(told) - failed} well, {failed} failed", highlight=False)
    if failed:
        raise typer.Exit(1)


def _check(name: str, how: dict[str, Any], *, device: str, golden: Path | None, save_golden: Path | None) -> None:
    from rich.console import Console

    from wsi_mil import encoders as room
    from wsi_mil.console import show_check

    console = Console()
    row = None if name == "offline" else room.entry_of(name)
    tile_px, tile_mpp = (64, 0.5) if row is None else (row.tile_px, row.mpp[0] if row.mpp else 0.5)
    place = room.choose_device(device)
    encoder = room.build_encoder(name, tile_px=tile_px, tile_mpp=tile_mpp, device=place, **how)
    found = room.embed(encoder)
    facts = {**encoder.contract.to_dict(), "pretraining_data": row.pretraining_data if row else "none"}
    show_check(facts.items(), console)
    if save_golden is not None:
        room.save_golden(found, save_golden)
        console.print(f"golden embedding kept in {save_golden}", highlight=False, markup=False)
    kept = room.golden_of(name, golden)
    if kept is None:
        console.print(
            f"no golden embedding of {name} is known here: keep one on a machine you trust with --save-golden FILE",
            highlight=False,
            markup=False,
        )
        return
    told = room.compare(found, kept)
    for difference in told.differences:
        console.print(f"contract differs in {difference}", highlight=False, markup=False)
    verdict = "[green]the same[/]" if told.same else "[bold red]not the same[/]"
    console.print(f"golden embedding: {verdict} (cosine {told.cosine:.6f}, largest difference {told.largest:.2g})")
    if not told.same:
        raise typer.Exit(1)


def config(
    study: Annotated[Path | None, typer.Argument(metavar="[STUDY.yaml]", help="Nothing shows the defaults.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[section.key=value]...", help="Settings that win over the study file."),
    ] = None,
) -> None:
    """Print the resolved configuration with the meaning of each field."""
    from wsi_mil.config import explain
    from wsi_mil.stages import Study, load_study

    typer.echo(explain(load_study(study, settings or []) if study else Study()), nl=False)
