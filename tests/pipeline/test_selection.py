"""`--where`, `--ids`, `--sample`, `columns.extra`: what they choose, and that a condition reaches nothing but the listing."""

from __future__ import annotations

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import DataError
from heatlas.pipeline.shards import EXTRA
from heatlas.pipeline.sources.listing.extra_columns import choose_extra, wants_extra
from heatlas.pipeline.sources.listing.plain_values import concat_columns, plain_array, plain_column
from heatlas.pipeline.sources.listing.selection import draw_sample, filter_by_condition, select_ids
from heatlas.pipeline.sources.listing.table import make_listing, numbered, typed_column
from hypothesis import given
from hypothesis import strategies as st

IDS = [f"{number:02d}" for number in range(20)]


def listing() -> pa.Table:
    columns = {"id": pa.array(IDS), "uri": pa.array(IDS), "label": pa.array(["cat", "dog"] * 10)}
    own = {"year": pa.array(range(2000, 2020)), "site": pa.array(["a", None] * 10), "odd name": pa.array([1.5] * 20)}
    return make_listing(columns, "test", own)


def ids_where(condition: str) -> list[str]:
    return filter_by_condition(listing(), condition)["id"].to_pylist()


def test_conditions_over_our_columns_and_the_data_set_s_own():
    assert ids_where("label = 'dog' AND year < 2006") == ["01", "03", "05"]
    assert ids_where("site IS NULL AND id > '15'") == ["17", "19"]
    assert ids_where('"odd name" > 1 AND year IN (2003, 2001)') == ["01", "03"]
    assert ids_where("boxes IS NULL AND mask_uri IS NULL") == IDS
    assert filter_by_condition(listing(), "year = 2002").schema == listing().schema


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("yaer > 2000", 'Referenced column "yaer" not found'),
        ("year >", "syntax error"),
        ("year > 3000", "is true of none of 20 samples; the columns are id, uri, label"),
        ("label = 'cat'; DROP TABLE x", "more than one statement"),
        ("1=1) OR (1=1", "syntax error"),
        ("count(*) > 1", "aggregates"),
        ("(SELECT count(*) FROM read_csv('/etc/passwd')) > 0", "disabled by configuration"),
        ("(SELECT count(*) FROM read_text('{secret}')) > 0", "disabled by configuration"),
        ("(SELECT count(*) FROM '{secret}') > 0", "disabled by configuration"),
        ("(SELECT count(*) FROM glob('/*')) > 0", "disabled by configuration"),
        ("(SELECT count(*) FROM secret_table) > 0", "does not exist"),
        ("'text'", "Could not convert"),
    ],
)
def test_conditions_that_are_refused(tmp_path: pathlib.Path, condition: str, expected: str):
    secret_table = pa.table({"x": [1]})  # DuckDB would see it by its name, were it not told not to
    assert len(secret_table) == 1
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(DataError) as caught:
        ids_where(condition.replace("{secret}", str(tmp_path / "secret.csv")))
    assert expected in str(caught.value)
    assert str(caught.value).startswith("--where ")


