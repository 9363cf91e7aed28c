"""Where data sets lie that lightball does not bring along."""

from __future__ import annotations

import os
from pathlib import Path

from lightball.errors import InputError

VARIABLE = "LIGHTBALL_DATA"


def data_folder(name: str, data: str | Path | None = None) -> Path:
    """The folder of the data set ``name`` in ``data``, by default in the folder that LIGHTBALL_DATA names.

    Raises:
        InputError: neither is given, or the folder is not there.
    """
    given = data or os.environ.get(VARIABLE)
    if not given:
        raise InputError(
            f"the data set {name!r} is in no folder that is known: set the environment variable {VARIABLE} to the "
            f"folder that holds {name}/ with its Parquet files, as on the Hugging Face hub"
        )
    folder = Path(given) / name
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r}: {VARIABLE} must name the folder that holds {name}/")
    return folder
