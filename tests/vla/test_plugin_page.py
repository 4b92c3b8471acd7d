"""The examples of docs/plugins.md run as they stand, and their members do what the page says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In a process of its own: the members that the page defines are known to it for good.
PROGRAM = """
import re, sys
from pathlib import Path
import torch
from fakes import CAMERAS, fake_images
from vla import FrozenEncoder, Stream
from vla.embed.encoders.encoder_family import ENCODERS
from vla.policy.trunks.trunk import TRUNKS

page = {"__name__": "page"}
for code in re.findall(r"```python\\n(.*?)```", Path("docs/plugins.md").read_text(), flags=re.S):
    exec(compile(code, "docs/plugins.md", "exec"), page)
frames = {camera: fake_images(seed, 2) for seed, camera in enumerate(CAMERAS)}
for name, due in (("colour_grid", dict.fromkeys(CAMERAS, (2, 16, 3))), ("scene", {"scene": (2, 1, 3)})):
    frozen = FrozenEncoder.load(ENCODERS.parse({"type": name, "device": "cpu"}), CAMERAS)
    assert {stream: tuple(values.shape) for stream, values in frozen.encode(frames).items()} == due
trunk = TRUNKS.parse("flat").build(Stream(name="top", kind="tokens", dtype="float16", shape=(16, 3)), 8)
assert trunk(torch.zeros(2, 2, 16, 3)).shape == (2, 2, 1, 8)
"""


@pytest.mark.slow
def test_the_examples_of_the_page_run_and_their_members_are_found_by_name() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
