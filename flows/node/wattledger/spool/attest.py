"""Signed at the meter: each segment gets a number, the digest of the one before, and the host's signature.

The key lies outside the spool, so it is not fetched with it; only sealing loads it. With it lies the end of the
chain: what is sealed again after a kill keeps its number.

    keys/HOST.json                        0600: the private key, and the last segments that it signed
    SPOOL/HOST/NAME.attest.json           what is signed of SPOOL/HOST/NAME.parquet
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wattledger.files import make_own_folder, read_plain, write_file

FORMAT, ATTESTATION = 1, ".attest.json"
_REMEMBERED = 64
"""Segments whose numbers are remembered: more than one sealing can have to do again."""
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Attestation:
    """What a collector signs of a segment."""

    host: str
    sequence: int
    sha256: str
    previous_sha256: str
    """Of the segment before it; empty for the first."""
    public_key: str
    signature: str = ""

    def as_message(self) -> bytes:
        """The bytes that are signed."""
        lines = (self.host, str(self.sequence), self.sha256, self.previous_sha256)
        return "\n".join(["wattledger segment 1", *lines, ""]).encode()

    def is_genuine(self) -> bool:
        """Whether the holder of the key signed it."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))
            key.verify(bytes.fromhex(self.signature), self.as_message())
        except (InvalidSignature, ValueError):
            return False
        return True

    def as_text(self) -> str:
        return json.dumps({"wattledger_attestation": FORMAT, **asdict(self)}, indent=2)


def attestation_of(segment: Path) -> Path:
    """Where the attestation of a segment lies. It sorts before the segment, so that copies bring it first."""
    return segment.with_name(segment.name.removesuffix(".parquet") + ATTESTATION)


def load_attestation(path: Path) -> Attestation:
    """Read an attestation; its signature is not checked.

    Raises:
        ValueError: the file is none.
        OSError: it cannot be read, or is no regular file.
    """
    try:
        fields = json.loads(read_plain(path, _MOST_BYTES).decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict) or fields.pop("wattledger_attestation", None) != FORMAT:
        raise ValueError("not an attestation of a version known here")
    sequence = fields.get("sequence")
    if type(sequence) is not int or not 0 < sequence < 1 << 62:
        raise ValueError("sequence is no number from 1")
    texts = {name: value for name, value in fields.items() if name != "sequence"}
    wanted = set(Attestation.__dataclass_fields__) - {"sequence"}
    if texts.keys() != wanted or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("fields other than those of an attestation")
    if any("\n" in text or len(text) > 512 for text in texts.values()):
        raise ValueError("a field that is too long, or has several lines")
    return Attestation(sequence=sequence, **texts)


def keys_folder(root: Path) -> Path:
    """Where keys lie: `WATTLEDGER_KEYS`, else beside the spool."""
    return Path(os.environ.get("WATTLEDGER_KEYS") or root.absolute().parent / "keys")


class Signer:
    """The key of a host, and the chain of what it has signed."""

    def __init__(self, path: Path, host: str) -> None:
        """Open the key of a host; the first time, make it.

        Raises:
            OSError: it cannot be made, read, or is another user's.
            ValueError: the file holds no key.
        """
        self._path, self._host = path, host
        make_own_folder(path.parent, 0o700)
        if path.exists() or path.is_symlink():
            self._state: dict[str, Any] = json.loads(read_plain(path, _MOST_BYTES))
        else:
            self._state = {
                "private_key": Ed25519PrivateKey.generate().private_bytes_raw().hex(),
                "segments": [],
            }
            self._save()
        try:
            secret = bytes.fromhex(self._state["private_key"])
            self._key = Ed25519PrivateKey.from_private_bytes(secret)
            self._segments: list[dict[str, Any]] = list(self._state["segments"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} holds no key") from None

    def _save(self) -> None:
        write_file(self._path, json.dumps(self._state), mode=0o600)

    def sign(self, name: str, content: Path) -> Attestation:
        """Sign a segment; one that was signed before gets the same again.

        Args:
            name: The name that the segment will have.
            content: The file, under whatever name.
        """
        with content.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        known = [one for one in self._segments if (one["name"], one["sha256"]) == (name, digest)]
        if known:
            entry = known[0]
        else:
            last: dict[str, Any] = {"sequence": 0, "sha256": ""}
            last = self._segments[-1] if self._segments else last
            entry = {
                "name": name,
                "sequence": last["sequence"] + 1,
                "sha256": digest,
                "previous_sha256": last["sha256"],
            }
            self._segments = [*self._segments, entry][-_REMEMBERED:]
            self._state["segments"] = self._segments
            # The number is taken before anything carries it: none is ever given twice.
            self._save()
        public = self._key.public_key().public_bytes_raw().hex()
        unsigned = Attestation(
            self._host, entry["sequence"], digest, entry["previous_sha256"], public
        )
        signature = self._key.sign(unsigned.as_message()).hex()
        return Attestation(**{**asdict(unsigned), "signature": signature})


@contextmanager
def open_signer(root: Path, host: str) -> Iterator[Signer]:
    """The signer of a host for a `with` block, for one process at a time.

    Args:
        root: The spool.
        host: The host.

    Raises:
        OSError, ValueError: as `Signer`.
    """
    folder = keys_folder(root)
    make_own_folder(folder, 0o700)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(folder / f"{host}.lock", flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Signer(folder / f"{host}.json", host)
    finally:
        os.close(lock)
