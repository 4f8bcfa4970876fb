"""Where compiled programs are kept."""

import jax
import pytest

from pirl_jax.training import compilations


@pytest.fixture
def told():
    """Restores what JAX has been told."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_for_a_gpu_are_kept_and_those_for_a_cpu_are_not(monkeypatch, tmp_path, told):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    assert compilations.keep_on_disk() is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compilations.keep_on_disk() == tmp_path / "pirl_jax" / "compiled"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "pirl_jax" / "compiled")


def test_a_folder_that_jax_was_given_stays(monkeypatch, tmp_path, told):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert compilations.keep_on_disk() is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
