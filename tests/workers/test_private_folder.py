"""What a killed private stack leaves behind is removed; whatever else begins with our name is the user's."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from k2think.workers.private_folder import PREFIX, private_folder, remove_leftovers

OWNER = """
import time
from k2think.workers.private_folder import private_folder
with private_folder() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that takes the place of /tmp, here and in processes started from here."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_what_is_no_leftover_stays(temporary: Path) -> None:
    long_ago = time.time() - 86_400
    for name in ("k2think-data", "k2think-main", "k2think-evidence-x1", f"{PREFIX}of-the-user"):
        (temporary / name).mkdir()
        (temporary / name / "precious").write_text("data")
    with private_folder() as mine:
        for folder in temporary.iterdir():
            os.utime(folder, (long_ago, long_ago))
        before = sorted(temporary.rglob("*"))

        remove_leftovers()

        assert sorted(temporary.rglob("*")) == before
    assert not mine.exists()


def test_the_folder_of_a_killed_owner_is_removed_and_that_of_a_living_one_is_not(temporary: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            folder = Path(owner.stdout.readline().strip())
            assert folder.parent == temporary
            remove_leftovers()
            assert folder.exists()
        finally:
            owner.send_signal(signal.SIGKILL)
    assert folder.exists()

    remove_leftovers()

    assert not folder.exists()


def test_a_link_leads_nowhere(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with private_folder() as mine:
        [marker] = mine.iterdir()
        (elsewhere / marker.name).touch()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)

    remove_leftovers()

    assert elsewhere.is_dir()
    assert list(elsewhere.iterdir())
