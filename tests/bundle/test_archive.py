"""Archives from anybody: what is refused, that nothing is left then, and that what was packed comes back."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlaas4hep.bundle.archive import pack, unpack
from mlaas4hep.bundle.tar import ArchiveLimits
from mlaas4hep.errors import ArchiveError, ArchiveTooLargeError

FILES = {"higgs/params.json": b"{}", "higgs/model.onnx": b"graph", "higgs/plots/roc.png": b"png"}


def member(name: str, kind: bytes = tarfile.REGTYPE, **attributes: object) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.mode = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in attributes.items():
        setattr(header, key, value)
    return header


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form) as tar:
        for header, content in members:
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return output.getvalue()


def good_members() -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(member("higgs", tarfile.DIRTYPE), b""), *((member(name), content) for name, content in FILES.items())]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder.parent)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive: bytes, folder: Path, match: str, **options: object) -> None:
    """The archive is refused with that message, and nothing of it stays."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(ArchiveError, match=match):
        unpack(io.BytesIO(archive), folder, **options)
    assert list(folder.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "staging"
    made.mkdir()
    return made


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_plain_or_compressed_tar_of_any_dialect_is_unpacked(folder: Path, form: int, compress) -> None:
    top = unpack(io.BytesIO(compress(tar_of(*good_members(), form=form))), folder)
    assert top == folder / "higgs"
    assert contents(top) == FILES


def test_the_tar_of_the_machine_is_read(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "source" / "higgs"
    for name, content in FILES.items():
        path = source.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    subprocess.run(["tar", "-czf", tmp_path / "a.tar.gz", "-C", source.parent, "./higgs"], check=True)
    assert contents(unpack(tmp_path / "a.tar.gz", folder)) == FILES


def test_what_is_packed_comes_back_and_packing_again_gives_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    top = unpack(io.BytesIO(tar_of(*good_members())), folder)
    first = pack(top, tmp_path / "first.tar.gz").read_bytes()
    for path in top.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert pack(top, tmp_path / "second.tar.gz").read_bytes() == first
    other = tmp_path / "other"
    other.mkdir()
    assert contents(unpack(tmp_path / "first.tar.gz", other)) == FILES


def test_packing_names_the_top_folder_as_it_is_told(tmp_path: Path, folder: Path) -> None:
    top = unpack(io.BytesIO(tar_of(*good_members())), folder)
    other = tmp_path / "other"
    other.mkdir()
    assert unpack(pack(top, tmp_path / "a.tar.gz", top="tau"), other).name == "tau"


def test_packing_refuses_links_and_leaves_the_old_archive_alone(tmp_path: Path) -> None:
    source = tmp_path / "higgs"
    source.mkdir()
    (source / "link").symlink_to("/etc/passwd")
    archive = tmp_path / "higgs.tar.gz"
    archive.write_bytes(b"old")
    with pytest.raises(ArchiveError, match="link is neither a file nor a folder"):
        pack(source, archive)
    assert archive.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["higgs", "higgs.tar.gz"]


def test_packing_into_a_folder_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "higgs").mkdir()
    with pytest.raises(ArchiveError, match="cannot be written: No such file or directory"):
        pack(tmp_path / "higgs", tmp_path / "nowhere" / "a.tar.gz")


def test_companions_of_macos_are_passed_over(folder: Path) -> None:
    companions = [
        (member("./._higgs"), b"\0\5\x16\7"),
        (member("higgs/._params.json"), b"\0\5\x16\7"),
        (member("higgs/.DS_Store"), b"\0"),
        (member("__MACOSX/higgs/._x"), b"\0"),
    ]
    extended = member("higgs/extra.txt", pax_headers={"LIBARCHIVE.xattr.com.apple.quarantine": "x", "mtime": "1.5"})
    top = unpack(io.BytesIO(tar_of(*companions, *good_members(), (extended, b"extra"))), folder)
    assert contents(top) == {**FILES, "higgs/extra.txt": b"extra"}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_read(folder: Path, form: int) -> None:
    name = f"higgs/{'d' * 120}/{'f' * 120}.txt"
    top = unpack(io.BytesIO(tar_of(*good_members(), (member(name), b"long"), form=form)), folder)
    assert contents(top)[name] == b"long"


def test_modes_owners_and_times_are_not_taken_over(folder: Path) -> None:
    writable = member("higgs/open.txt", mode=0o777, uid=1234, mtime=1)
    shared = member("higgs/shared", tarfile.DIRTYPE, mode=0o2775)
    top = unpack(io.BytesIO(tar_of(*good_members(), (shared, b""), (writable, b"x"))), folder)
    about = (top / "open.txt").stat()
    assert not about.st_mode & (stat.S_IXUSR | stat.S_IWOTH)
    assert (about.st_uid, about.st_mtime > 1) == (os.getuid(), True)
    assert not (top / "shared").stat().st_mode & stat.S_ISGID


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("/etc/cron.d/evil", "absolute path"),
        ("../evil", r"'\.\.'"),
        ("higgs/../../evil", r"'\.\.'"),
        ("higgs/..", r"'\.\.'"),
        ("C:/evil", "absolute path"),
        ("higgs\\..\\evil", "backslash"),
        ("higgs/new\nline", "control character"),
        ("higgs/\u202ecod.exe", "control character"),
        ("higgs/" + "/".join("d" * 40), "too long or too deep"),
        ("higgs/" + "d" * 256, "too long or too deep"),
        ("evil", "not inside a top folder"),
        ("other/file", "two top folders"),
        ("Higgs/file", "differ only in the case"),
        ("higgs/params.json", "is there twice"),
        ("./higgs//params.json", "is there twice"),
        ("higgs/PARAMS.json", "differ only in the case"),
        ("higgs/params.json/file", "as a file and as a folder"),
    ],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_path_that_could_do_harm_is_refused(folder: Path, name: str, match: str, form: int) -> None:
    refused(tar_of(*good_members(), (member(name), b"evil"), form=form), folder, match)
    assert not (folder.parent / "evil").exists()


