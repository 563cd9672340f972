"""SQL files: named, complete, prepared by the database that will run them; and searched by index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import fields

import pytest

from broker.stores.migrate import migrate
from broker.stores.queries import SQL, load, parse
from broker.stores.rows import AttemptRow, LeaseRow, TaskRow, unpacked


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    """Only asked how it would search; one for all."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    connection.execute(SQL["make_events"])  # what the queries of broker verify work on
    yield connection
    connection.close()


def test_a_holders_events_are_searched_by_key(connection: sqlite3.Connection) -> None:
    assert "SEARCH e USING PRIMARY KEY (tenant=? AND holder=? AND seq>?)" in plan(connection, "access_events_of_holder")


def plan(connection: sqlite3.Connection, name: str) -> str:
    names = set(re.findall(r":([a-z_]+)", SQL[name]))
    values: object = dict.fromkeys(names, "1") if names else ["1"] * SQL[name].count("?")
    return "\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", values))


@pytest.mark.parametrize("name", sorted(SQL))
def test_every_query_fits_the_schema(connection: sqlite3.Connection, name: str) -> None:
    assert "{" not in SQL[name]
    assert not re.search(r"\?[0-9]", SQL[name]), "from Python 3.14 on, sqlite3 takes no row of values for numbers"
    if name == "make_events":
        connection.execute("DROP TABLE temp.events")
        connection.execute(SQL[name])
        return
    plan(connection, name)


# Every query that serves a request or a tick finds its rows by an index, however many leases there are.
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("intent_facts", "leases_living (tenant=? AND holder=?)"),
        ("intent_facts", "leases_by_request (tenant=? AND holder=? AND request_id=?)"),
        ("attempts_due", "attempts_due (connector=? AND due_at>? AND due_at<?)"),
        ("attempts_by_upstream", "attempts_by_upstream (connector=? AND upstream=?)"),
        ("leases_of_holder", "leases_by_holder (tenant=? AND holder=? AND created_at<?)"),
        ("leases_of_task", "leases_by_task (tenant=? AND task_id=?)"),
        ("holder_events", "audit_by_holder (tenant=? AND holder=? AND seq>?)"),
        ("holder_news", "audit_by_holder (tenant=? AND holder=? AND seq>?)"),
        ("tasks_due", "tasks_ending (ends_at>? AND ends_at<?)"),
        ("any_task_due", "tasks_ending (ends_at>? AND ends_at<?)"),
        ("count_open_tasks", "tasks_open (tenant=? AND creator=?)"),
        ("living_holders", "leases_living (tenant=?)"),
        ("unended_by_holder", "leases_living (tenant=? AND holder=?)"),
        ("unended_by_task", "leases_by_task (tenant=? AND task_id=?)"),
        ("quota_by_agent", "leases_living (tenant=? AND holder=?)"),
        ("quota_by_task", "leases_by_task (tenant=? AND task_id=?)"),
        ("quota_by_template", "leases_living_template (tenant=? AND template=?)"),
        ("quota_by_connector", "attempts_due (connector=? AND due_at>?)"),
        ("stuck_figure", "attempts_stuck (stuck=?)"),
        ("access_requests_due", "access_requests_due (due_at>? AND due_at<?)"),
        ("any_access_request_due", "access_requests_due (due_at>? AND due_at<?)"),
        ("access_requests_page", "access_requests_by_time (tenant=? AND (created_at,id)<(?,?))"),
        ("access_requests_of_holder", "access_requests_by_holder (tenant=? AND holder=? AND (created_at,id)<(?,?))"),
        ("count_pending_requests", "access_requests_waiting (tenant=? AND holder=?)"),
        ("waiting_access_requests_of_ask", "access_requests_waiting (tenant=?)"),
        ("denied_lately", "access_requests_denied (tenant=? AND ask_digest=? AND ended_at>?)"),
        ("open_access_requests_of_task", "access_requests_of_task (tenant=? AND task_id=?)"),
        ("kept_plans", "access_requests_plans (tenant=? AND principal=? AND template=?"),
        ("last_approved_plan", "access_requests_plans (tenant=? AND principal=? AND template=?"),
        ("connectors_in_use", "attempts_due"),
        ("owed_figures", "attempts_due"),
        ("search_leases_of_task", "leases_by_task (tenant=? AND task_id=?"),
        ("search_leases_of_holder", "leases_by_holder (tenant=? AND holder=?"),
        ("search_leases_living", "leases_living (tenant=?"),
        ("search_tasks_open", "tasks_open (tenant=?"),
        ("living_counts", "leases_living (tenant=?)"),
        ("open_counts", "tasks_open (tenant=?)"),
    ],
)
def test_the_index_that_is_used(connection: sqlite3.Connection, name: str, index: str) -> None:
    connection.execute(SQL["index_living_templates"])
    assert f"INDEX {index}" in plan(connection, name)


