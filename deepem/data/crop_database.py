"""The database of crop indexes: its tables, connections and errors, the same for SQLite and PostgreSQL."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from deepem.utils.errors import InputError, reason

BOX = ("z1", "y1", "x1", "z2", "y2", "x2")
LOCK = 0x6465_6570
"""Number of the PostgreSQL advisory lock held while an index is built."""


def sql() -> Any:
    """Import SQLAlchemy.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("sqlalchemy")
    except ModuleNotFoundError as error:
        raise InputError("crop index", f"no package {error.name}", "pip install 'deepem[detect]'") from error


@dataclass(frozen=True)
class Schema:
    """The tables of `deepem.data.crop_index`."""

    meta: Any
    indexes: Any
    crops: Any
    objects: Any


_SCHEMA: list[Schema] = []


def schema() -> Schema:
    """Return the tables."""
    if not _SCHEMA:
        alchemy = sql()
        meta, column, whole = alchemy.MetaData(), alchemy.Column, alchemy.Integer
        indexes = alchemy.Table(
            "deepem_indexes", meta, column("id", whole, primary_key=True),
            column("key", alchemy.String(64), nullable=False, unique=True),
            column("stamp", alchemy.String(64), nullable=False),
        )  # fmt: skip
        crops = alchemy.Table(
            "deepem_crops", meta, column("id", whole, primary_key=True),
            column("index", alchemy.ForeignKey(indexes.c.id), nullable=False), column("place", whole, nullable=False),
            column("volume", alchemy.String, nullable=False),
            *(column(name, whole, nullable=False) for name in ("z", "y", "x", "channel", "objects")),
            alchemy.UniqueConstraint("index", "place"),
        )  # fmt: skip
        objects = alchemy.Table(
            "deepem_objects", meta, column("crop", alchemy.ForeignKey(crops.c.id), primary_key=True),
            column("object", alchemy.BigInteger, primary_key=True),
            *(column(name, whole, nullable=False) for name in ("label", *BOX, "voxels")),
        )  # fmt: skip
        _SCHEMA.append(Schema(meta, indexes, crops, objects))
    return _SCHEMA[0]


def engine(url: str) -> Any:
    """Return an engine for a file (SQLite) or the URL of a database."""
    pool = importlib.import_module("sqlalchemy.pool")
    return sql().create_engine(url if "://" in url else f"sqlite:///{url}", poolclass=pool.NullPool)


@contextmanager
def writing(url: str) -> Iterator[Any]:
    """Open a connection with one exclusive transaction, so that an index appears whole or not at all."""
    with engine(url).connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA busy_timeout = 600000")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sql().select(sql().func.pg_advisory_xact_lock(LOCK)))
        yield connection
        connection.commit()


@contextmanager
def told(url: str) -> Iterator[None]:
    """Turn a database's errors into one line that names the database, without its password."""
    errors = importlib.import_module("sqlalchemy.exc") if sql() else None
    assert errors is not None
    try:
        yield
    except (errors.SQLAlchemyError, ModuleNotFoundError) as error:
        shown = str(sql().engine.make_url(url)) if "://" in url else url
        wants = "a file that can be written, or the URL of a PostgreSQL that is there"
        raise InputError("database", f"{shown}: {reason(error)}", wants) from error
