"""The schema's version: made, kept, told apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from k2think.schemas.errors import SchemaMismatch, StoreError, StoreUnavailable
from k2think.store.database import parse_url
from k2think.store.migrate import HEAD, SchemaState, alembic_config, check, require_current, upgrade
from k2think.store.tables import metadata
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool


def execute(url: str, statement: str) -> None:
    engine = create_engine(parse_url(url), poolclass=NullPool)
    with engine.begin() as conn:
        conn.execute(text(statement))
    engine.dispose()


def test_an_empty_database_is_brought_up_to_date(empty_url: str) -> None:
    assert check(empty_url) is SchemaState.empty
    with pytest.raises(SchemaMismatch, match="k2think db upgrade"):
        require_current(empty_url)

    upgrade(empty_url)
    upgrade(empty_url)

    assert check(empty_url) is SchemaState.current
    require_current(empty_url)


def test_looking_makes_no_file(tmp_path: Path) -> None:
    assert check(f"sqlite:///{tmp_path / 'none.db'}") is SchemaState.empty
    assert list(tmp_path.iterdir()) == []


def test_scripts_and_tables_are_the_same(url: str) -> None:
    engine = create_engine(parse_url(url), poolclass=NullPool)
    with engine.connect() as conn:
        differences = compare_metadata(MigrationContext.configure(conn, opts={"compare_type": True}), metadata)
        indexes = {index["name"] for table in metadata.tables for index in inspect(conn).get_indexes(table)}
    engine.dispose()

    assert differences == []
    assert {str(index.name) for table in metadata.tables.values() for index in table.indexes} <= indexes


def test_every_column_is_described() -> None:
    assert [str(column) for table in metadata.tables.values() for column in table.columns if not column.comment] == []


def test_the_newest_script_is_the_one_that_the_code_expects() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())

    assert scripts.get_heads() == [HEAD]


_UPGRADE = "import sys; from k2think.store.migrate import upgrade; upgrade(sys.argv[1])"


def test_several_processes_may_upgrade_at_once(empty_url: str) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", _UPGRADE, empty_url], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]

    ends = [(process.communicate(timeout=90)[1], process.returncode) for process in processes]

    assert ends == [("", 0)] * 3
    require_current(empty_url)


def test_a_newer_database_is_left_alone(url: str) -> None:
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    try:
        assert check(url) is SchemaState.newer
        for action in (require_current, upgrade):
            with pytest.raises(SchemaMismatch, match=r"newer version.*install that version.*K2THINK_DATABASE_URL"):
                action(url)
        assert check(url) is SchemaState.newer
    finally:
        execute(url, f"UPDATE alembic_version SET version_num = '{HEAD}'")  # noqa: S608


def test_an_upgrade_that_breaks_leaves_nothing_behind(empty_url: str) -> None:
    """Given a table in the way, when the upgrade fails, then none of its other tables are there."""
    execute(empty_url, "CREATE TABLE comparisons (x INTEGER)")

    with pytest.raises(StoreError):
        upgrade(empty_url)

    engine = create_engine(parse_url(empty_url), poolclass=NullPool)
    assert inspect(engine).get_table_names() == ["comparisons"]
    engine.dispose()


def test_an_up_to_date_database_costs_no_import_of_alembic(url: str) -> None:
    code = (
        "import sys; from k2think.store.migrate import upgrade, require_current;"
        " upgrade(sys.argv[1]); require_current(sys.argv[1]); print('alembic' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, timeout=90, check=True)

    assert done.stdout.strip() == "False"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(StoreUnavailable, match="cannot be made"):
        upgrade(f"sqlite:///{tmp_path / 'file' / 'sub' / 'k2think.db'}")
