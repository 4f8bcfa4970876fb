"""``pirl-watch outputs/train``: a run that learns, or has learned, as a page in a browser on this machine."""

from __future__ import annotations

import argparse
import signal
import sys
import webbrowser
from pathlib import Path

from bridge.command.help import Parser
from pirl_jax.files import write_text
from pirl_jax.run_folder.layout import METRICS

PORT = 8765
_MORE = f"""It reads the run's files, changes nothing, and needs neither the run's processes nor a network.
The page follows a run that goes on. From another machine:
ssh -L {PORT}:127.0.0.1:{PORT} <this one>, then the same address."""
_LOOKED_FOR = 3
"""Folders that are named where a run lies deeper."""


def main() -> None:
    """Run the command line."""
    options = _parsed()
    folder = Path(options.folder)
    try:
        _check(folder)
        if options.export:
            _export(folder, Path(options.export))
        else:
            _serve(folder, options.port, options.open)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _parsed() -> argparse.Namespace:
    parser = Parser("watch", prog="pirl-watch", description=_MORE)
    parser.add_argument("folder", help="the run's output_dir: where its metrics.jsonl is, or will be")
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"on 127.0.0.1; 0 takes a free one (default: {PORT})"
    )
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    parser.add_argument(
        "--export", metavar="FILE", help="write the run as it stands to one HTML file, and end"
    )
    return parser.parse_args()


def _check(folder: Path) -> None:
    """Make sure that there is a folder which is, or may become, a run's.

    Raises:
        ValueError: There is none; says what to give.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}. Give the output_dir of a run.")
    if (folder / METRICS).exists():
        return
    deeper = sorted(str(path.parent) for path in folder.glob(f"*/{METRICS}"))
    if deeper:
        raise ValueError(
            f"{folder} has no {METRICS}, and is no run. There are runs in it: "
            + ", ".join(deeper[:_LOOKED_FOR])
        )


def _serve(folder: Path, port: int, browse: bool) -> None:
    from bridge.watch.run import Run
    from bridge.watch.server import Server

    if not 0 <= port < 1 << 16:
        raise ValueError(f"--port must be from 0 to 65535; got {port}.")
    try:
        server = Server(Run(folder), port)
    except OSError as error:
        raise ValueError(
            f"cannot listen on port {port} ({error.strerror}). "
            "Another page may be there: give --port=0 for a free one."
        ) from error
    with server:
        print(f"{folder} is shown at {server.address} (Ctrl-C ends the page; the run goes on)", flush=True)
        if browse:
            webbrowser.open(server.address)
        server.serve_forever()


def _export(folder: Path, file: Path) -> None:
    from bridge.watch.export import export
    from bridge.watch.run import Run

    if file.suffix not in (".html", ".htm"):
        raise ValueError(f"--export={file} must end in .html.")
    text = export(Run(folder))
    write_text(file, text)
    print(f"{folder} as it stands is in {file} ({len(text) / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
