"""``report.html`` and the figures as files."""

from __future__ import annotations

from pathlib import Path

from lightball.errors import InputError
from lightball.report.comparison import comparison_page
from lightball.report.figures import png, svg
from lightball.report.page import Page, at_rest, figures_of, html
from lightball.studies.ledger import Observer, Silent
from lightball.studies.store.disk import write
from lightball.studies.study import read_study

NAME = "report.html"


def write_report(folder: str | Path, *, out: str | Path | None = None, with_figures: bool = False) -> Path:
    """Make the page of the study in a folder from what is finished there.

    Args:
        folder: of a study, finished or not.
        out: the file to write; default ``report.html`` in the folder.
        with_figures: write each figure as PNG and SVG too, into ``figures/`` beside the page.

    Returns:
        The page, one file that needs no network.

    Cost: seconds; a second more for each dozen of figures.

    Raises:
        InputError: the folder holds no study, or none with a finished run; or a file cannot be read or written.
    """
    path = Path(out) if out is not None else Path(folder) / NAME
    page = comparison_page(read_study(folder))
    write_page(page, path)
    if with_figures:
        write_figures(page, path.parent / "figures")
    return path


def write_page(page: Page, path: Path) -> None:
    """Write a page so that a reader finds the whole of it, or of the one before.

    Raises:
        InputError: it cannot be written.
    """
    _in_folder(path.parent)
    write(path, html(page).encode())


def stop_reloading(path: Path) -> None:
    """Make a page that loads itself again one that does not.

    Raises:
        OSError: it cannot be read.
        InputError: it cannot be written.
    """
    write(path, at_rest(path.read_text(encoding="utf-8")).encode())


def write_figures(page: Page, folder: Path, observer: Observer | None = None) -> list[Path]:
    """Write each figure of a page as PNG and SVG, by its name.

    Args:
        observer: told of each figure.

    Raises:
        InputError: one cannot be written.
    """
    _in_folder(folder)
    written = []
    observer = observer or Silent()
    found = figures_of(page)
    observer.begin("figures", len(found))
    for figure in found:
        for ending, made in ((".png", png(figure.chart)), (".svg", svg(figure.chart).encode())):
            written.append(folder / f"{figure.name}{ending}")
            write(written[-1], made)
        observer.advance(1)
    return written


def _in_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {str(folder)!r}: {error.strerror}; choose another place") from error
