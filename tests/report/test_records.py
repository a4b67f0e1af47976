import pytest

from eosin.report.records import list_records
from eosin.results.files import read_results


@pytest.fixture(scope="module")
def records(results):
    return {record.title: record for record in list_records(read_results(results))}


def test_every_table_has_as_many_cells_as_headings(records):
    assert list(records) == ["Encoders", "Data", "Measurements", "Software and machine"]
    for record in records.values():
        assert record.rows
        assert all(len(row) == len(record.headings) for row in record.rows)


def test_every_row_is_listed_once(records, results):
    ids = [row[-1] for row in records["Measurements"].rows]
    assert sorted(ids) == sorted(result.row_id for result in read_results(results))


def test_what_rows_share_is_listed_once(records):
    assert len(records["Encoders"].rows) == 4
    assert records["Data"].rows == (
        ("tissue", "1,234", "150", "stroma, gland, fat", "a" * 12, "b" * 12),
    )
    assert records["Software and machine"].rows[0][:2] == (
        "a CPU, 2 cores",
        "eosin 0.1, torch 2.14",
    )
