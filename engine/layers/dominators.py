"""Which nodes of a directed acyclic graph every path from its source to its sink crosses.

Pure graph theory over any hashable nodes: the same few functions serve a traced `torch.fx` graph and an autograd graph.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Node = TypeVar("Node", bound=Hashable)


@dataclass(frozen=True)
class Flow(Generic[Node]):
    """A graph from the image to the logits.

    Attributes:
        inputs: The nodes that each node reads, written so that every node comes after those that it reads. A node that
            reads another twice lists it twice.
        source: The image.
        sink: The logits.
    """

    inputs: dict[Node, list[Node]]
    source: Node
    sink: Node


def crossed_by_all(flow: Flow[Node]) -> set[Node]:
    """The articulation nodes: those on every path from source to sink; empty where no path leads there.

    A node lies on all paths exactly when (paths from the source to it) x (paths from it to the sink) is the number of all
    paths. The counts grow exponentially with depth and are exact, since Python's integers are.
    """
    arriving = dict.fromkeys(flow.inputs, 0)
    for node, inputs in flow.inputs.items():
        arriving[node] = 1 if node == flow.source else sum(arriving[read] for read in inputs)
    leaving = dict.fromkeys(flow.inputs, 0)
    leaving[flow.sink] = 1
    for node, inputs in reversed(flow.inputs.items()):
        for read in inputs:
            leaving[read] += leaving[node]
    total = arriving[flow.sink]
    return {node for node in flow.inputs if total and arriving[node] * leaving[node] == total}


def reached_from(flow: Flow[Node], marked: set[Node]) -> set[Node]:
    """The nodes that a marked node reaches, the marked ones included."""
    reached: set[Node] = set()
    for node, inputs in flow.inputs.items():
        if node in marked or any(read in reached for read in inputs):
            reached.add(node)
    return reached


def leading_to(flow: Flow[Node], marked: set[Node]) -> set[Node]:
    """The nodes from which a later marked node on a way to the sink is reached (a marked node not by itself)."""
    useful, leading = {flow.sink}, set[Node]()
    for node, inputs in reversed(flow.inputs.items()):
        if node in useful:
            useful.update(inputs)
            if node in marked or node in leading:
                leading.update(inputs)
    return leading
