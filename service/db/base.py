"""What all tables share: their base class, the names of constraints, the types of columns."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, Double, Integer, MetaData, Text
from sqlalchemy.orm import DeclarativeBase

Json = dict[str, Any]
MOST_INTEGER = 2**31 - 1  # in a column of type INTEGER on PostgreSQL
MOST_BIG_INTEGER = 2**63 - 1  # in one of type BIGINT, and in any of SQLite's
# SQLite numbers rows by itself only in a column of type INTEGER.
AutoId = BigInteger().with_variant(Integer, "sqlite")

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """All tables of the service; MLflow's and Optuna's live in databases of their own."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {Json: JSON(none_as_null=True), float: Double, str: Text}


def one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    """The constraint that `column` holds one of the values of an enum."""
    values = ", ".join(f"'{state.value}'" for state in states)
    return CheckConstraint(f"{column} IN ({values})", name=column)
