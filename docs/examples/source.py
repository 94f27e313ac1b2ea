"""A worked example of a source: a file list as Caffe reads it, `path label` in every line, paths relative to the file.

Inside heatlas this is a file in `pipeline/sources/listing/` and an entry in `pipeline/sources/listing/registry.py`. Labels that are names,
duplicate ids, missing files, object stores and resuming are taken care of behind it.
"""

from pathlib import Path

import pyarrow as pa
from heatlas.errors import DataError
from heatlas.pipeline.sources.listing.options import Listed, SourceOptions
from heatlas.pipeline.sources.listing.registry import SOURCES, Source
from heatlas.pipeline.sources.listing.table import make_listing


def list_file_list(data: str, options: SourceOptions) -> Listed:
    """The listing of a file list.

    Raises:
        DataError: For a line that is not a path and a label.
    """
    file = Path(data)
    lines = [line.rsplit(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, words in enumerate(lines, start=1):
        if len(words) != 2:
            raise DataError(f"line {number} of {data} must be `path label`, got {words[0]!r}; give every image a label")
    paths, labels = [words[0] for words in lines], [words[1] for words in lines]
    uris = [str(file.parent.resolve() / path) for path in paths]
    return Listed(make_listing({"id": pa.array(paths), "uri": pa.array(uris), "label": pa.array(labels)}, data))


SOURCES["caffe"] = Source("caffe", "file list of Caffe", list_file_list)
