"""Recipes find what was planted, say why, and come out the same every time."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter

import heatlas
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from heatlas.configs import packaged_recipes
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.curate.curate import curate_store, recipe_list
from heatlas.pipeline.curate.queue import METADATA_KEY, run_recipes
from heatlas.pipeline.curate.recipe import load_recipes, parse_recipe

from ..support.planted_store import kinds, write_planted
from ..support.scored_store import write_scores

ROWS = 4000


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("planted") / "out", ROWS, target="both")


@pytest.fixture(scope="module")
def curation(planted):
    return run_recipes(heatlas.open(planted), limit=ROWS)


@pytest.fixture
def scored(tmp_path):
    """Eight images of one class with an `ebpg` each, no scores and no maps."""
    return write_scores(tmp_path / "scored", {"ebpg": [0.6, 0.6, 0.01, 0.6, 0.5, 0.6, 0.6, 0.6]}, labels=[1] * 8)


LEFT_OUT = {"outlier", "duplicate_images", "displaced_part", "missing_part"}
"""Recipes that need what the planted store does not have."""


def found_kinds(curation, planted, recipe, first=None):
    truth = kinds(planted)
    return Counter(truth[row] for row in curation.queues[recipe]["id"].to_pylist()[:first])


def test_all_packaged_recipes_ran(curation):
    assert set(curation.queues) == set(packaged_recipes()) - LEFT_OUT
    assert set(curation.skipped) == LEFT_OUT
    assert "needs part_strength; explain with --method explainer_network, after" in curation.skipped["missing_part"]
    assert "cannot tell without features; compute them with `heatlas curate" in curation.skipped["outlier"]


def test_the_shortcut_class_is_named_first(curation, planted):
    queue = curation.queues["shortcut"].to_pylist()
    truth = kinds(planted)
    planted_ones = {entry for entry, kind in truth.items() if kind == "shortcut"}
    assert {row["label"] for row in queue[:100]} == {"class-03"}
    assert planted_ones <= {row["id"] for row in queue}
    assert (
        f"So do {queue[0]['looking_away']} of {queue[0]['right_answers']} correct predictions for class-03"
        in queue[0]["reason"]
    )
    assert "of the attribution lies on the object, where correct predictions usually have" in queue[0]["reason"]


def test_wrong_labels_come_before_honest_mistakes(curation, planted):
    planted_count = Counter(kinds(planted).values())["label_noise"]
    assert planted_count > 80
    assert found_kinds(curation, planted, "label_suspicion", planted_count)["label_noise"] > 0.95 * planted_count


def test_wrong_labels_are_found_without_rows_for_labels(tmp_path):
    out = write_planted(tmp_path / "out", 2000, target="predicted")
    queue = heatlas.open(out).curate(["label_suspicion"]).to_pylist()
    truth = kinds(out)
    planted_count = Counter(truth.values())["label_noise"]
    assert sum(truth[row["id"]] == "label_noise" for row in queue[:planted_count]) > 0.9 * planted_count
    assert queue[0]["reason"].startswith("Labelled class-")
    assert all(row["label_gini"] is None and row["priority"] is not None for row in queue)


def test_odd_unstable_and_empty_explanations_are_found(curation, planted):
    truth = kinds(planted)
    for recipe, kind, share in (
        ("class_outlier", "outlier", 0.9),
        ("unstable", "unstable", 0.9),
        ("no_evidence", "no_evidence", 1.0),
    ):
        wanted = {entry for entry, what in truth.items() if what == kind}
        result = set(curation.queues[recipe]["id"].to_pylist())
        assert len(wanted & result) >= share * len(wanted) > 0, recipe
    first = curation.queues["no_evidence"].to_pylist()[0]
    assert first["reason"] == "There is no map (no_evidence): a block layer kept no feature map."


def test_equal_maps_are_found_as_twins(curation, planted):
    truth = kinds(planted)
    queue = {row["id"]: row for row in curation.queues["duplicate_explanations"].to_pylist()}
    maps = {
        row["id"]: row["map"]
        for row in heatlas.open(planted).table(["id", "map"], "target = prediction AND status = 'ok'").to_pylist()
    }
    equal = [entry for entry, kind in truth.items() if kind == "duplicate" and maps.get(_before(entry)) == maps[entry]]
    assert len(equal) > 3
    for entry in equal:
        assert queue[entry]["distance"] == 0
        assert maps[queue[entry]["twin"]] == maps[entry]


def _before(identity: str) -> str:
    return f"img-{int(identity[4:]) - 1:08d}"


def test_queues_are_ranked_and_complete(curation):
    for name, queue in curation.queues.items():
        rows = queue.to_pylist()
        assert queue.column_names[:7] == ["id", "target", "method", "recipe", "rank", "priority", "reason"]
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        assert all(row["recipe"] == name and row["reason"] for row in rows)
        for row in rows[:50]:
            assert row["reason"][0].isupper(), row["reason"]
            assert row["reason"].endswith("."), row["reason"]
            assert len(re.findall(r"\.(?= [A-Z]|$)", row["reason"])) <= 2, row["reason"]
        order = [(-row["priority"], row["id"], row["target"]) for row in rows]
        assert order == sorted(order), name
        assert all(0 <= row["priority"] <= 1 for row in rows), name
        assert curation.found[name] == len(rows)


def test_results_repeat_and_do_not_depend_on_the_parts(planted, tmp_path, curation):
    again = run_recipes(heatlas.open(planted), limit=ROWS)
    assert all(again.queues[name].equals(queue) for name, queue in curation.queues.items())
    limited = heatlas.open(planted).curate(["shortcut"], limit=5)
    assert limited.equals(curation.queues["shortcut"].slice(0, 5))
    assert json.loads(limited.schema.metadata[METADATA_KEY])["found"]["shortcut"] == curation.found["shortcut"]


def test_ties_are_broken_by_id(tmp_path):
    out = write_scores(tmp_path / "out", {"ebpg": [0.1] * 8}, labels=[1] * 8)
    recipe = tmp_path / "all.sql"
    recipe.write_text("-- All.\nSELECT id, target, 'because' AS reason, 1 AS priority FROM atlas ORDER BY id DESC")
    assert heatlas.open(out).curate([str(recipe)])["id"].to_pylist() == [f"img-{number:04d}" for number in range(8)]


def test_a_recipe_that_lacks_columns_is_left_out_with_the_command_to_add_them(scored, capsys):
    assert main(["curate", str(scored)]) == 0
    said = capsys.readouterr().out
    assert (
        "unstable: left out, it needs max_sensitivity; this store's maps are reduced, so explain the data anew with"
        in said
    )
    assert "--metrics ... max_sensitivity" in said
    assert "duplicate_explanations: left out, it needs the maps as numbers" in said
    with pytest.raises(UsageError, match=r"none of the recipes can run here:\n  unstable: needs max_sensitivity"):
        heatlas.open(scored).curate(["unstable"])


def test_a_store_with_whole_maps_is_told_to_evaluate(planted, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(planted, out)
    recipe = tmp_path / "mine.sql"
    recipe.write_text("-- Mine.\n-- needs: road\nSELECT id, target, 'r' AS reason, road AS priority FROM atlas")
    with pytest.raises(UsageError, match=f"mine: needs road; add it with `heatlas evaluate {out} --metrics road`"):
        heatlas.open(out).curate([str(recipe)])


def test_parameters_are_set_by_name(scored):
    atlas = heatlas.open(scored)
    assert atlas.curate(["shortcut"])["id"].to_pylist() == []
    with pytest.raises(
        UsageError, match=r"no recipe has the parameter 'shortcut.bordr'; did you mean 'shortcut.border'"
    ):
        atlas.curate(["shortcut"], params=["shortcut.bordr=1"])
    with pytest.raises(UsageError, match=r"--param 'border' is not NAME=NUMBER"):
        atlas.curate(["shortcut"], params=["border"])
    with pytest.raises(UsageError, match=r"limit must be at least 1, got 0"):
        atlas.curate(["shortcut"], limit=0)


def test_a_parameter_changes_what_is_found(planted):
    atlas = heatlas.open(planted)
    strict = atlas.curate(["unstable"], params=["least=0.9"], limit=ROWS)
    loose = atlas.curate(["unstable"], params=["unstable.least=0.3"], limit=ROWS)
    assert 0 < len(strict) < len(loose)
    assert all(row >= 0.9 for row in strict["max_sensitivity"].to_pylist())


@pytest.mark.parametrize(
    "query",
    [
        "SELECT content AS id, 1 AS target, 'r' AS reason, 1 AS priority FROM read_text('/etc/hostname')",
        "SELECT id, target, 'r' AS reason, 1 AS priority FROM '/etc/passwd.csv'",
        "SELECT id, target, 'r' AS reason, (SELECT count(*) FROM glob('/*')) AS priority FROM atlas",
        "SELECT id, target, 'r' AS reason, 1 AS priority FROM recipes",
        "SELECT id, target, 'r' AS reason, 1 AS priority FROM duckdb_secrets_that_are_not()",
        "SELECT id, target, 'r' AS reason, nothing AS priority FROM atlas",
        "SELECT id, target, 'r' AS reason, 'high' AS priority FROM atlas",
    ],
)
def test_sql_sees_the_tables_given_and_nothing_else(scored, tmp_path, query):
    recipe = tmp_path / "sly.sql"
    recipe.write_text(f"-- Sly.\n{query}")
    with pytest.raises(UsageError, match="DuckDB refuses the recipe sly: "):
        heatlas.open(scored).curate([str(recipe)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY atlas TO '/tmp/x.csv'", "the recipe sly must be one SELECT"),
        ("SET enable_external_access = true", "the recipe sly must be one SELECT"),
        ("SELECT 1; DROP TABLE atlas", "the recipe sly must be one SELECT, it has 2 statements"),
        ("SELECT id FROM atlas", "the recipe sly gives id, but no target and no reason and no priority"),
        ("SELECT id, target, 'r' AS reason, $how AS priority FROM atlas", r"uses \$how, which its head does not set"),
        ("-- param how = much\nSELECT 1", "a parameter is written `-- param NAME = NUMBER"),
        ("-- param how = inf\nSELECT 1", "a parameter is written"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(scored, tmp_path, text, message):
    recipe = tmp_path / "sly.sql"
    recipe.write_text(text)
    with pytest.raises(UsageError, match=message):
        heatlas.open(scored).curate([str(recipe)])


def test_unknown_recipes_and_files_are_refused(scored, tmp_path):
    atlas = heatlas.open(scored)
    with pytest.raises(UsageError, match=r"unknown recipe 'shortcutt'; did you mean 'shortcut'\?"):
        atlas.curate(["shortcutt"])
    with pytest.raises(UsageError, match=r"cannot read the recipe .*gone.sql"):
        atlas.curate([str(tmp_path / "gone.sql")])
    (tmp_path / "raw.sql").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"cannot read the recipe .*raw.sql"):
        atlas.curate([str(tmp_path / "raw.sql")])
    with pytest.raises(UsageError, match="two recipes are called 'shortcut'"):
        atlas.curate(["shortcut", "shortcut"])
    with pytest.raises(UsageError, match="no recipe is asked for"):
        atlas.curate([])


def test_a_copied_recipe_takes_its_file_as_its_name(planted, tmp_path):
    mine = tmp_path / "my-shortcuts.sql"
    mine.write_text(packaged_recipes()["shortcut"].read_text().replace("param border = 0.6", "param border = 0.99"))
    queue = heatlas.open(planted).curate([str(mine)])
    assert set(queue["recipe"].to_pylist()) == {"my-shortcuts"}


def test_files_in_every_format(planted, tmp_path, capsys):
    for ending, read in (("parquet", pq.read_table), ("csv", pc.read_csv)):
        to = tmp_path / f"queue.{ending}"
        assert main(["curate", str(planted), "--out", str(to), "--recipe", "shortcut", "unstable", "--limit", "3"]) == 0
        table = read(to)
        assert table["recipe"].to_pylist() == ["shortcut"] * 3 + ["unstable"] * 3
        assert {"ebpg", "max_sensitivity"} <= set(table.column_names)
    to = tmp_path / "queue.json.lines"
    assert (
        main(["curate", str(planted), "--out", str(to), "--format", "jsonl", "--recipe", "shortcut", "--limit", "2"])
        == 0
    )
    assert [json.loads(line)["rank"] for line in to.read_text().splitlines()] == [1, 2]
    assert "shortcut: " in capsys.readouterr().out


def test_without_out_each_recipe_has_a_file_in_the_store_that_readers_do_not_mind(planted, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(planted, out)
    before = len(heatlas.open(out))
    assert main(["curate", str(out), "--limit", "10"]) == 0
    assert {path.stem for path in (out / "curation").iterdir()} == set(packaged_recipes()) - LEFT_OUT
    assert len(pq.read_table(out / "curation" / "shortcut.parquet")) == 10
    assert len(heatlas.open(out)) == before
    assert main(["verify", str(out)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_a_queue_does_not_take_the_place_of_a_part(planted, capsys):
    part = planted / "maps" / "part-000000.parquet"
    before = part.read_bytes()
    assert main(["curate", str(planted), "--out", str(part)]) == 2
    assert "lies in the store" in capsys.readouterr().err
    assert part.read_bytes() == before


def test_bad_requests_exit_with_2(scored, tmp_path, capsys):
    for arguments, message in (
        (["curate"], "curate needs the directory or URI of a heatlas store"),
        (
            ["curate", str(scored), "--out", "queue.txt"],
            "cannot tell the format of 'queue.txt'; let it end in .parquet, .csv, .jsonl",
        ),
        (["curate", str(scored), "--limit", "0"], "limit must be at least 1, got 0"),
        (["curate", str(tmp_path / "nothing")], "is not a heatlas store"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_the_list_names_every_recipe_with_its_numbers(capsys):
    assert main(["curate", "--list"]) == 0
    said = capsys.readouterr().out
    assert said.strip() == recipe_list()
    for name in packaged_recipes():
        assert f"{name}: " in said
    assert "--param shortcut.border=0.6  Attribution in the outer tenth" in said


def test_evidence_of_different_kinds_under_one_name_is_refused_in_one_file(scored, tmp_path):
    for name, value in (("one", "'text'"), ("two", "[1, 2]")):
        (tmp_path / f"{name}.sql").write_text(
            f"-- X.\nSELECT id, target, 'r' AS reason, 1 AS priority, {value} AS odd FROM atlas"
        )
    names = [str(tmp_path / "one.sql"), str(tmp_path / "two.sql")]
    with pytest.raises(UsageError, match="two recipes give one column different types"):
        heatlas.open(scored).curate(names)
    assert set(curate_store(str(scored), recipes=names).uris) == {"one", "two"}


def test_an_empty_queue_has_its_columns(scored):
    queue = heatlas.open(scored).curate(["shortcut"])
    assert len(queue) == 0
    assert {"id", "target", "reason", "priority", "looking_away"} <= set(queue.column_names)
    assert queue.schema.field("target").type == pa.int32()


@pytest.mark.parametrize("value", ["-0.1", "1.5", "inf", "nan"])
def test_a_parameter_outside_its_range_is_refused(scored, capsys, value):
    assert main(["curate", str(scored), "--recipe", "shortcut", "--param", f"border={value}"]) == 2
    said = capsys.readouterr().err
    finite = value not in ("inf", "nan")
    assert ("must be in [0, 1]" if finite else "is not NAME=NUMBER") in said


def test_every_packaged_parameter_has_a_range_that_holds_its_default():
    for recipe in load_recipes():
        assert recipe.param_ranges.keys() == recipe.params.keys()
        assert all(low <= recipe.params[name] <= high for name, (low, high) in recipe.param_ranges.items())


@pytest.mark.parametrize("said", ["param x = 2 in [0, 1]", "param x = 1 in [a, 2]", "param x = 1 in [0; 2]"])
def test_a_range_that_cannot_be_read_or_met_is_refused(said):
    if ";" in said:
        assert parse_recipe("own", f"-- {said}\nSELECT 1").param_ranges == {}
        return
    with pytest.raises(UsageError, match="a parameter is written"):
        parse_recipe("own", f"-- {said}\nSELECT 1")
