"""Which shards a merged file holds, by its name."""

from __future__ import annotations

import pytest
from heatlas.errors import StorageError
from heatlas.pipeline.store.compact import blocks
from heatlas.pipeline.store.part_files import DoneShards, PartFile, block_width, is_block, listed, part_file
from hypothesis import given
from hypothesis import strategies as st


def test_a_merged_name_says_its_shards():
    assert PartFile(0, 63).path == "maps/parts-000000-000063.parquet"
    assert PartFile(64, 64, folder="metrics/abc").path == "metrics/abc/part-000064.parquet"
    assert part_file("parts-000064-000127.parquet", 9) == PartFile(64, 127, 9)
    assert "parts-000000-000063.parquet" > "part-999999.parquet"  # a listing in order shows parts first


@pytest.mark.parametrize("name", ["parts-000005-000002.parquet", "parts-000003-000003.parquet", "parts-000001-000002.parquet",
                                  "parts-0-1.parquet", "parts-000000-000001.parquet.tmp", ".parts-000000-000001.parquet"])  # fmt: skip
def test_names_that_compact_never_writes_are_none_of_the_store(name):
    assert part_file(name) is None


@given(plan=st.integers(1, 70), compactions=st.lists(st.tuples(st.integers(1, 7), st.sets(st.integers(0, 69))), max_size=6))  # fmt: skip
def test_blocks_are_nested_or_apart(plan, compactions):
    """Whatever widths are asked for in whatever order, and whichever merged files are lost, every shard has one file."""
    names = {PartFile(index, index).name for index in range(plan)}
    for power, dropped in compactions:
        width = 2**power
        for first in range(0, plan, width):
            block = PartFile(first, min(first + width, plan) - 1)
            if first not in dropped and block.last > block.first:
                names.add(block.name)
    listing = listed(dict.fromkeys(names, 7))
    assert list(listing) == list(range(plan))
    assert sum(listing.values()) == 7 * len(listing.files)
    assert {file.name for file in (*listing.files, *listing.superseded)} == names
    assert all(listing.file_of(index).covers(file) for file in listing.superseded for index in file.shards)


@given(st.integers(1, 10**6))
def test_block_width_is_the_next_power_of_two(count):
    width = block_width(count)
    assert width >= count > width // 2
    assert width & (width - 1) == 0
    assert is_block(3 * width, 3 * width + count - 1) == (count > 1)


def test_overlapping_files_are_refused():
    with pytest.raises(StorageError, match=r"parts-000000-000005.parquet and maps/parts-000004-000007.parquet overlap"):
        listed({"parts-000000-000005.parquet": 1, "parts-000004-000007.parquet": 1})


@given(shards=st.integers(1, 100), each=st.integers(1, 10**6), size=st.integers(1, 10**8), gone=st.integers(0, 99))
def test_blocks_fit_the_wanted_size_and_hold_all_their_shards(shards, each, size, gone):
    listing = DoneShards(PartFile(index, index, each) for index in range(shards) if index != gone)
    for files in blocks(listing, shards, size):
        assert 2 <= len(files) <= max(1, size // each)
        assert [file.first for file in files] == list(range(files[0].first, files[-1].last + 1))
        assert is_block(files[0].first, files[-1].last)
