"""The `load_data` of dataset modules that consist of a table of files, made from the table.

The signatures here are what users see: their keyword-only parameters are the flags of such modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.table import Row

LoadData = Callable[..., Mapping[str, Any]]


def reader(table: Mapping[str, Row]) -> LoadData:
    """Return the `load_data` of a table."""

    def load_data(
        data_dir: Path | str,
        data_ids: Sequence[str] | None = None,
        *,
        class_keys: Sequence[str] = (),
        labels: Sequence[str] = (),
        lazy: bool = False,
    ) -> Mapping[str, Any]:
        """Load volumes by id: the image, the requested labels that exist, and the masks."""
        from deepem.data.emio import load_files

        return load_files(table, data_dir, data_ids, labels, lazy=lazy)

    return load_data


def reader_with_glia_mask(table: Mapping[str, Row], masked: Mapping[str, Row]) -> LoadData:
    """Return the `load_data` of a table, some rows of which have another mask if glia cells are masked out.

    Args:
        table: Id -> row.
        masked: Id -> the row to use with the flag `glia_mask`.
    """

    def load_data(
        data_dir: Path | str,
        data_ids: Sequence[str] | None = None,
        *,
        class_keys: Sequence[str] = (),
        labels: Sequence[str] = (),
        lazy: bool = False,
        glia_mask: bool = False,
    ) -> Mapping[str, Any]:
        """Load volumes by id: the image, the requested labels that exist, and the masks.

        Args:
            data_dir: The folder of the datasets.
            data_ids: Ids, by default all.
            class_keys: Not used.
            labels: Label keys.
            lazy: Leave the arrays on disk.
            glia_mask: mask out glia cells
        """
        chosen = {**table, **masked} if glia_mask else table
        return reader(chosen)(data_dir, data_ids, labels=labels, lazy=lazy)

    return load_data
