"""Input files may be compressed, and a compressed one may lie about its size."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem import files
from runner.problem.files import read_bytes

MIB = 1024 * 1024


def test_a_compressed_file_is_unpacked_whatever_its_name(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    path = tmp_path / "plain"
    path.write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    assert read_bytes(path, Cause.MALFORMED_NETWORK) == content


@pytest.mark.parametrize("end", [b"", bytes(5)])
def test_many_members_one_after_the_other_are_one_file(end: bytes, tmp_path: Path) -> None:
    content = bytes(range(256)) * 300
    members = [gzip.compress(content[start : start + 700]) for start in range(0, 76_800, 700)]
    path = tmp_path / "several.gz"
    path.write_bytes(b"".join(members) + end)
    assert read_bytes(path, Cause.MALFORMED_NETWORK) == content


def test_what_follows_a_compressed_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "more.gz"
    path.write_bytes(gzip.compress(b"network") + b"\0\0other")
    with pytest.raises(InstanceError, match=r"Not a gzipped file \(b'ot'\)"):
        read_bytes(path, Cause.MALFORMED_NETWORK)


@pytest.mark.slow
def test_what_packs_well_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gz"
    # As tllverifybench's largest: 1.4 MiB of gzip that unpack to 257 MiB.
    path.write_bytes(gzip.compress(bytes(64 * MIB)) * 4)
    assert len(read_bytes(path, Cause.MALFORMED_NETWORK)) == 256 * MIB


@pytest.mark.slow
def test_a_file_that_unpacks_to_too_much_is_refused_with_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_UNPACKED_ALWAYS", 64 * MIB)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(200 * MIB)))
    with pytest.raises(InstanceError, match=r"100 times the packed size and 1 GiB") as caught:
        read_bytes(path, Cause.MALFORMED_PROPERTY)
    assert caught.value.cause is Cause.MALFORMED_PROPERTY
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("cut", [4, 100, -1])
def test_a_damaged_file_is_told(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "damaged.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 10)[:cut])
    with pytest.raises(InstanceError, match="damaged gzip file"):
        read_bytes(path, Cause.MALFORMED_NETWORK)