def test_names_that_differ_only_in_the_composition_of_letters_are_refused(folder: Path) -> None:
    pair = [(member("higgs/\u00e9"), b"1"), (member("higgs/e\u0301"), b"2")]
    refused(tar_of(*good_members(), *pair), folder, "composition")


def test_a_folder_with_the_name_of_a_file_is_refused(folder: Path) -> None:
    refused(
        tar_of(*good_members(), (member("higgs/model.onnx", tarfile.DIRTYPE), b"")), folder, "as a file and as a folder"
    )


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a fifo"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Z", "of an unknown kind"),
    ],
)
def test_anything_but_files_and_folders_is_refused(folder: Path, kind: bytes, match: str) -> None:
    refused(tar_of(*good_members(), (member("higgs/x", kind, linkname="/etc/passwd"), b"")), folder, match)


def test_a_link_with_a_long_target_is_refused(folder: Path) -> None:
    link = member("higgs/x", tarfile.SYMTYPE, linkname="../" * 60)
    refused(tar_of((link, b""), *good_members(), form=tarfile.GNU_FORMAT), folder, "a link with a long target")
    refused(tar_of((link, b""), *good_members(), form=tarfile.PAX_FORMAT), folder, "a symbolic link")


def test_a_file_cannot_be_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    trick = [(member("higgs/d", tarfile.SYMTYPE, linkname=str(outside)), b""), (member("higgs/d/evil"), b"evil")]
    refused(tar_of(*good_members(), *trick), folder, "a symbolic link")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755])
def test_a_set_uid_bit_is_refused(folder: Path, mode: int) -> None:
    refused(tar_of(*good_members(), (member("higgs/sh", mode=mode), b"#!")), folder, "set-uid")


def test_an_archive_without_params_is_refused_except_where_that_is_allowed(folder: Path) -> None:
    archive = tar_of((member("higgs/model.onnx"), b"graph"))
    refused(archive, folder, "has no 'higgs/params.json'")
    assert contents(unpack(io.BytesIO(archive), folder, required=())) == {"higgs/model.onnx": b"graph"}