@pytest.mark.parametrize("name", ["tasks_due", "holder_events", "audit_rows", "search_leases", "search_tasks"])
def test_the_order_comes_from_the_index(connection: sqlite3.Connection, name: str) -> None:
    assert "TEMP B-TREE" not in plan(connection, name)


@pytest.mark.parametrize("name", ["attempts_due", "attempts_due_packed"])
def test_of_what_is_due_only_the_window_is_sorted(connection: sqlite3.Connection, name: str) -> None:
    """The window itself comes in the order of the index, however much is due; and it is of places, not of rows."""
    before, _, after = plan(connection, name).partition("TEMP B-TREE")
    assert "INDEX attempts_due (connector=? AND due_at>? AND due_at<?)" in before
    assert before.index("SCAN w") > before.index("INDEX attempts_due")
    assert "TEMP B-TREE" not in after
    assert "SEARCH a USING INTEGER PRIMARY KEY" in after


@pytest.mark.parametrize(
    ("query", "row_type"),
    [("task_by_id", TaskRow), ("lease_by_id", LeaseRow), ("attempts_of_lease", AttemptRow)],
)
def test_column_lists_and_rows_have_one_order(
    connection: sqlite3.Connection, query: str, row_type: type[TaskRow | LeaseRow | AttemptRow]
) -> None:
    names = set(re.findall(r":([a-z_]+)", SQL[query]))
    cursor = connection.execute(SQL[query], dict.fromkeys(names, ""))
    columns = [column[0] for column in cursor.description]
    stored = [field.name for field in fields(row_type) if field.name not in ("trusted", "seen_epoch")]
    assert columns == [*stored, "mac", "mac_key_id"]


def test_a_column_list_can_be_packed_into_one() -> None:
    text = "-- fragment t_columns --\nt.id, t.name,\nt.mac, t.mac_key_id\n\n-- read --\nSELECT {t_packed} FROM t;\n"
    query = load({"t.sql": text})["read"]
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (id INTEGER, name TEXT, mac BLOB, mac_key_id TEXT)")
    row = (2**62, 'a "name", \u00e9 \U0001f511 \x01', bytes(range(32)), "k")
    connection.execute("INSERT INTO t VALUES (?, ?, ?, ?)", row)
    (packed,) = connection.execute(query).fetchone()
    assert unpacked(packed) == row
    assert unpacked('[null,null,"",null]') == (None, None, None, None)


def test_fragments_are_filled_in() -> None:
    text = "-- fragment columns --\na, b\n\n-- read --\n-- why\nSELECT {columns}\nFROM t;\n"
    assert load({"t.sql": text}) == {"read": "SELECT a, b\nFROM t;"}


@pytest.mark.parametrize(
    "text",
    ["SELECT 1;\n-- a --\nSELECT 2;\n", "-- a --\nSELECT 1;\n-- a --\nSELECT 2;\n", "-- a --\nSELECT {nothing};\n"],
)
def test_what_is_amiss_is_told(text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        load({"t.sql": text})


def test_a_name_in_two_files() -> None:
    with pytest.raises(ValueError, match=r"b\.sql: read defined twice"):
        load({"a.sql": "-- read --\nSELECT 1;\n", "b.sql": "-- read --\nSELECT 2;\n"})
    assert parse("") == ({}, {})
