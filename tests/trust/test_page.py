"""docs/security.md: its commands make what a run needs, and the tests that it names are there."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pirl_jax.recipe import SecurityConfig

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_the_commands_make_what_a_run_needs(tmp_path, listen, say):
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    assert "IP:10.0.0.5" in commands
    script = f"set -e\n{commands}".replace("10.0.0.5", "127.0.0.1")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    made = {
        "tls_ca": "ca.pem",
        "tls_certificate": "server.pem",
        "tls_key": "server.key",
        "token_file": "token",
    }
    security = SecurityConfig(**{name: str(tmp_path / file) for name, file in made.items()})
    assert say(f"127.0.0.1:{listen(security)}", security) == b"hello"
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`([a-z_0-9/]+\.py::\w+)`", PAGE))))
def test_what_is_said_to_hold_is_tested(named):
    file, _, name = named.partition("::")
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_threat_names_a_test():
    table = PAGE.partition("## What holds against whom")[2].partition("##")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    assert all(re.search(r"\| `.+\.py::\w+` \|$", row) for row in rows)
