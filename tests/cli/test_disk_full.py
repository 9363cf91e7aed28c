"""A disk that is really full in the middle of a study: one line, nothing lost, and the same command goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]
STUDY = (
    f"{sys.executable} -m lightball compare digits --batch-sizes 64 --epochs 2 --stages 6 --tuning-seeds 2 "
    "--lr 0.2,0.4 --max-extensions 1 --compile off --workers 1 --engine process --json"
)
# A tmpfs of its own namespace: too small at first, then larger.
SCRIPT = """
mount -t tmpfs -o size=192k tmpfs disk && {study} --out disk/runs > first.json 2> first.err
echo $? > first.status
ls disk/runs/chunks > kept
mount -o remount,size=16m disk && {study} --out disk/runs > second.json 2> second.err
echo $? > second.status
ls disk/runs/chunks > all
find disk/runs -name '*.tmp' > left
"""


def namespaces_allowed(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    (folder / "probe").mkdir()
    return (
        subprocess.run([*MOUNTS, "mount", "-t", "tmpfs", "tmpfs", str(folder / "probe")], check=False).returncode == 0
    )


def test_full_then_larger(tmp_path: Path) -> None:
    if not namespaces_allowed(tmp_path):
        pytest.skip("no mount namespaces here (unshare): the full disk is not tried")
    (tmp_path / "disk").mkdir()
    alone = subprocess.run(
        [*STUDY.split(), "--out", "alone"], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert alone.returncode == 0, alone.stderr
    script = ["sh", "-c", SCRIPT.format(study=STUDY)]
    subprocess.run([*MOUNTS, *script], cwd=tmp_path, capture_output=True, check=False, timeout=300)

    def text(name: str) -> str:
        return (tmp_path / name).read_text()

    assert text("first.status").strip() == "2"
    assert text("first.json") == ""
    (line,) = text("first.err").splitlines()
    assert line.startswith("lightball: cannot write 'disk/runs/")
    assert line.endswith("No space left on device; make room and run the same command again")
    kept = set(text("kept").split())
    assert kept
    assert text("second.status").strip() == "0", text("second.err")
    assert kept < set(text("all").split())
    assert text("left") == ""
    first, second = (json.loads(value) for value in (alone.stdout, text("second.json")))
    assert second["runs"]["reused"] >= len(kept)
    assert second["batch_sizes"] == first["batch_sizes"]
