"""Downloads from a server on this machine that drops, truncates, corrupts and ignores."""

import hashlib
import stat
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from colotride.data import download as download_module
from colotride.data import transfer
from colotride.data.archives import ARCHIVES
from colotride.data.base import CACHE_FOLDER
from colotride.data.download import download
from colotride.data.settings import DataSettings
from colotride.data.splits import load_splits
from colotride.data.transfer import fetch
from colotride.errors import DataError
from tests.faults.surroundings import no_file_longer_than
from tests.servers import MAKERS, archives_of, described, serving, tar_with, zip_with, zipped

CONTENT = np.random.default_rng(0).bytes(200_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The seconds that were slept, without sleeping them."""
    slept = []
    monkeypatch.setattr(transfer.time, "sleep", slept.append)
    return slept


def quiet(*_):
    pass


def fetched(server, path, **values):
    fetch(f"{server.address}/file.bin", path, **{"md5": MD5, "size": None, "on_bytes": quiet} | values)
    return path.read_bytes()


def refusal(call, *arguments, **values):
    with pytest.raises(DataError) as error:
        call(*arguments, **values)
    assert "\n" not in str(error.value)
    return str(error.value)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# The table


def test_checksums_of_fashion_mnist_are_torchvisions():
    from torchvision.datasets import FashionMNIST

    ours = {archive.name: archive.md5 for archive in ARCHIVES["fashion-mnist"].archives}
    assert ours == dict(FashionMNIST.resources)
    assert {archive.url.rsplit("/", 1)[0] + "/" for archive in ARCHIVES["fashion-mnist"].archives} <= set(
        FashionMNIST.mirrors
    )


def test_every_archive_has_an_address_over_http_and_an_md5():
    for holding in ARCHIVES.values():
        for archive in holding.archives:
            assert archive.url.startswith(("http://", "https://"))
            assert len(bytes.fromhex(archive.md5)) == 16
            assert (holding.folder + "/").startswith(archive.into + "/") or archive.into == "."


# Transfers


def test_a_dropped_connection_is_continued_where_it_ended(tmp_path, pauses):
    with serving({"file.bin": CONTENT}, "drop", "drop") as server:
        assert fetched(server, tmp_path / "file.bin") == CONTENT
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in server.ranges[1:]]
    assert server.ranges[0] is None
    assert 80_000 < starts[0] <= 100_000
    assert 120_000 < starts[1] <= 150_000
    assert server.sent < len(CONTENT) + 3 * transfer.CHUNK
    assert pauses == [1.0, 1.0], "a connection that brought something starts the back-off anew"
    assert names_in(tmp_path) == ["file.bin"]


def test_a_part_that_another_process_left_is_continued(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:150_000])
    with serving({"file.bin": CONTENT}) as server:
        assert fetched(server, tmp_path / "file.bin") == CONTENT
    assert (server.ranges, server.sent) == (["bytes=150000-"], 50_000)


def test_a_part_that_is_whole_only_gets_its_name(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    with serving({"file.bin": CONTENT}) as server:
        assert fetched(server, tmp_path / "file.bin") == CONTENT
    assert server.sent == 0
    assert names_in(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("answer", ["no range", "no range no length"])
def test_a_server_that_cannot_continue_sends_the_file_again(tmp_path, answer):
    with serving({"file.bin": CONTENT}, "drop", answer) as server:
        assert fetched(server, tmp_path / "file.bin") == CONTENT
    assert server.ranges[1] is not None


def test_a_range_that_was_not_asked_for_is_thrown_away_before_it_spoils_the_file(tmp_path):
    with serving({"file.bin": CONTENT}, "drop", "shifted", "corrupt") as server:
        assert fetched(server, tmp_path / "file.bin") == CONTENT, "the one try after a wrong checksum is not spent"
    assert server.ranges[2:] == [None, None]


def test_a_part_of_other_content_is_thrown_away_and_fetched_once_more(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    with serving({"file.bin": CONTENT}) as server:
        assert fetched(server, tmp_path / "file.bin") == CONTENT
    assert server.ranges == ["bytes=1000-", None]


def test_a_server_that_drops_without_telling_a_length_is_continued_to_the_known_size(tmp_path):
    with serving({"file.bin": CONTENT}, "drop no length") as server:
        assert fetched(server, tmp_path / "file.bin", size=len(CONTENT)) == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize("fault", ["corrupt", "truncated"])
def test_a_file_with_another_checksum_is_fetched_once_more(tmp_path, fault):
    with serving({"file.bin": CONTENT}, fault) as server:
        assert fetched(server, tmp_path / "file.bin") == CONTENT
    assert server.ranges == [None, None]


@pytest.mark.parametrize("fault", ["corrupt", "truncated"])
def test_a_file_with_another_checksum_twice_is_refused_with_both_and_deleted(tmp_path, fault):
    wrong = {"corrupt": CONTENT[:100] + bytes([CONTENT[100] ^ 1]) + CONTENT[101:], "truncated": CONTENT[:100_000]}
    with serving({"file.bin": CONTENT}, fault, fault) as server:
        text = refusal(fetched, server, tmp_path / "file.bin")
        assert f"{server.address}/file.bin has the MD5 checksum {hashlib.md5(wrong[fault]).hexdigest()}" in text
    assert f"expected {MD5}" in text
    assert "--mirror" in text
    assert len(server.ranges) == 2
    assert names_in(tmp_path) == []


def test_a_file_that_is_there_is_not_asked_for_again_unless_it_is_another_one(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    with serving({"file.bin": CONTENT}) as server:
        assert fetched(server, path) == CONTENT
        assert server.ranges == []
        path.write_bytes(CONTENT[:-1])
        assert fetched(server, path) == CONTENT
        assert server.ranges == [None]


def test_a_file_that_the_server_calls_encoded_stays_as_it_is(tmp_path):
    with serving({"file.bin": CONTENT}, "coded") as server:
        assert fetched(server, tmp_path / "file.bin") == CONTENT
    assert len(server.ranges) == 1


@pytest.mark.parametrize("status", ["429", "500", "503"])
def test_a_passing_failure_is_waited_for(tmp_path, pauses, status):
    with serving({"file.bin": CONTENT}, status, status) as server:
        assert fetched(server, tmp_path / "file.bin") == CONTENT
    assert pauses == [1.0, 2.0]


def test_a_server_that_brings_nothing_is_given_up_and_the_part_is_kept(tmp_path, pauses):
    with serving({"file.bin": CONTENT}, "drop", *["silent"] * 5) as server:
        text = refusal(fetched, server, tmp_path / "file.bin")
        kept = (tmp_path / "file.bin.part").read_bytes()
        assert CONTENT.startswith(kept)
        assert len(kept) > 80_000
        assert f"{len(kept):,} bytes are kept: run this again to continue" in text
        assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]
        assert len(server.ranges) == 6
        assert fetched(server, tmp_path / "file.bin") == CONTENT
        assert server.ranges[-1] == f"bytes={len(kept)}-"


def test_a_server_that_ignores_ranges_and_always_drops_is_given_up(tmp_path):
    with serving({"file.bin": CONTENT}, *["drop no range"] * 50) as server:
        assert "cannot be fetched now" in refusal(fetched, server, tmp_path / "file.bin")
    assert len(server.ranges) <= 8


def test_no_server_at_all_is_given_up(tmp_path, pauses):
    with serving({}) as server:
        pass
    assert "Connection refused" in refusal(fetched, server, tmp_path / "file.bin")
    assert pauses == list(transfer.PAUSES)


@pytest.mark.parametrize("status", ["404", "403"])
def test_a_file_that_is_not_there_is_refused_at_once(tmp_path, pauses, status):
    with serving({"file.bin": CONTENT}, status) as server:
        text = refusal(fetched, server, tmp_path / "file.bin")
    assert f"HTTP status {status}" in text
    assert f"put file.bin with the MD5 checksum {MD5} into {tmp_path}" in text
    assert (len(server.ranges), pauses) == (1, [])


@pytest.mark.parametrize("address", ["nowhere", "ftp://127.0.0.1/files", "http://"])
def test_what_is_no_address_over_http_is_refused_at_once(tmp_path, pauses, address):
    url = f"{address}/file.bin"
    assert f"{url} cannot be fetched" in refusal(fetch, url, tmp_path / "f", md5=MD5, size=None, on_bytes=quiet)
    assert pauses == []


def test_progress_counts_bytes_up_to_the_whole_file_and_goes_on_after_a_drop(tmp_path):
    told = []
    with serving({"file.bin": CONTENT}, "drop") as server:
        fetched(server, tmp_path / "file.bin", on_bytes=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {len(CONTENT)}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == len(CONTENT)


# Whole data sets


def put_on_the_table(monkeypatch, name, holding):
    monkeypatch.setattr(download_module, "ARCHIVES", {name: holding})


@pytest.mark.parametrize("name", MAKERS)
def test_a_data_set_is_fetched_unpacked_and_read(tmp_path, monkeypatch, name):
    holding, files = archives_of(name, tmp_path / "made")
    put_on_the_table(monkeypatch, name, holding)
    root, told = tmp_path / "data", []
    with serving({f"sets/{file}": content for file, content in files.items()}, "drop") as server:
        assert download(name, root, lambda what, *_: told.append(what), mirror=f"{server.address}/sets/")
    size = 28 if name == "fashion-mnist" else 32
    both = [
        load_splits(DataSettings(name=name, root=folder, stored_size=size, image_size=size))
        for folder in (root, tmp_path / "made")
    ]
    for side in ("train", "test"):
        ours, made = (getattr(splits, side) for splits in both)
        every = torch.arange(len(made))
        assert torch.equal(ours.labels, made.labels)
        assert torch.equal(ours.pixels(every), made.pixels(every))
    # Reading the pixels above made the stores of sets of image files.
    left = [name for name in names_in(root) if name != CACHE_FOLDER]
    assert left == [holding.folder.split("/")[0]], "neither archives nor temporary folders stay"
    assert f"fetching {holding.archives[0].name}" in told


def test_archives_stay_when_they_are_to_be_kept_and_serve_again(tmp_path, monkeypatch):
    holding, files = archives_of("cars", tmp_path / "made")
    put_on_the_table(monkeypatch, "cars", holding)
    root = tmp_path / "data"
    with serving(files) as server:
        download("cars", root, quiet, mirror=server.address, keep=True)
    assert names_in(root) == ["CARS_196", "car_ims.tgz", "cars_annos.mat"]
    (root / "CARS_196").rename(tmp_path / "away")
    assert download("cars", root, quiet, mirror="http://127.0.0.1:9"), "no server is needed"
    assert names_in(root) == ["CARS_196"]


def test_a_data_set_that_is_there_is_left_alone(tmp_path):
    MAKERS["sop"](tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not download("sop", tmp_path, quiet, mirror="http://127.0.0.1:9")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_folder_that_holds_only_some_of_the_set_is_not_touched(tmp_path):
    MAKERS["cub"](tmp_path)
    (tmp_path / "CUB_200_2011" / "images.txt").unlink()
    text = refusal(download, "cub", tmp_path, quiet, mirror="http://127.0.0.1:9")
    assert f"{tmp_path / 'CUB_200_2011'} is there, but not all of cub" in text
    assert "move it away" in text
    assert (tmp_path / "CUB_200_2011" / "image_class_labels.txt").is_file()


def test_an_interrupted_unpacking_leaves_no_set_and_the_next_call_finishes_it(tmp_path, monkeypatch):
    holding, files = archives_of("cub", tmp_path / "made")
    put_on_the_table(monkeypatch, "cub", holding)
    root = tmp_path / "data"
    stopped = []

    def stop_in_the_middle(what, done, total):
        if what.startswith("unpacking") and any(root.rglob("*.jpg")):
            stopped.append(names_in(root))
            raise KeyboardInterrupt

    with serving(files) as server, pytest.raises(KeyboardInterrupt):
        download("cub", root, stop_in_the_middle, mirror=server.address)
    assert stopped == [[".cub.lock", ".cub.unpacking", "CUB_200_2011.tgz"]]
    assert names_in(root) == ["CUB_200_2011.tgz"]
    # What a killed process leaves: half of the files in the temporary folder.
    (root / ".cub.unpacking" / "CUB_200_2011" / "images").mkdir(parents=True)
    (root / ".cub.unpacking" / "CUB_200_2011" / "left").touch()
    assert download("cub", root, quiet, mirror="http://127.0.0.1:9")
    assert names_in(root) == ["CUB_200_2011"]
    assert not (root / "CUB_200_2011" / "left").exists()


@pytest.mark.parametrize("side", ["train", "test"])
def test_archives_that_hold_one_side_only_are_refused(tmp_path, monkeypatch, side):
    MAKERS["sop"](tmp_path / "made")
    (tmp_path / "made" / "Stanford_Online_Products" / f"Ebay_{side}.txt").unlink()
    files = {"Stanford_Online_Products.zip": zipped(tmp_path / "made")}
    put_on_the_table(monkeypatch, "sop", described("sop", files))
    with serving(files) as server:
        text = refusal(download, "sop", tmp_path / "data", quiet, mirror=server.address)
    assert "do not hold all of sop" in text
    assert f"Ebay_{side}.txt" in text
    assert names_in(tmp_path / "data") == ["Stanford_Online_Products.zip"]


def test_a_disk_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "data").write_text("a file where the folder should be")
    text = refusal(download, "cub", tmp_path / "data", quiet, mirror="http://127.0.0.1:9")
    assert str(tmp_path / "data") in text
    assert "--data-root" in text


# Archives that nobody should trust


def tar_member(name, kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


TARS = {
    "parent": tar_member("CUB_200_2011/../../../stolen"),
    "absolute": tar_member("/stolen"),
    "windows": tar_member("..\\..\\stolen"),
    "symbolic link": tar_member("CUB_200_2011/stolen", tarfile.SYMTYPE, "../../../outside"),
    "absolute link": tar_member("CUB_200_2011/stolen", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": tar_member("CUB_200_2011/stolen", tarfile.LNKTYPE, "../../outside"),
    "device": tar_member("CUB_200_2011/stolen", tarfile.CHRTYPE),
    "pipe": tar_member("CUB_200_2011/stolen", tarfile.FIFOTYPE),
}


def zip_member(name, kind=stat.S_IFREG):
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (kind | 0o644) << 16
    return member


ZIPS = {
    "parent": zip_member("Stanford_Online_Products/../../../stolen"),
    "absolute": zip_member("/stolen"),
    "drive": zip_member("C:/stolen"),
    "symbolic link": zip_member("Stanford_Online_Products/stolen", stat.S_IFLNK),
    "device": zip_member("Stanford_Online_Products/stolen", stat.S_IFCHR),
}


def refused_archive(tmp_path, monkeypatch, name, files):
    (tmp_path / "outside").write_text("untouched")
    put_on_the_table(monkeypatch, name, described(name, files))
    with serving(files) as server:
        text = refusal(download, name, tmp_path / "data", quiet, mirror=server.address)
    assert "is not to be trusted" in text
    assert "stolen" in text
    assert names_in(tmp_path) == ["data", "outside"]
    assert names_in(tmp_path / "data") == list(files), "nothing but the archive"
    assert (tmp_path / "outside").read_text() == "untouched"


@pytest.mark.parametrize("kind", TARS)
def test_a_tar_that_leads_outside_is_refused_and_leaves_nothing(tmp_path, monkeypatch, kind):
    content = b"malice" if TARS[kind].isreg() else b""
    refused_archive(tmp_path, monkeypatch, "cub", {"CUB_200_2011.tgz": tar_with(TARS[kind], content)})


@pytest.mark.parametrize("kind", ZIPS)
def test_a_zip_that_leads_outside_is_refused_and_leaves_nothing(tmp_path, monkeypatch, kind):
    files = {"Stanford_Online_Products.zip": zip_with(ZIPS[kind], b"../../outside")}
    refused_archive(tmp_path, monkeypatch, "sop", files)


@pytest.mark.parametrize(("name", "file"), [("cub", "CUB_200_2011.tgz"), ("sop", "Stanford_Online_Products.zip")])
def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path, monkeypatch, name, file):
    _, files = archives_of(name, tmp_path / "made")
    files = {file: files[file][: len(files[file]) // 2]}
    put_on_the_table(monkeypatch, name, described(name, files))
    with serving(files) as server:
        text = refusal(download, name, tmp_path / "data", quiet, mirror=server.address)
    assert f"{tmp_path / 'data' / file} is damaged" in text
    assert names_in(tmp_path / "data") == [file]


def bomb_tar():
    return tar_with(tar_member("CUB_200_2011/zeros"), bytes(30_000_000))


def bomb_zip():
    member = zip_member("Stanford_Online_Products/zeros")
    member.compress_type = zipfile.ZIP_DEFLATED
    return zip_with(member, bytes(30_000_000))


@pytest.mark.parametrize(
    ("name", "file", "make"),
    [("cub", "CUB_200_2011.tgz", bomb_tar), ("sop", "Stanford_Online_Products.zip", bomb_zip)],
)
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch, name, file, make):
    files = {file: make()}
    put_on_the_table(monkeypatch, name, described(name, files))
    with serving(files) as server:
        text = refusal(download, name, tmp_path / "data", quiet, mirror=server.address)
    assert f"its {len(files[file]):,} bytes unpack to 30,000,000 or more" in text
    assert names_in(tmp_path / "data") == [file]


def test_an_encrypted_zip_is_one_line(tmp_path, monkeypatch):
    content = bytearray(zip_with(zip_member("Stanford_Online_Products/a.jpg"), b"x"))
    # The flag of encryption, in the member's own header and in the directory at the end.
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    files = {"Stanford_Online_Products.zip": bytes(content)}
    put_on_the_table(monkeypatch, "sop", described("sop", files))
    with serving(files) as server:
        assert "is encrypted; unpack it by hand" in refusal(
            download, "sop", tmp_path / "data", quiet, mirror=server.address
        )


def test_a_disk_that_fills_during_a_download_is_one_line_and_the_rest_is_fetched_later(tmp_path, monkeypatch):
    holding, files = archives_of("cub", tmp_path / "made")
    monkeypatch.setitem(ARCHIVES, "cub", holding)
    root = tmp_path / "data"
    with serving(files) as server:
        with no_file_longer_than(2000):
            told = refusal(download, "cub", root, quiet, mirror=server.address)
        assert "cannot be written" in told
        assert "File too large" in told
        assert not (root / holding.folder).exists()
        assert download("cub", root, quiet, mirror=server.address)
    assert (root / holding.folder).is_dir()
