"""A process that ends with a simulator built says nothing that looks like trouble."""

import os
import subprocess
import sys

CODE = """
from bridge.libero.demonstrate import environment
from bridge.libero.suites import select_tasks
env = environment(select_tasks("libero_object", [0])[0], 64)
env.reset(seed=0, options={"task": 0, "init_state": 0})
print("the end")
"""


def test_no_egl_error_at_a_normal_end():
    environment = os.environ | {"MUJOCO_GL": "egl"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "the end")
    assert "EGLError" not in done.stderr
    assert "Traceback" not in done.stderr
