"""The demo plays to its end: every check it makes holds."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.support.system import EXTERNAL

from embedded import state

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(bool(EXTERNAL), reason="the demo starts a stack of its own")]
HALLMARK = str(Path(sys.executable).with_name("hallmark"))


def test_the_demo_plays_to_its_end() -> None:
    data = Path(tempfile.mkdtemp(prefix="hallmark-demo-"))  # not pytest's: PostgreSQL's user must reach it
    try:
        command = [HALLMARK, "demo", "--kafka", "tansu", "--data-dir", str(data)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=270, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "checks held" in done.stdout
        known = state.read(data)
        assert known is not None
        assert not known.running()
    finally:
        subprocess.run([HALLMARK, "down", "--data-dir", str(data)], capture_output=True, timeout=100, check=False)
        shutil.rmtree(data, ignore_errors=True)
