"""The headers of Parquet pages, read without the library, beside what the library wrote and says."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data import ingest, table
from core.data.pages import page_sizes
from core.errors import Refused
from tests.core.data.pictures import grey


def chunk_of(path: Path, **options: object) -> tuple[pq.ColumnChunkMetaData, list[tuple[int, int]]]:
    """The first column of a file, and its pages."""
    pq.write_table(pa.table({"x": [bytes([i % 7]) * 100 for i in range(5000)]}), path, **options)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    with path.open("rb") as file:
        return chunk, list(page_sizes(file, begin, begin + chunk.total_compressed_size))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_the_pages_of_a_column_add_up_to_what_its_metadata_say(tmp_path: Path, version: str, dictionary: bool) -> None:
    options = {"data_page_version": version, "use_dictionary": dictionary, "compression": "snappy", "data_page_size": 20_000}
    chunk, pages = chunk_of(tmp_path / "x", **options)
    assert len(pages) > 1
    headers = chunk.total_compressed_size - sum(packed for packed, _ in pages)
    assert 0 < headers < 1000 * len(pages)
    assert sum(unpacked for _, unpacked in pages) == chunk.total_uncompressed_size - headers


def test_bytes_that_are_no_page_are_no_page(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff" * 1000)
    with (tmp_path / "x").open("rb") as file, pytest.raises(ValueError, match="page"):
        list(page_sizes(file, 0, 1000))
    (tmp_path / "x").write_bytes(b"\x1c" * 1000)  # structs in structs
    with (tmp_path / "x").open("rb") as file, pytest.raises(ValueError, match="nests too deep"):
        list(page_sizes(file, 0, 1000))


def test_a_page_that_unpacks_to_more_than_may_be_is_refused_whatever_the_metadata_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [{"bytes": grey(i), "path": None} for i in range(10)]
    pq.write_table(pa.table({"image": images, "label": [0, 1] * 5}), tmp_path / "data")
    monkeypatch.setattr(table, "MAX_PAGE", 300)
    with pytest.raises(Refused, match="a page in row group 0 of the file would unpack"):
        ingest(tmp_path / "data", {"format": "parquet"}, tmp_path / "out.safetensors")
