"""``lightball report``: the page of a study, made again from its folder."""

from __future__ import annotations

from json import dumps
from pathlib import Path

import click


@click.command(short_help="Make the page of a study: charts, verdicts, settings.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--figures", is_flag=True, help="Write each figure as PNG and SVG too, into figures/ beside the page.")
@click.option("--out", type=click.Path(path_type=Path), help="File of the page.  [default: DIR/report.html]")
@click.option("--json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="Print the path of the page only.")
def report(folder: Path, figures: bool, out: Path | None, json: bool, quiet: bool) -> None:
    """Make report.html of the study in DIR, finished or not, and print what it says.

    The page is one file that needs no network. Runs are only read.

    \b
    Examples:
      lightball report lightball-runs/digits-315fddac
      lightball report lightball-runs/digits-315fddac --figures
    """
    from lightball.cli.emphasis import emphasised
    from lightball.cli.progress import Progress
    from lightball.report.comparison import comparison_page
    from lightball.report.study_json import study_json
    from lightball.report.text import study_text
    from lightball.report.writing import NAME, write_figures, write_page
    from lightball.studies.study import read_study

    study = read_study(folder)
    path = out if out is not None else folder / NAME
    page = comparison_page(study)
    write_page(page, path)
    written: list[Path] = []
    if figures:
        with Progress(enabled=not (json or quiet)) as progress:
            written = write_figures(page, path.parent / "figures", progress)
    if json:
        value = {**study_json(study), "report": str(path), "figures": [str(name) for name in written]}
        click.echo(dumps(value, indent=2, ensure_ascii=False))
    elif quiet:
        click.echo(path)
    else:
        click.echo(emphasised(study_text(study)))
        click.echo(f"report in {path}" + (f", {len(written)} files in {path.parent / 'figures'}" if written else ""))
