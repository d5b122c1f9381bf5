"""instances.csv in all its real forms; a bad row spoils itself only."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from runner.contract.errors import InstanceError, UsageError
from runner.contract.vocabulary import Cause
from runner.problem.files import read_bytes
from runner.problem.instances import Instance, MalformedRow, read_category


def category(folder: Path, rows: str, *files: str) -> Path:
    """A category folder with empty files of the given names."""
    for name in files or ("onnx/a.onnx", "vnnlib/p.vnnlib"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    (folder / "instances.csv").write_bytes(rows.encode())
    return folder


def only(folder: Path, **options: float) -> Instance | MalformedRow:
    (row,) = read_category(folder, **options)
    return row


def test_a_row_gives_absolute_paths_and_the_names_it_writes(tmp_path: Path) -> None:
    folder = category(tmp_path / "acasxu", "onnx/a.onnx,vnnlib/p.vnnlib,116\n")
    assert only(folder) == Instance(
        category="acasxu",
        network=folder / "onnx/a.onnx",
        property=folder / "vnnlib/p.vnnlib",
        timeout_s=116.0,
        network_name="onnx/a.onnx",
        property_name="vnnlib/p.vnnlib",
        source=folder / "instances.csv",
        line=1,
    )


def test_the_csv_itself_names_the_category_too(tmp_path: Path) -> None:
    folder = category(tmp_path / "acasxu", "onnx/a.onnx,vnnlib/p.vnnlib,116\n")
    assert read_category(folder / "instances.csv") == read_category(folder)


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = category(tmp_path / "acasxu", "onnx/a.onnx,vnnlib/p.vnnlib,116\n")
    monkeypatch.chdir(folder)
    assert read_category(Path(".")) == read_category(folder)


@pytest.mark.parametrize(
    "rows",
    [
        "onnx/a.onnx,vnnlib/p.vnnlib,30",
        "./onnx/a.onnx,./vnnlib/p.vnnlib,30\n",
        "onnx/a.onnx,vnnlib/p.vnnlib,30.0\r\n",
        "\n\n onnx/a.onnx , vnnlib/p.vnnlib , 3e1\n\n  \n",
        "\ufeffonnx/a.onnx,vnnlib/p.vnnlib,30\n",
        '"onnx/a.onnx","vnnlib/p.vnnlib","30"\n',
        "\"[('f','./onnx/a.onnx')]\",vnnlib/p.vnnlib,30\n",
    ],
)
def test_real_spellings_of_one_row_mean_the_same(tmp_path: Path, rows: str) -> None:
    row = only(category(tmp_path, rows))
    assert isinstance(row, Instance)
    assert (row.network_name, row.property_name) == ("onnx/a.onnx", "vnnlib/p.vnnlib")
    assert row.timeout_s == 30.0


@pytest.mark.parametrize(
    "header",
    [
        "onnx,vnnlib,timeout",
        "\ufeffnetwork,property,timeout_s\r",
        '"Model","Specification","time limit (s)"',
        "\n# onnx, vnnlib, timeout",
    ],
)
def test_a_header_is_no_row(tmp_path: Path, header: str) -> None:
    row = only(category(tmp_path, header + "\nonnx/a.onnx,vnnlib/p.vnnlib,30\n"))
    assert isinstance(row, Instance)
    assert row.line == header.count("\n") + 2


def test_what_looks_like_a_header_below_the_first_line_is_a_bad_row(tmp_path: Path) -> None:
    rows = "onnx/a.onnx,vnnlib/p.vnnlib,30\nonnx,vnnlib,timeout\n"
    good, bad = read_category(category(tmp_path, rows))
    assert isinstance(good, Instance)
    assert isinstance(bad, MalformedRow)


def test_a_first_row_that_names_files_is_no_header(tmp_path: Path) -> None:
    bad, _ = read_category(
        category(tmp_path, "onnx/a.onnx,p.vnnlib,soon\nonnx/a.onnx,vnnlib/p.vnnlib,1\n")
    )
    assert isinstance(bad, MalformedRow)
    assert ":1: timeout 'soon'" in bad.message


@pytest.mark.parametrize("stored", ["onnx/a.onnx", "onnx/a.onnx.gz"])
@pytest.mark.parametrize("named", ["onnx/a.onnx", "onnx/a.onnx.gz"])
def test_the_file_that_exists_is_taken_compressed_or_not(
    tmp_path: Path, stored: str, named: str
) -> None:
    row = only(category(tmp_path, f"{named},p.vnnlib,1\n", stored, "p.vnnlib"))
    assert isinstance(row, Instance)
    assert row.network == tmp_path / stored
    assert row.network_name == named


def test_line_numbers_count_blank_lines(tmp_path: Path) -> None:
    good = "onnx/a.onnx,vnnlib/p.vnnlib,1\n"
    rows = read_category(category(tmp_path, good + "\r\n\n" + good + "onnx/a.onnx\n" + good))
    assert [row.line for row in rows] == [1, 4, 5, 6]


def test_a_timeout_argument_replaces_the_rows_own(tmp_path: Path) -> None:
    row = only(category(tmp_path, "onnx/a.onnx,vnnlib/p.vnnlib,116\n"), timeout_s=2.5)
    assert isinstance(row, Instance)
    assert row.timeout_s == 2.5


@pytest.mark.parametrize(
    ("row", "cause", "message"),
    [
        ("onnx/a.onnx,vnnlib/p.vnnlib", Cause.MALFORMED_INSTANCE, "2 columns"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,1,2", Cause.MALFORMED_INSTANCE, "4 columns"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,soon", Cause.MALFORMED_INSTANCE, "'soon'"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,", Cause.MALFORMED_INSTANCE, "''"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,-1", Cause.MALFORMED_INSTANCE, "'-1'"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,0", Cause.MALFORMED_INSTANCE, "'0'"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,nan", Cause.MALFORMED_INSTANCE, "'nan'"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,inf", Cause.MALFORMED_INSTANCE, "'inf'"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,1e999", Cause.MALFORMED_INSTANCE, "'1e999'"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,1_0", Cause.MALFORMED_INSTANCE, "'1_0' is not a positive"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,٣", Cause.MALFORMED_INSTANCE, "'٣' is not a positive dec"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,0x10", Cause.MALFORMED_INSTANCE, "'0x10'"),
        (",vnnlib/p.vnnlib,1", Cause.MALFORMED_INSTANCE, "network is empty"),
        ('"onnx/a.onnx,vnnlib/p.vnnlib,1', Cause.MALFORMED_INSTANCE, "not a CSV row"),
        ("\"[('f',\",vnnlib/p.vnnlib,1", Cause.MALFORMED_INSTANCE, "cannot read the networks"),
        ('"[1, 2]",vnnlib/p.vnnlib,1', Cause.MALFORMED_INSTANCE, "cannot read the networks"),
        ("onnx/b.onnx,vnnlib/p.vnnlib,1", Cause.MISSING_FILE, "network"),
        ("onnx/a.onnx,vnnlib/q.vnnlib,1", Cause.MISSING_FILE, "property"),
        ("onnx,vnnlib/p.vnnlib,1", Cause.MISSING_FILE, "network"),
        (f"{'a' * 5000}.onnx,vnnlib/p.vnnlib,1", Cause.MISSING_FILE, "network"),
        (
            "\"[('f','onnx/a.onnx'),('g','onnx/b.onnx')]\",vnnlib/p.vnnlib,1",
            Cause.UNSUPPORTED_INSTANCE,
            "f=onnx/a.onnx, g=onnx/b.onnx",
        ),
    ],
)
def test_a_bad_row_says_why_and_where_and_the_rest_is_read(
    tmp_path: Path, row: str, cause: Cause, message: str
) -> None:
    good = "onnx/a.onnx,vnnlib/p.vnnlib,1\n"
    before, bad, after = read_category(category(tmp_path / "c", good + row + "\n" + good))
    assert isinstance(before, Instance)
    assert isinstance(after, Instance)
    assert isinstance(bad, MalformedRow)
    assert (bad.category, bad.line, bad.cause) == ("c", 2, cause)
    assert bad.message.startswith(f"{tmp_path / 'c' / 'instances.csv'}:2: ")
    assert message in bad.message


def test_a_malformed_row_keeps_the_names_it_wrote(tmp_path: Path) -> None:
    row = read_category(
        category(tmp_path, "./onnx/b.onnx,./vnnlib/p.vnnlib,1\nonnx/a.onnx,vnnlib/p.vnnlib,x\n")
    )[0]
    assert (row.network_name, row.property_name) == ("onnx/b.onnx", "vnnlib/p.vnnlib")


def test_rows_of_a_list_of_several_categories_belong_to_the_folder_of_their_network(
    tmp_path: Path,
) -> None:
    files = "benchmarks/mlp/onnx/a.onnx", "benchmarks/cnn/1.0/onnx/b.onnx", "p.vnnlib", "c.onnx"
    rows = "".join(f"./{name},p.vnnlib,1\n" for name in files if name.endswith("onnx"))
    found = read_category(category(tmp_path / "top", rows, *files))
    assert [row.category for row in found] == ["mlp", "cnn", "top"]
    assert found[0].network_name == "benchmarks/mlp/onnx/a.onnx"


def test_a_version_folder_is_not_the_name_of_a_category(tmp_path: Path) -> None:
    folder = category(tmp_path / "acasxu" / "2.0", "onnx/a.onnx,vnnlib/p.vnnlib,1\n")
    assert only(folder).category == "acasxu"


def test_a_folder_of_versions_names_the_folders_to_choose_from(tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        category(tmp_path / "acasxu" / version, "onnx/a.onnx,vnnlib/p.vnnlib,1\n")
    with pytest.raises(UsageError, match=r"acasxu/1\.0 or .*acasxu/2\.0"):
        read_category(tmp_path / "acasxu")


def test_a_category_that_cannot_run_at_all_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such category"):
        read_category(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"no instances\.csv"):
        read_category(tmp_path)
    (tmp_path / "net.onnx").touch()
    with pytest.raises(UsageError, match=r"net\.onnx: no category; name a folder"):
        read_category(tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="no rows"):
        read_category(category(tmp_path / "empty", "\r\n\n"))
    with pytest.raises(UsageError, match="none of the files"):
        read_category(category(tmp_path / "gone", "x.onnx,p.vnnlib,1\ny.onnx,p.vnnlib,1\n"))


def test_all_shared_categories_are_read_whole(vnncomp2022: Path) -> None:
    sizes = {"acasxu": 186, "mnist_fc": 90, "oval21": 30, "test": 5, "rl_benchmarks": 296}
    for name, size in sizes.items():
        rows = read_category(vnncomp2022 / "benchmarks" / name)
        assert len(rows) == size
        assert all(isinstance(row, Instance) and row.category == name for row in rows)


def test_content_is_unzipped_whatever_the_name_says(tmp_path: Path) -> None:
    for name, stored in (("a", b"text"), ("b", gzip.compress(b"text")), ("c.gz", b"text")):
        (tmp_path / name).write_bytes(stored)
        assert read_bytes(tmp_path / name, Cause.MALFORMED_NETWORK) == b"text"


@pytest.mark.parametrize("damage", [slice(0, 20), slice(0, -8), slice(0, 11)])
def test_a_truncated_gzip_file_has_the_cause_of_what_it_holds(
    tmp_path: Path, damage: slice
) -> None:
    path = tmp_path / "a.onnx.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 9)[damage])
    with pytest.raises(InstanceError, match=r"a\.onnx\.gz: damaged gzip file") as raised:
        read_bytes(path, Cause.MALFORMED_NETWORK)
    assert raised.value.cause is Cause.MALFORMED_NETWORK


def test_a_file_that_cannot_be_read_has_a_cause(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match="no such file") as raised:
        read_bytes(tmp_path / "absent", Cause.MALFORMED_PROPERTY)
    assert raised.value.cause is Cause.MISSING_FILE
    with pytest.raises(InstanceError, match="cannot be read") as raised:
        read_bytes(tmp_path, Cause.MALFORMED_PROPERTY)
    assert raised.value.cause is Cause.MALFORMED_PROPERTY
