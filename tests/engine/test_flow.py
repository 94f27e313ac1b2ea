"""Articulation nodes against their definition: a node without which no path is left."""

from __future__ import annotations

from heatlas.engine.layers.dominators import Flow, crossed_by_all, leading_to, reached_from
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def graphs(draw) -> dict[int, list[int]]:
    """What each node reads in a random graph of nodes 0 (source) to n (sink): some before it, possibly none."""
    count = draw(st.integers(2, 9))
    inputs = {node: draw(st.lists(st.integers(0, node - 1), max_size=3)) for node in range(1, count)}
    return {0: [], **inputs}


def flow_of(graph: dict[int, list[int]]) -> Flow[int]:
    return Flow(graph, 0, len(graph) - 1)


def is_reached(flow: Flow[int], start: int, end: int, without: int | None = None) -> bool:
    """Whether a path leads from start to end, found by walking every edge backwards."""
    waiting, seen = [end], set()
    while waiting:
        node = waiting.pop()
        if node == without or node in seen:
            continue
        seen.add(node)
        waiting += flow.inputs[node]
    return start in seen


@given(graphs())
def test_articulation_nodes_are_those_without_which_no_path_is_left(graph: dict[int, list[int]]) -> None:
    flow = flow_of(graph)
    linked = is_reached(flow, flow.source, flow.sink)
    expected = {node for node in flow.inputs if linked and not is_reached(flow, flow.source, flow.sink, without=node)}
    assert crossed_by_all(flow) == expected


@given(graphs(), st.sets(st.integers(0, 8)))
def test_marks_spread_along_the_edges(graph: dict[int, list[int]], marked: set[int]) -> None:
    flow = flow_of(graph)
    marked &= flow.inputs.keys()
    assert reached_from(flow, marked) == {n for n in flow.inputs if any(is_reached(flow, mark, n) for mark in marked)}
    useful = {mark for mark in marked if is_reached(flow, mark, flow.sink)}
    assert leading_to(flow, marked) == {
        n for n in flow.inputs if any(mark != n and is_reached(flow, n, mark) for mark in useful)
    }


def test_paths_too_many_for_a_float_are_counted() -> None:
    inputs: dict[int, list[int]] = {0: []}
    for node in range(1, 4001):
        inputs[node] = [node - 1, node - 1]
    assert crossed_by_all(Flow(inputs, 0, 4000)) == set(range(4001))
