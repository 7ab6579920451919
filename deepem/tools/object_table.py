"""Read the scores of objects from a table, such as `deepem forward` writes beside their label volume."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from deepem.utils.errors import InputError

WANTS = "a CSV with the columns id and score: a whole number and a number in each row"


def scores_of(file: str, table: Path | None) -> dict[int, float] | None:
    """Return the score of each object of a label volume by its id.

    Args:
        file: The label volume.
        table: Its table; by default the CSV beside it.

    Returns:
        None if no table is given and none is beside the label volume.

    Raises:
        InputError: the table cannot be read, or has other columns or values.
    """
    path = Path(file).with_suffix(".csv") if table is None else table
    if table is None and not path.is_file():
        return None
    try:
        with open(path, newline="", encoding="utf-8") as opened:
            rows = csv.DictReader(opened)
            if table is None and not {"id", "score"} <= set(rows.fieldnames or ()):
                return None  # a table of something else
            found = {int(row["id"]): float(row["score"]) for row in rows}
    except OSError as error:
        raise InputError(path, error.strerror or error, WANTS) from error
    except KeyError as error:
        raise InputError(path, f"no column {error.args[0]}", WANTS) from error
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(path, error, WANTS) from error
    if wrong := [name for name, score in found.items() if not math.isfinite(score)]:
        raise InputError(path, f"the score {found[wrong[0]]} of object {wrong[0]}", WANTS)
    return found
