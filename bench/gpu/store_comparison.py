"""Compare the stores of several runs: rows, ids, statuses, devices, equality of maps; and say how busy the GPU was.

    python -m bench store_comparison FOLDER RUN [RUN ...] [--same RUN ...] [--smi FILE]

FOLDER/RUN is the store of each run. The runs named by --same must hold the maps of the first one; exit code 1 where a row is missing or
twice, or a map differs by more than --tolerance. FILE holds lines of `nvidia-smi --query-gpu=utilization.gpu,memory.used
--format=csv,noheader`, between lines `== RUN`.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOLERANCE = 0.05
"""Of a pixel in [0, 1]: what batches of other sizes change in the last digits, after an Otsu gate."""


def stored_rows(store: Path) -> pa.Table | None:
    """The rows of all parts; None where there is no part."""
    parts = sorted(store.glob("maps/part-*.parquet"))
    if not parts:
        return None
    names = ["id", "status", "device", "map"]
    return pa.concat_tables([pq.read_table(part, columns=names) for part in parts])


def maps_of(rows: pa.Table) -> dict[str, np.ndarray]:
    """Maps by id, of the rows that have one."""
    pairs = zip(rows["id"].to_pylist(), rows["map"].to_pylist(), strict=True)
    return {id: np.array(values, dtype=float) for id, values in pairs if values is not None}


def facts(rows: pa.Table) -> str:
    """Rows, statuses and devices of one run, in a line."""
    statuses = dict(Counter(rows["status"].to_pylist()))
    return f"{rows.num_rows} rows, {len(set(rows['id'].to_pylist()))} ids, {statuses}, {sorted(set(rows['device'].to_pylist()))}"


def differences(reference: Mapping[str, np.ndarray], maps: Mapping[str, np.ndarray]) -> np.ndarray:
    """Largest difference of a pixel for each map that both have."""
    return np.array([np.abs(reference[id] - maps[id]).max() for id in maps if id in reference])


def gpu_use(lines: Sequence[str]) -> dict[str, str]:
    """Mean use while busy and peak memory, by run."""
    samples: dict[str, list[tuple[int, int]]] = defaultdict(list)
    run = ""
    for line in lines:
        if line.startswith("== "):
            run = line[3:].strip()
            continue
        fields = [field.split()[0] for field in line.split(",") if field.split()]
        if len(fields) == 2 and all(field.isdigit() for field in fields):
            samples[run].append((int(fields[0]), int(fields[1])))
    return {
        run: f"mean use while busy {np.mean([use for use, _ in pairs if use] or [0]):.0f} % of {len(pairs)} samples, "
        f"peak {max(memory for _, memory in pairs)} MiB"
        for run, pairs in samples.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--same", nargs="*", default=[], metavar="RUN", help="runs that must hold the first one's maps")
    parser.add_argument("--smi", type=Path, help="what nvidia-smi wrote meanwhile")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest difference of a pixel in [0, 1]")
    arguments = parser.parse_args()
    wrong: list[str] = []
    reference: dict[str, np.ndarray] = {}
    for run in arguments.runs:
        rows = stored_rows(arguments.folder / run)
        if rows is None:
            print(f"{run}: no rows")
            wrong.append(run)
            continue
        line, maps = f"{run}: {facts(rows)}", maps_of(rows)
        if len(set(rows["id"].to_pylist())) != rows.num_rows:
            wrong.append(run)
        if not reference:
            reference = maps
        elif run in arguments.same:
            apart = differences(reference, maps)
            worst = float(apart.max(initial=0))
            line += f", bit-equal maps {int((apart == 0).sum())} of {len(reference)}, largest difference {worst:g}"
            if len(apart) < len(reference) or worst > arguments.tolerance:
                wrong.append(run)
        print(line)
    for run, line in gpu_use(arguments.smi.read_text().splitlines() if arguments.smi else ()).items():
        print(f"gpu {run}: {line}")
    if wrong:
        raise SystemExit(f"not as it must be: {', '.join(dict.fromkeys(wrong))}")


if __name__ == "__main__":
    main()
