"""Unpacking archives without trusting their content."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from colotride.data.transfer import OnBytes
from colotride.errors import DataError

ENCRYPTED = 0x1
"""Flag of an encrypted member of a zip archive."""
MOST_GROWTH = 10
"""How many times its own size an archive may unpack to. Photographs are compressed already and hardly grow."""
ALWAYS_ALLOWED = 1 << 24
"""Bytes that any archive may unpack to."""


def unpack(archive: Path, folder: Path, on_bytes: OnBytes) -> None:
    """Unpack a .tgz or .zip into a folder, which is made; any other file is copied there.

    Args:
        archive: the file.
        folder: where its members go. What was unpacked before a refusal stays: give a folder that can be deleted.
        on_bytes: called with the bytes of the archive that are done, and their total.

    Raises:
        DataError: a member would land, or a link lead, outside the folder; it is a device; the archive is damaged or
            encrypted, or unpacks to far more than its own size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if archive.suffix == ".zip":
            _unpack_zip(archive, folder, on_bytes)
        elif archive.suffix == ".tgz":
            _unpack_tar(archive, folder, on_bytes)
        else:
            shutil.copyfile(archive, folder / archive.name)
    except tarfile.FilterError as error:
        raise _refused(archive, str(error)) from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive} is damaged ({error}); delete it and run this again") from None


def _unpack_tar(archive: Path, folder: Path, on_bytes: OnBytes) -> None:
    total, unpacked = archive.stat().st_size, 0

    def allowed(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
        nonlocal unpacked
        _check_name(archive, member.name)
        unpacked += member.size
        _check_growth(archive, unpacked, total)
        on_bytes(file.tell(), total)
        return tarfile.data_filter(member, target)

    with archive.open("rb") as file, tarfile.open(fileobj=file) as content:
        content.extractall(str(folder), filter=allowed)


def _unpack_zip(archive: Path, folder: Path, on_bytes: OnBytes) -> None:
    total, done = archive.stat().st_size, 0
    with zipfile.ZipFile(archive) as content:
        _check_growth(archive, sum(member.file_size for member in content.infolist()), total)
        for member in content.infolist():
            _check_name(archive, member.filename)
            if member.flag_bits & ENCRYPTED:
                raise DataError(
                    f"{archive} is encrypted; unpack it by hand, or replace it with an archive that needs no password"
                )
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, f"{member.filename!r} is a link or a device")
            content.extract(member, folder)
            done += member.compress_size
            on_bytes(done, total)


def _check_growth(archive: Path, unpacked: int, size: int) -> None:
    """Refuse archives that would fill the disk: real ones hold compressed images."""
    if unpacked > max(MOST_GROWTH * size, ALWAYS_ALLOWED):
        raise _refused(archive, f"its {size:,} bytes unpack to {unpacked:,} or more")


def _check_name(archive: Path, name: str) -> None:
    """Refuse absolute names and `..`: both readers would silently write such a member somewhere else."""
    if any(path.is_absolute() or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name))):
        raise _refused(archive, f"{name!r} leads outside the folder")


def _refused(archive: Path, reason: str) -> DataError:
    return DataError(f"{archive} is not to be trusted ({reason}) and was not unpacked; delete it, fetch it elsewhere")
