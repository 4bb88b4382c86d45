"""Faults, injected for real (benchmarks/faults.py): nothing finished is lost, and the next call carries on."""

import csv
import os
from pathlib import Path

import faults  # of benchmarks/
import pytest
from injected import lab

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def tidy():
    yield
    lab.close()


SLOW = pytest.mark.skipif(os.environ.get("RNEM_FAULTS") != "all", reason="slow: RNEM_FAULTS=all runs it too")


@pytest.mark.parametrize("name", [pytest.param(c.id, marks=SLOW if c.slow else ()) for c in faults.CASES.values()])
def test_after_a_fault_nothing_is_lost_and_the_next_call_carries_on(name):
    row = faults.inject(faults.CASES[name])  # raises where the user saw another sentence than the case says
    assert row.tracebacks == 0
    assert row.lost_runs == 0
    assert row.carried_on
    assert row.seen


def test_the_published_table_has_every_case_and_no_loss():
    with open(REPOSITORY / "data" / "faults.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(faults.CASES)
    assert len(rows) >= 25
    assert {(row["tracebacks"], row["lost_runs"], row["carried_on"]) for row in rows} == {("0", "0", "True")}
