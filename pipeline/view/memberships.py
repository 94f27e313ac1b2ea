"""Read which rows stand in review queues and clusters, as `heatlas curate` and `heatlas cluster` left them beside the store."""

from __future__ import annotations

from dataclasses import dataclass, field

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import HeatlasError
from ..report.rows import ReportRows
from ..storage.location import child, locate, names_in

CURATION, CLUSTERS = "curation", "clusters"
MEMBERS = "members.parquet"
ENDING = ".parquet"
LARGEST_BYTES = 512_000_000
"""Size of a file that is still read."""
MOST_QUEUES = 40


@dataclass(frozen=True)
class Memberships:
    """Tables by (id, target)."""

    queues: dict[str, pa.Table] = field(default_factory=dict)
    """By recipe: `id`, `target`, `rank`, `reason`."""
    clusters: pa.Table | None = None
    """`id`, `target`, `cluster` (`CLASS/NUMBER`)."""
    notes: list[str] = field(default_factory=list)
    """What could not be read."""

    def load(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Create the tables `queued(queue, n, rank, reason)` and `clustered(cluster, n)` beside `items`."""
        connection.execute("CREATE TABLE queued (queue VARCHAR, n INTEGER, rank INTEGER, reason VARCHAR)")
        connection.execute("CREATE TABLE clustered (cluster VARCHAR, n INTEGER)")
        join = "items i JOIN heatlas_members m ON i.id = m.id AND (i.target IS NOT DISTINCT FROM m.target OR m.target IS NULL)"
        for name, table in self.queues.items():
            connection.register("heatlas_members", table)
            connection.execute(f"INSERT INTO queued SELECT ?, n, rank, reason FROM {join}", [name])
            connection.unregister("heatlas_members")
        if self.clusters is not None:
            connection.register("heatlas_members", self.clusters)
            connection.execute(f"INSERT INTO clustered SELECT cluster, n FROM {join}")
            connection.unregister("heatlas_members")


def read_memberships(rows: ReportRows) -> Memberships:
    """Read what is there; a file that cannot be read is named in `notes`, because other programs may have written it."""
    notes: list[str] = []
    queues: dict[str, pa.Table] = {}
    for name in _names(rows, CURATION)[:MOST_QUEUES]:
        table = _read(rows, CURATION, name, ("id", "target", "reason"), notes)
        if table is not None:
            rank = pa.array(range(1, len(table) + 1), pa.int32())
            queues[name.removesuffix(ENDING)] = table.append_column("rank", rank)
    clusters = None
    if MEMBERS in _names(rows, CLUSTERS):
        clusters = _read(rows, CLUSTERS, MEMBERS, ("id", "target", "class", "cluster"), notes)
        if clusters is not None:
            pairs = zip(clusters["class"].to_pylist(), clusters["cluster"].to_pylist(), strict=True)
            names = pa.array([f"{index}/{number}" if number >= 0 else None for index, number in pairs], pa.string())
            clusters = clusters.select(["id", "target"]).append_column("cluster", names)
            clusters = clusters.filter(clusters["cluster"].is_valid())
    return Memberships(queues, clusters, notes)


def _names(rows: ReportRows, folder: str) -> list[str]:
    fs, path = locate(child(rows.atlas.uri, folder))
    return sorted(name for name in names_in(fs, path) if name.endswith(ENDING) and not name.startswith("."))


def _read(rows: ReportRows, folder: str, name: str, columns: tuple[str, ...], notes: list[str]) -> pa.Table | None:
    """Rows of this method; ordered as stored, which for a queue is the most urgent first."""
    try:
        fs, path = locate(child(rows.atlas.uri, folder))
        if (size := fs.size(f"{path}/{name}") or 0) > LARGEST_BYTES:
            raise ValueError(f"it has {size / 1e6:.0f} MB, more than the {LARGEST_BYTES / 1e6:.0f} MB that are read")
        with fs.open(f"{path}/{name}", "rb") as file:
            stored = pq.ParquetFile(pa.PythonFile(file))
            own = [*columns, *(["method"] if "method" in stored.schema_arrow.names else [])]
            table = stored.read(columns=own)
        if "method" in own:
            table = table.filter((pc.field("method") == rows.method) | pc.field("method").is_null())
        return table.select(list(columns))
    except (HeatlasError, pa.ArrowException, OSError, ValueError, KeyError) as error:
        notes.append(f"{folder}/{name} could not be read: {type(error).__name__}: {error}")
        return None
