"""What is known of each embedding: a row a row, in the order of the matrix."""

from typing import Any

import pyarrow as pa

ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("slide_id", pa.string()),
        ("patient", pa.string()),
        ("group", pa.string()),
        ("x", pa.int64()),
        ("y", pa.int64()),
        ("mpp", pa.float64()),
        ("label", pa.string()),
        ("split", pa.string()),
    ]
)
"""`id` is unique within its `source`, which is what was given with --data; `path` is that of the
image, of the slide or of the HDF5 file; `x` and `y` are the upper left corner in level-0 pixels and
`mpp` the micrometres per pixel of the tile. What is not known is null."""


def rows_of(count: int, **columns: Any) -> pa.Table:
    """Gives a table of `ROW_SCHEMA` from the columns that are known.

    Args:
        count: number of rows.
        columns: arrays or lists of that length; one value stands for all rows.
    """
    filled = [
        pa.array(columns[field.name], field.type)
        if not isinstance(columns.get(field.name), str | None)
        else pa.repeat(pa.scalar(columns.get(field.name), field.type), count)
        for field in ROW_SCHEMA
    ]
    return pa.table(filled, schema=ROW_SCHEMA)