@pytest.mark.parametrize(
    ("archive", "match"),
    [
        (b"", "empty"),
        (b"\0" * 10240, "empty"),
        (b"this is not a tar at all " * 100, "not a tar"),
        (b"PK\x03\x04" + b"\0" * 600, "zip file"),
        (b"BZh9" + b"\0" * 600, "bzip2 file"),
        (b"\xfd7zXZ\0" + b"\0" * 600, "xz file"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"\x1f\x8b" + b"junk" * 200, "damaged"),
        (gzip.compress(b"not a tar" * 200, mtime=0), "not a tar"),
    ],
)
def test_what_is_no_tar_is_refused(folder: Path, archive: bytes, match: str) -> None:
    refused(archive, folder, match)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_an_archive_cut_off_anywhere_is_refused(folder: Path, compress) -> None:
    whole = tar_of(*good_members())
    archive = compress(whole)
    end = len(whole.rstrip(b"\0")) if compress is bytes else len(archive)
    for length in range(1, end, max(1, end // 40)):
        refused(archive[:length], folder, "cut off|damaged|not a tar|no 'higgs/params.json'|empty")


def test_data_after_the_end_is_refused(folder: Path) -> None:
    refused(tar_of(*good_members()) + b"more", folder, "data after its end")
    refused(gzip.compress(tar_of(*good_members())) + b"more", folder, "damaged")


def test_zeros_after_the_end_and_several_gzip_streams_are_fine(folder: Path) -> None:
    tar = tar_of(*good_members())
    archive = gzip.compress(tar[:700]) + gzip.compress(tar[700:]) + b"\0" * 200_000
    assert contents(unpack(io.BytesIO(archive), folder)) == FILES


def test_a_wrong_checksum_of_the_compressed_stream_is_refused(folder: Path) -> None:
    archive = bytearray(gzip.compress(tar_of(*good_members())))
    archive[-6] ^= 1
    refused(bytes(archive), folder, "damaged")


def test_sizes_that_lie_are_refused(folder: Path) -> None:
    for size in (b"77777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-1\0", b"9\0"):
        block = bytearray(tar_of((member("higgs/params.json"), b"{}")))
        block[124:136] = size.ljust(12, b"\0")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block[:512])
        refused(bytes(block), folder, "bytes|wrong size|cut off")


def test_an_extended_header_that_is_huge_is_refused(folder: Path) -> None:
    header = member("higgs/params.json", pax_headers={"comment": "x" * 100_000})
    refused(tar_of((header, b"{}")), folder, "extended header of 1000")


@pytest.mark.parametrize(
    "records", [b"garbage", b"99999 path=x\n", b"5 p=x", b"-3 path=x\n", b"11 pathhhhh\n", b"12 path=\xff\xfe\n"]
)
def test_a_damaged_extended_header_is_refused(folder: Path, records: bytes) -> None:
    refused(tar_of((member("meta", b"x"), records), *good_members()), folder, "extended header|not UTF-8")


def test_more_members_than_allowed_are_refused(folder: Path) -> None:
    many = [(member(f"higgs/{number}"), b"") for number in range(60)]
    with pytest.raises(ArchiveTooLargeError, match="more than 50 members"):
        unpack(io.BytesIO(tar_of(*good_members(), *many)), folder, limits=ArchiveLimits(members=50))
    assert list(folder.iterdir()) == []


def test_a_million_members_stop_at_the_limit(folder: Path) -> None:
    block = tar_of((member("higgs/sub", tarfile.DIRTYPE), b""))[:512]
    packer = zlib.compressobj(wbits=31)
    archive = b"".join(packer.compress(block * 1000) for _ in range(1000)) + packer.flush()
    refused(archive, folder, "more than 10000 members")


BOMB = """
import io, resource, sys, tarfile, zlib
from pathlib import Path
from mlaas4hep.bundle.archive import unpack
from mlaas4hep.errors import ArchiveTooLargeError

header = tarfile.TarInfo("higgs/zeros.bin")
header.size = int(sys.argv[2])
class Bomb(io.RawIOBase):
    '''Ten gigabytes of zeros, compressed while they are read.'''
    def __init__(self):
        self.packer, self.left, self.zeros = zlib.compressobj(wbits=31), 10 << 30, bytes(1 << 20)
        self.waiting = self.packer.compress(header.tobuf())
    def read(self, count=-1):
        while len(self.waiting) < count and self.left:
            self.waiting += self.packer.compress(self.zeros)
            self.left -= len(self.zeros)
        piece, self.waiting = self.waiting[:count], self.waiting[count:]
        return piece
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(Bomb(), Path(sys.argv[1]))
except ArchiveTooLargeError as error:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(used // (1024 if sys.platform == 'darwin' else 1), error)
"""


@pytest.mark.parametrize("size", [1 << 30, 10 << 30])
def test_ten_gigabytes_of_zeros_stop_without_taking_memory_or_disk(folder: Path, size: int) -> None:
    run = subprocess.run(
        [sys.executable, "-c", BOMB, str(folder), str(size)], capture_output=True, text=True, timeout=120
    )
    kilobytes, _, message = run.stdout.partition(" ")
    assert "the archive inflates to more than" in message or "at most" in message, run.stderr
    assert int(kilobytes) < 32 << 10
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(folder: Path) -> None:
    """A limit on the size of files stands for the disk: the same error of the same call."""
    code = """
import resource, signal, sys
from pathlib import Path
from mlaas4hep.bundle.archive import unpack
from mlaas4hep.errors import ArchiveError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
except ArchiveError as error:
    print(error)
"""
    archive = folder.parent / "a.tar"
    archive.write_bytes(tar_of(*good_members(), (member("higgs/large"), b"x" * 100_000)))
    run = subprocess.run(
        [sys.executable, "-c", code, str(archive), str(folder)], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.strip() == "the archive cannot be unpacked: File too large", run.stderr
    assert list(folder.iterdir()) == []


def test_an_archive_that_is_not_there_is_one_clear_error(folder: Path) -> None:
    with pytest.raises(ArchiveError, match="No such file or directory"):
        unpack(folder / "nothing.tar.gz", folder)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_archives_are_unpacked_inside_their_folder_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    archive = bytearray(
        tar_of(*good_members(), form=data.draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])))
    )
    for _ in range(data.draw(st.integers(1, 6))):
        archive[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    for start in range(0, 3072, 512):  # a checksum that fits, so that the damage is not found by it alone
        if data.draw(st.booleans()) and any(archive[start : start + 512]):
            archive[start + 148 : start + 156] = b" " * 8
            archive[start + 148 : start + 156] = b"%06o\0 " % sum(archive[start : start + 512])
    outer = tmp_path_factory.mktemp("fuzz")
    folder = outer / "staging"
    folder.mkdir()
    try:
        unpack(io.BytesIO(bytes(archive)), folder)
    except ArchiveError:
        assert list(folder.iterdir()) == []
    assert list(outer.iterdir()) == [folder]
    assert not any(path.is_symlink() for path in folder.rglob("*"))
