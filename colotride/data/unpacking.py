"""Archives taken apart without trusting what they name their members."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from colotride.data.transfer import OnBytes
from colotride.errors import DataError


def unpack(archive: Path, folder: Path, on_bytes: OnBytes) -> None:
    """Unpack a .tgz or .zip into a folder, which is made; any other file is copied there.

    Args:
        archive: the file.
        folder: where its members go. What was unpacked before a refusal stays: give a folder that can be thrown away.
        on_bytes: told how many bytes of the archive are done, of how many.

    Raises:
        DataError: a member would land, or a link lead, outside the folder; it is a device; the archive is damaged.
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
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive} is damaged ({error}); delete it and run this again") from None


def _unpack_tar(archive: Path, folder: Path, on_bytes: OnBytes) -> None:
    total = archive.stat().st_size

    def allowed(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
        _check_name(archive, member.name)
        on_bytes(file.tell(), total)
        return tarfile.data_filter(member, target)

    with archive.open("rb") as file, tarfile.open(fileobj=file) as content:
        content.extractall(str(folder), filter=allowed)


def _unpack_zip(archive: Path, folder: Path, on_bytes: OnBytes) -> None:
    total, done = archive.stat().st_size, 0
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            _check_name(archive, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, f"{member.filename!r} is a link or a device")
            content.extract(member, folder)
            done += member.compress_size
            on_bytes(done, total)


def _check_name(archive: Path, name: str) -> None:
    """Refuse absolute names and `..`: both readers would quietly put such a member elsewhere than it says."""
    if any(path.is_absolute() or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name))):
        raise _refused(archive, f"{name!r} leads outside the folder")


def _refused(archive: Path, reason: str) -> DataError:
    return DataError(f"{archive} is not to be trusted ({reason}) and was not unpacked; delete it, fetch it elsewhere")
