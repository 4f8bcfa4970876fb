"""Only what the hub delivered, unchanged, counts as LeRobot's own assets."""

import hashlib
import shutil

import pytest
from huggingface_hub._local_folder import write_download_metadata

from bridge.evaluate.assets import identify

COMMIT = "1234567890abcdef1234567890abcdef12345678"
FILES = {
    "README.md": b"assets",
    "articulated_objects/stove.xml": b"<mujoco/>",
    "stable_scanned_objects/bowl.xml": b"<mujoco></mujoco>",
    "turbosquid_objects/mug/visual/mug.msh": b"\0" * 2000,
    "stable_hope_objects/soup.xml": b"",
    "scenes/floor.xml": b"<mujoco/>",
    "textures/wood.png": b"png",
}


@pytest.fixture
def download(tmp_path):
    """A folder as huggingface_hub leaves it: small files by git's blob id, large ones by SHA-256."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
        if name.endswith(".msh"):
            etag = hashlib.sha256(content).hexdigest()
        else:
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        write_download_metadata(tmp_path, name, COMMIT, etag)
    return tmp_path


def test_a_download_from_the_hub_is_recognised_with_its_revision(download):
    assets = identify(download)
    assert (assets.kind, assets.revision, assets.comparable) == ("lerobot", COMMIT, True)


@pytest.mark.parametrize("name", [name for name in FILES if name != "README.md"])
def test_one_changed_file_makes_them_development_assets(download, name):
    (download / name).write_bytes(FILES[name] + b" ")
    assets = identify(download)
    assert (assets.kind, assets.revision, assets.comparable) == ("development", None, False)
    assert name in assets.reason


def test_an_added_file_makes_them_development_assets(download):
    (download / "scenes" / "mine.xml").write_text("<mujoco/>")
    assert "scenes/mine.xml has no record" in identify(download).reason


def test_two_revisions_are_development_assets(download):
    etag = hashlib.sha1(b"blob 6\0assets").hexdigest()
    write_download_metadata(download, "README.md", COMMIT[::-1], etag)
    assert identify(download).reason == "files of 2 revisions"


def test_a_copy_without_the_hubs_records_is_a_development_folder(download):
    shutil.rmtree(download / ".cache")
    assert identify(download).reason == "not downloaded from the hub"


def test_an_incomplete_folder_is_a_development_folder(download):
    shutil.rmtree(download / "scenes")
    assert identify(download).reason == "scenes missing"


def test_other_development_assets_are_other_assets(download):
    """Not by why they are none of LeRobot's alone, which may be the same."""
    shutil.rmtree(download / ".cache")
    before = identify(download)
    (download / "textures" / "wood.png").write_bytes(b"paint")
    after = identify(download)
    assert before.reason == after.reason
    assert before != after