def test_ids_from_a_file(tmp_path: pathlib.Path):
    (tmp_path / "ids.txt").write_text("07\r\n\n03\n07\n")
    (tmp_path / "ids.csv").write_text("name,id\nx,07\ny,03\n")
    (tmp_path / "ids.jsonl").write_text('{"id": "03"}\n{"id": "07"}\n')
    pq.write_table(pa.table({"id": ["03", "07"]}), tmp_path / "ids.parquet")
    for name in ("ids.txt", "ids.csv", "ids.jsonl", "ids.parquet"):
        assert select_ids(listing(), str(tmp_path / name))["id"].to_pylist() == ["03", "07"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("ids.txt", b"03\n7\n20\n", "lists 2 ids that no sample has: 7, 20; did you mean '17'?"),
        ("ids.txt", b" \n\n", "lists no ids"),
        ("ids.txt", b"\xff\xfe", "is not a list of ids"),
        ("ids.csv", b"name\nx\n", "is not a list of ids"),
        ("ids.parquet", b"x", "is not a list of ids"),
        ("ids.jsonl", b'{"name": 1}', "is not a list of ids"),
    ],
)
def test_id_files_that_are_refused(tmp_path: pathlib.Path, name: str, content: bytes, expected: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        select_ids(listing(), str(tmp_path / name))
    assert expected in str(caught.value)


def test_an_id_file_that_is_not_there(tmp_path: pathlib.Path):
    with pytest.raises(DataError, match="cannot read --ids"):
        select_ids(listing(), str(tmp_path / "gone"))
    with pytest.raises(DataError, match="give a local path"):
        select_ids(listing(), "nosuch://x")


@given(st.integers(1, 25), st.integers(0, 5), st.randoms())
def test_samples_belong_to_ids_and_seed(count: int, seed: int, random):
    rows = listing()
    result = draw_sample(rows, count, seed)["id"].to_pylist()
    assert len(result) == min(count, 20)
    assert result == sorted(result)
    assert set(result) <= set(draw_sample(rows, count + 1, seed)["id"].to_pylist()), "a larger one holds a smaller one"
    order = list(range(20))
    random.shuffle(order)
    assert set(draw_sample(rows.take(pa.array(order)), count, seed)["id"].to_pylist()) == set(result)


def test_another_seed_draws_others():
    draws = {tuple(draw_sample(listing(), 5, seed)["id"].to_pylist()) for seed in range(20)}
    assert len(draws) > 15
    assert len({entry for draw in draws for entry in draw}) == 20, "each has its chance"


def test_columns_that_travel():
    def names(*chosen: str, taken: tuple[str, ...] = ("confidence",)) -> list[str]:
        table = choose_extra(listing(), chosen, taken)
        assert table.column_names[:5] == ["id", "uri", "label", "boxes", "mask_uri"]
        return [name.removeprefix(EXTRA) for name in table.column_names[5:]]

    assert names("all") == ["year", "site", "odd name"]
    assert names("none") == names() == []
    assert names("site", "year") == ["year", "site"]
    assert names("all", "odd name=fine") == ["year", "site", "fine"]
    assert names("all", "year=jahr", taken=("Year",)) == ["jahr", "site", "odd name"]
    assert names("all", taken=("Year",)) == ["data_year", "site", "odd name"], "what nobody named gives way"
    assert not wants_extra(["none"])
    assert not wants_extra([])
    assert wants_extra(["all"])


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (("year",), "the data set's column 'year' would be 'year' in the store, which has a column 'YEAR' already; rename it with --columns.extra all,year=NEW"),
        (("all", "site=data_year"), "would be 'data_year' in the store, which has a column 'data_year' of the data set already"),
        (("yera",), "--columns.extra names 'yera', which the data set does not have; did you mean 'year'?"),
        (("site=",), "gives no new name; write site=NEW"),
        (("site=x", "odd name=X"), "which has a column 'x' of the data set already"),
    ],
)  # fmt: skip
def test_columns_that_cannot_travel(chosen: tuple[str, ...], expected: str):
    with pytest.raises(DataError) as caught:
        choose_extra(listing(), chosen, ("YEAR",))
    assert expected in str(caught.value)


def test_types_of_text():
    def kind(*values: str | None) -> str:
        return str(typed_column(pa.chunked_array([pa.array(values, pa.string())])).type)

    assert kind("1", "-20", None) == "int64"
    assert kind("1", "2.5", "1e3", ".5") == "double"
    assert kind("true", "False") == "bool"
    for values in (
        ("007", "1"),
        ("1_0",),
        ("nan",),
        ("e5",),
        ("1", "x"),
        ("",),
        (None,),
        ("99999999999999999999999x",),
    ):
        assert kind(*values) == "string", values
    assert typed_column(pa.chunked_array([["True", None, "false"]])).to_pylist() == [True, None, False]


def test_values_of_any_kind_become_plain():
    assert plain_array([1, None, 2]).type == pa.int64()
    assert plain_array([1, 2.5]).to_pylist() == [1.0, 2.5]
    assert plain_array([True, None]).type == pa.bool_()
    assert plain_array([True, 1, "x", [1, {"a": None}], None]).to_pylist() == [
        "true",
        "1",
        "x",
        '[1, {"a": null}]',
        None,
    ]
    assert plain_array([2**70, 0.5]).to_pylist() == [float(2**70), 0.5]
    assert plain_array(["\ud800"]).to_pylist() == ["?"]
    for column, kind in ((pa.array([1], pa.uint8()), "int64"), (pa.array([2**64 - 1], pa.uint64()), "string"),
                         (pa.array([1.5], pa.float16()), "double"), (pa.array(["x"]).dictionary_encode(), "string"),
                         (pa.array([0], pa.timestamp("s")), "string"), (pa.array([[1, 2]]), "string"), (pa.nulls(1), "string")):  # fmt: skip
        assert str(plain_column(pa.chunked_array([column])).type) == kind
    both = concat_columns(
        [{"a": pa.array([1])}, {"a": pa.array([0.5]), "b": pa.array(["x"])}, {"a": pa.nulls(2)}], [1, 1, 2]
    )
    assert {name: column.to_pylist() for name, column in both.items()} == {
        "a": [1.0, 0.5, None, None],
        "b": [None, "x", None, None],
    }
    assert numbered(3, "f/", start=9).to_pylist() == ["f/000000009", "f/000000010", "f/000000011"]
