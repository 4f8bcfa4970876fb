"""Which assets LIBERO will render: LeRobot's own, or something made for development.

Scores are comparable with published ones only on the former. What is not recognised counts as development.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bridge.libero.installation import cached_assets, missing_assets, package_root
from pirl_jax.files import digest, digest_of_folder

NOTICE = "development assets: scores are not comparable with published LIBERO scores"

_RECORDS = Path(".cache") / "huggingface" / "download"


@dataclass(frozen=True)
class Assets:
    """What an asset folder turned out to be."""

    kind: Literal["lerobot", "development"]
    revision: str | None
    """Commit of the hub's asset repository, for LeRobot's own."""
    reason: str
    """Why it was taken for that."""
    sha256: str | None = None
    """Of all files, where there is no revision that says what they are."""

    @property
    def comparable(self) -> bool:
        """Whether scores can be compared with published ones."""
        return self.kind == "lerobot"


def asset_folder() -> Path:
    """Return the folder that hf-libero will use, in the order in which it looks.

    Raises:
        ValueError: There is none yet.
    """
    cache = cached_assets()
    for folder in (package_root() / "assets", cache):
        if folder.is_dir():
            return folder
    raise ValueError(
        f"LIBERO's assets are missing: there is no {cache}. Run pirl-libero-setup to fetch them."
    )


def identify(folder: Path) -> Assets:
    """Tell LeRobot's own assets from others.

    LeRobot's are downloaded by ``huggingface_hub``, which leaves, for every file, a record of the commit and
    of the content's hash. They are recognised when every file has a record of one commit and its hash is the
    file's; one replaced or added file makes the folder a development one.
    """

    def development(reason: str) -> Assets:
        return Assets("development", None, reason, digest_of_folder(folder))

    missing = missing_assets(folder)
    if missing:
        return development(f"{', '.join(missing)} missing")
    if not (folder / _RECORDS).is_dir():
        return development("not downloaded from the hub")
    commits = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir() or name.parts[0].startswith("."):
            continue
        record = folder / _RECORDS / f"{name}.metadata"
        try:
            commit, etag, _ = record.read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return development(f"{name} has no record of a download")
        if _hash(path, etag) != etag:
            return development(f"{name} is not what was downloaded")
        commits.add(commit)
    if len(commits) != 1:
        return development(f"files of {len(commits)} revisions")
    revision = commits.pop()
    return Assets("lerobot", revision, f"hub download, revision {revision}")


def _hash(path: Path, etag: str) -> str:
    """Return the hash of the kind that the hub's etag is: SHA-256 of large files, else git's blob id."""
    if len(etag) == 64:
        return digest(path)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
