"""Refusing pickled content, by name and by content, before it is stored and after it is fetched.

lorid never unpickles anything; this keeps such files away from tools that would. Refused are the
usual suffixes; pickles of protocol 2 to 5 by their first bytes, also when compressed; zip and
legacy tar archives, which is what `torch.save` and `numpy.savez` write; numpy arrays of objects.
Pickles of protocol 0 and 1 begin with nothing special: a file is refused when all of it is valid
pickle code that calls something, which is exact (text, JSON and safetensors are not such code).
"""

import bz2
import gzip
import lzma
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from lorid.errors import ArtifactDrifted

PICKLED_SUFFIXES = {
    ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npz", ".dill",
}  # fmt: skip
PICKLE_MAGIC = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
ARCHIVE_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
NUM_HEAD_BYTES = 512
MAX_OPCODES = 10_000
_NAMES_A_GLOBAL = {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}
_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}
_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}


def refuse_pickle(path: Path) -> None:
    """Raise when a file is pickled or an archive.

    Raises:
        ArtifactDrifted: it is.
        OSError: it cannot be read.
    """
    if path.suffix.lower() in PICKLED_SUFFIXES or _is_pickled(path):
        raise ArtifactDrifted(f"{path.name} is pickled or archived; only plain files are stored")


def _is_pickled(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(NUM_HEAD_BYTES)
    if _is_refused_head(head) or _is_refused_head(_unpacked_head(path, head)):
        return True
    # torch's reader and others find a zip by its end, whatever comes first.
    return zipfile.is_zipfile(path) or _is_calling_code(path)


def _is_refused_head(head: bytes) -> bool:
    is_object_array = head.startswith(b"\x93NUMPY") and b"|O" in head[:256]
    is_tar = head[257:262] == b"ustar"
    return head.startswith(PICKLE_MAGIC + ARCHIVE_MAGIC) or is_object_array or is_tar


def _unpacked_head(path: Path, head: bytes) -> bytes:
    if head[:1] == b"\x78":  # zlib, as joblib writes it
        try:
            return zlib.decompressobj().decompress(head, NUM_HEAD_BYTES)
        except zlib.error:
            return b""
    for magic, opener in _OPENERS.items():
        if head.startswith(magic):
            try:
                with opener(path) as file:
                    return file.read(NUM_HEAD_BYTES)
            except (OSError, EOFError, lzma.LZMAError, zlib.error):
                return b""
    return b""


def _is_calling_code(path: Path) -> bool:
    """Whether the file is pickle code to its STOP, and calls something by name on the way."""
    has_global = has_call = False
    with path.open("rb") as file:
        try:
            for count, (opcode, _, _) in enumerate(pickletools.genops(_Bounded(file))):
                has_global |= opcode.name in _NAMES_A_GLOBAL
                has_call |= has_global and opcode.name in _CALLS
                if count >= MAX_OPCODES:
                    return True
        except Exception:  # whatever the parser trips over: it is not pickle code
            return False
    return has_call


class _Bounded(BytesIO):
    """A file for the parser, which refuses arguments that are longer than any real one's text."""

    MAX_LINE = 65_536

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file

    def read(self, size: int | None = -1, /) -> bytes:
        return self.file.read(-1 if size is None else size)

    def readline(self, size: int | None = -1, /) -> bytes:
        line = self.file.readline(self.MAX_LINE)
        if len(line) == self.MAX_LINE:
            raise ValueError("no pickle has such a line")
        return line

    def tell(self) -> int:
        return self.file.tell()
