"""rpcnn predict of tar files: each picture is parsed as one of a folder, or named."""

import gzip
import io
import os
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from rpcnn.inference import shards
from rpcnn.inference.shards import expand_braces, list_pictures
from rpcnn.predict import main

RUN = pathlib.Path(__file__).parents[1] / "cli" / "run_of_version_0_1"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(kind="png", size=(32, 24)):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(file, kind)
    return file.getvalue()


def entry(name, data, **fields):
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def shard(path, *members, mode="w"):
    """A tar of members: names, pictures then, or pairs of a name and bytes."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            name, data = (member, picture()) if isinstance(member, str) else member
            tar.addfile(entry(name, data), io.BytesIO(data))
    return path


def predict(*arguments):
    main([*map(str, arguments), "--weights", str(RUN), "--device", "cpu"])


def not_parsed(*arguments):
    """The lines that the command ends with, with exit status 1."""
    with pytest.raises(SystemExit) as ended:
        predict(*arguments)
    first, *lines = ended.value.code.splitlines()
    assert first == "rpcnn: not parsed:"
    return [line.strip() for line in lines]


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def labels(*stems):
    return sorted(f"{stem}{ending}" for stem in stems for ending in ("_labels.png", ".json"))


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".TGZ"])
def test_pictures_of_a_shard_are_parsed_below_its_name(ending, here):
    members = ["a.PNG", ("a.json", b"{}"), ("a.seg.png", b"no picture"), "./dogs/1.5/b.png", "._a.png", "dogs/c.d.e"]
    shard(here / f"train-0{ending}", *members, mode="w" if ending == ".tar" else "w:gz")
    (here / "folder" / "dogs" / "1.5").mkdir(parents=True)
    for name in ("a", "dogs/1.5/b"):
        (here / "folder" / f"{name}.png").write_bytes(picture())
    predict(f"train-0{ending}", "--save", "labels")
    predict("folder", "--recursive", "--save", "labels", "--output", "same")
    assert names(here / "predictions") == labels("train-0/a", "train-0/dogs/1.5/b")
    for name in names(here / "same"):
        if name.endswith(".png"):
            assert (here / "same" / name).read_bytes() == (here / "predictions" / "train-0" / name).read_bytes()


def test_no_name_leads_out_of_the_output(here):
    bad = ["../x.png", "a/../../x.png", "/tmp/x.png", "C:x.png", "C:\\x.png", "..\\a/x.png", "\\\\host\\x.png"]
    shard(here / "0.tar", "good.png", *bad, "new\nline.png", f"{'n' * 201}.png", f"{'d/' * 600}x.png", mode="w:")
    lines = not_parsed("0.tar", "--save", "labels", "--output", "out/deep")
    assert [line.removesuffix(": its name leads out of the shard") for line in lines[:7]] == [
        f"shard: 0.tar/{name} is not parsed" for name in bad
    ]
    assert lines[7] == r"shard: 0.tar/new\x0aline.png is not parsed: its name has control characters"
    assert len(lines) == 10 and all(line.endswith("its name is too long") for line in lines[8:])
    assert names(here) == ["0.tar", *(f"out/deep/{name}" for name in labels("0/good"))]


def test_pictures_that_cannot_be_parsed_are_named_and_the_others_are_parsed(here, monkeypatch):
    with tarfile.open(here / "0.tar", "w") as tar:
        for name, data, fields in (
            ("a.png", picture(), {}),
            ("a.png", picture(), {}),
            ("a.jpg", picture("jpeg"), {}),
            ("b.jpg", b"no picture", {}),
            ("c.png", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
            ("d.png", b"", {"type": tarfile.LNKTYPE, "linkname": "a.png"}),
            ("e.png", b"", {"type": tarfile.FIFOTYPE}),
            ("f.png", picture(size=(99, 99)), {}),
            ("g.heic", b"\0\0\0\x18ftypheic", {}),
            ("large.png", bytes(100_000), {}),
            ("h.png", picture(), {}),
        ):
            tar.addfile(entry(name, data, **fields), io.BytesIO(data))
    monkeypatch.setattr(shards, "MAX_BYTES", 99_999)
    lines = not_parsed("0.tar", "--save", "labels", "--max-pixels", "5000")
    assert [line.split("/")[1].split()[0] for line in lines] == [
        *("a.png", "a.jpg", "c.png", "d.png", "e.png", "large.png", "b.jpg", "f.png", "g.heic")
    ]
    assert "it is there twice" in lines[0] and "a.png has the same key" in lines[1]
    assert all("it is a link, a device or a sparse file" in line for line in lines[2:5])
    assert "it has 100000 bytes, more than 99999" in lines[5] and "more than max_pixels" in lines[7]
    assert names(here / "predictions") == labels("0/a", "0/h")


@pytest.mark.parametrize("where", ["between members", "in a header", "in data"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_shard_that_breaks_off_is_parsed_so_far_and_named(where, pack, here):
    data = shard(here / "whole.tar", "a.png", "b.png", "c.png").read_bytes()
    with tarfile.open(here / "whole.tar") as tar:
        last = tar.getmembers()[2]
    length = {"between members": last.offset, "in a header": last.offset + 99, "in data": last.offset_data + 99}[where]
    (here / "0.tar").write_bytes(pack(data[:length]))
    (line,) = not_parsed("0.tar", "--save", "labels")
    assert line.startswith("shard: 0.tar cannot be read to its end: ")
    assert names(here / "predictions") == labels("0/a", "0/b")


def test_compressed_data_that_break_off_are_named(here):
    noise = np.random.default_rng(0)
    members = [(f"{i}.png", noise.bytes(9000)) for i in range(30)]
    data = shard(here / "whole.tar.gz", *members, mode="w:gz").read_bytes()
    (here / "0.tar.gz").write_bytes(data[: len(data) // 2])
    found, faults = list_pictures(here / "0.tar.gz")
    assert 0 < len(found) < 30 and len(faults) == 1 and "end-of-stream" in faults[0]


def test_a_damaged_header_does_not_pass_for_the_end(here):
    data = bytearray(shard(here / "0.tar", "a.png", "b.png", "c.png").read_bytes())
    with tarfile.open(here / "0.tar") as tar:
        data[tar.getmembers()[1].offset + 3] ^= 1
    (here / "0.tar").write_bytes(data)
    found, (fault,) = list_pictures(here / "0.tar")
    assert [member.name for member in found] == ["a.png"] and "the header of its next file is damaged" in fault


def raw_header(kind, size, name="x", unpacked=0):
    """A header of any size of its data, also below 0, and of any size after unpacking a sparse file."""
    header = bytearray(entry(name, b"", type=kind).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[483:495] = tarfile.itn(unpacked, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        (tarfile.GNUTYPE_LONGNAME, 1 << 33, "more than 1048576"),
        (tarfile.XHDTYPE, 1 << 33, "more than 1048576"),
        (tarfile.REGTYPE, -2048, "below 0"),
        (tarfile.XHDTYPE, -2048, "a header has -"),
    ],
)
def test_headers_are_read_forward_and_of_a_bounded_length(kind, size, message, here):
    whole = shard(here / "x.tar", "a.png").read_bytes()
    (here / "0.tar").write_bytes(whole[: 512 + -(-len(picture()) // 512) * 512] + raw_header(kind, size) + bytes(1024))
    found, (fault,) = list_pictures(here / "0.tar")
    assert [member.name for member in found] == ["a.png"] and message in fault


def test_a_sparse_member_is_not_unpacked(here):
    """The format of `tar --sparse`: a file of 10 kB here, of 4 GB where it is read whole."""
    (here / "0.tar").write_bytes(raw_header(tarfile.GNUTYPE_SPARSE, 0, "big.png", 1 << 32) + bytes(1024))
    assert list_pictures(here / "0.tar")[1] == [
        f"shard: {here}/0.tar/big.png is not parsed: it is a link, a device or a sparse file"
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "rpcnn: shard: 0.tar cannot be read: empty file"),
        (b"no tar" * 999, "rpcnn: shard: 0.tar cannot be read: "),
        (bytes(10240), "rpcnn: shard: 0.tar has no picture; their names are like key.jpg, with one dot"),
    ],
)
def test_a_command_without_any_picture_is_an_error(data, message, here, capsys):
    (here / "0.tar").write_bytes(data)
    with pytest.raises(SystemExit) as ended:
        predict("0.tar")
    assert ended.value.code == 2 and capsys.readouterr().err.startswith(message)
    shard(here / "1.tar", "a.png")
    assert len(not_parsed("0.tar", "1.tar", "--save", "labels")) == 1
    assert names(here / "predictions") == labels("1/a")


def test_many_faults_are_counted(here):
    shard(here / "0.tar", "a.png", *[("a.png", b"")] * 150)
    assert list_pictures(here / "0.tar")[1][100:] == [f"shard: {here}/0.tar: 50 more are not parsed"]


def test_braces_name_several_shards(here, capsys):
    pytest.importorskip("braceexpand", reason='braceexpand is not installed: pip install "rpcnn[tar]"')
    for number in range(9, 12):
        shard(here / f"train-{number:03}.tar", "a.png")
    predict("train-{009..011}.tar", "--save", "labels")
    assert names(here / "predictions") == labels(*(f"train-{number:03}/a" for number in range(9, 12)))
    for source, message in (("train-{009..012}.tar", "'train-012.tar' is no image"), ("train-{0.tar", "do not fit")):
        with pytest.raises(SystemExit):
            predict(source)
        assert message in capsys.readouterr().err


def test_braces_name_the_extra_where_it_is_missing(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "braceexpand", None)
    with pytest.raises(ValueError, match=r'need the package braceexpand: pip install "rpcnn\[tar\]"'):
        list(expand_braces("train-{000..012}.tar"))
    shard(here / "0{a}.tar", "a.png")
    assert list(expand_braces("0{a}.tar")) == ["0{a}.tar"] and list(expand_braces("{a,b}.png")) == ["{a,b}.png"]


def test_patterns_and_lists_keep_the_folders_of_shards(here):
    for place in ("x/0.tar", "y/0.tar"):
        (here / place).parent.mkdir()
        shard(here / place, "a.png")
    (here / "list.txt").write_text("x/0.tar\ny/0.tar\n")
    predict("*/0.tar", "--save", "labels", "--output", "pattern")
    predict("--list", "list.txt", "--save", "labels", "--output", "list")
    assert names(here / "pattern") == names(here / "list") == labels("x/0/a", "y/0/a")


def test_results_of_two_shards_or_in_place_of_a_folder_clash(here, capsys):
    for place in ("x/0.tar", "y/0.tar"):
        (here / place).parent.mkdir()
        shard(here / place, "a.png")
    shard(here / "1.tar", "a.png", "a.json/b.png")
    for sources, message in (
        (["x/0.tar", "y/0.tar"], "x/0.tar/a.png and y/0.tar/a.png would both write predictions/0/a_overlay.png"),
        (["1.tar"], "1.tar/a.png would write predictions/1/a.json, a folder of other results"),
    ):
        with pytest.raises(SystemExit) as ended:
            predict(*sources)
        assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_resume_skips_what_is_done_while_the_shard_is_the_same(mode, here, capsys):
    shard(here / "0.tar", *(f"{key}.png" for key in "abcd"), mode=mode)
    predict("0.tar", "--save", "labels,coco")
    (here / "predictions" / "0" / "b_labels.png").unlink()
    (here / "predictions" / "0" / "d_labels.png").write_bytes(b"")
    predict("0.tar", "--save", "labels,coco", "--resume")
    assert "--resume: 2 of 4 images are done" in capsys.readouterr().out
    coco = COCO(here / "predictions" / "coco.json")
    assert [image["file_name"] for image in coco.dataset["images"]] == [f"0/{key}.png" for key in "abcd"]
    shard(here / "0.tar", *(f"{key}.png" for key in "abc"), mode=mode)
    os.utime(here / "0.tar", (1, 1))
    predict("0.tar", "--save", "labels,coco", "--resume")
    assert "--resume: 0 of 3 images are done" in capsys.readouterr().out


def test_a_shard_that_changes_meanwhile_is_named(here):
    member = list_pictures(shard(here / "0.tar", "a.png", "b.png"))[0][1]
    (here / "0.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"0\.tar/b\.png cannot be read: the shard has changed"):
        shards.ShardReader().read(member)
    (here / "0.tar").unlink()
    with pytest.raises(ValueError, match=r"0\.tar/b\.png cannot be read: .*No such file"):
        shards.ShardReader().read(member)


def test_nothing_is_extracted_and_the_shard_is_not_in_memory(here, monkeypatch):
    """Of a shard of 64 MB whose pictures are small, a few kB are read."""
    read = []
    shard(here / "0.tar", "a.png", ("a.bin", bytes(32 << 20)), "b.png", ("b.bin", bytes(32 << 20)))

    class Counting(io.FileIO):
        def read(self, size=-1):
            read.append(size)
            return super().read(size)

    monkeypatch.setattr(shards, "_open", Counting)
    members, faults = list_pictures(here / "0.tar")
    reader = shards.ShardReader()
    assert [len(reader.read(member)) for member in members] == [len(picture())] * 2 and faults == []
    assert min(read) > 0 and sum(read) < 64 << 10


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_processes_share_the_pictures_of_a_shard(here):
    shard(here / "0.tar.gz", *(f"{key}.png" for key in "abcde"), "../x.png", ("cut.png", b""), mode="w:gz")
    options = ["--weights", str(RUN), "--device", "cpu", "--save", "labels"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "rpcnn.predict", "0.tar.gz", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 1 and done.stdout.count("rpcnn: 5 images parsed with") == 1, done.stderr
    assert done.stderr.count("0.tar.gz/../x.png is not parsed") == done.stderr.count("cut.png cannot be read") == 1
    assert names(here / "predictions") == labels(*(f"0/{key}" for key in "abcde"))
