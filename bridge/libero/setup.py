"""``pirl-libero-setup``: make LIBERO ready without questions, and say what is still missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bridge.command.help import Parser
from bridge.libero import installation
from bridge.libero.installation import LiberoError
from pirl_jax.ending import end_on_signal

_MORE = """Writes LIBERO's config file, finds or downloads the assets, tries the off-screen renderers and
draws one frame; asks nothing. Each line is one thing checked; where one failed, the command that fixes it
follows."""
RENDERERS = ("egl", "osmesa")
_TIMEOUT = 300.0  # seconds for a frame; the first import of LIBERO compiles for a while

_PACKAGES = {
    "egl": "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri  (or a GPU driver with EGL)",
    "osmesa": "apt-get install libosmesa6",
}

_DRAW_NOTHING = "import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 16, 16).render()"

_DRAW_FRAME = """
import sys
import imageio.v3 as imageio
from bridge.libero.tasks import libero

env = libero.LiberoEnv(
    libero._get_suite("libero_spatial"), 0, "libero_spatial", obs_type="pixels_agent_pos",
    observation_height=256, observation_width=256,
)
observation, _ = env.reset(seed=0)
image = observation["pixels"]["image"][::-1, ::-1]
env.close()
if image.std() < 1:
    sys.exit("the image is empty")
imageio.imwrite(sys.argv[1], image)
"""


def link_assets(folder: Path) -> Path:
    """Make the place of LIBERO's own download a link to a local folder; returns the place.

    Processes without this package (``lerobot-eval``) look there: they ignore the config file's entry.

    Raises:
        LiberoError: There are other assets already.
    """
    link = installation.cached_assets()
    installation.clear_remains(link)
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise LiberoError(
            f"{link} already holds assets, which LeRobot alone would go on using. Use them (run "
            f"{installation.SETUP} without --assets), or move them away: mv {link} {link}.old"
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder.resolve(), target_is_directory=True)
    return link


def configure(assets: Path | None) -> Path:
    """Write the config file for the assets given, or for LIBERO's own; returns the assets' folder.

    Raises:
        LiberoError: Something is missing.
    """
    installation.package_root()
    if assets is not None:
        if missing := installation.missing_assets(assets):
            raise LiberoError(f"{assets} is no folder of LIBERO's assets: it lacks {', '.join(missing)}.")
        inside = installation.package_root() / "assets"
        if inside.exists():
            raise LiberoError(f"{inside} would win over --assets. Move it away: mv {inside} {inside}.old")
        link_assets(assets)
    installation.write_config(assets)
    return installation.find_assets()


def working_renderers() -> list[str]:
    """Return those of ``RENDERERS`` that draw here, each tried in a process of its own."""
    return [name for name in RENDERERS if _run(_DRAW_NOTHING, name) is None]


def draw_frame(renderer: str, path: Path) -> str | None:
    """Draw a task's first frame into a PNG in a process of its own; returns what went wrong, if anything."""
    return _run(_DRAW_FRAME, renderer, str(path))


def _run(program: str, renderer: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=os.environ | {"MUJOCO_GL": renderer},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {_TIMEOUT:.0f} s; run this again when the machine is less busy"
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return None if done.returncode == 0 else lines[-1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = Parser("setup", prog=installation.SETUP, description=_MORE)
    parser.add_argument(
        "--assets", type=Path, help="a local folder of LIBERO's assets; without it they are downloaded once"
    )
    options = parser.parse_args(arguments)
    end_on_signal("; the same command goes on")
    if options.assets is None and installation.missing_assets(installation.cached_assets()):
        print("LIBERO looks for its assets, and downloads them where there are none", flush=True)
    try:
        assets = configure(options.assets)
    except (LiberoError, OSError) as error:
        sys.exit(f"missing: {error}")
    print(f"ok       config    {installation.config_file()}")
    print(f"ok       assets    {assets}", flush=True)

    renderers = working_renderers()
    for name in RENDERERS:
        fix = "" if name in renderers else f"does not draw; to have it: {_PACKAGES[name]}"
        print(
            f"{'ok      ' if name in renderers else 'missing '} renderer  {name} {fix}".rstrip(), flush=True
        )
    if not renderers:
        sys.exit("missing: LIBERO needs one of the renderers above.")
    chosen = os.environ.get("MUJOCO_GL", "")
    renderer = chosen if chosen in renderers else renderers[0]
    frame = installation.config_file().parent / "first_frame.png"
    print("drawing the first frame of a task", flush=True)
    if problem := draw_frame(renderer, frame):
        sys.exit(f"missing: no frame could be drawn with MUJOCO_GL={renderer}: {problem}")
    print(f"ok       frame     {frame}")
    print(f"LIBERO is ready. Run with: export MUJOCO_GL={renderer}")


if __name__ == "__main__":
    main()
