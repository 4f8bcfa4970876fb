"""``pirl-eval``: evaluate a checkpoint on LIBERO with ``lerobot-eval``, or put evaluations together."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from bridge.command.help import Parser
from bridge.evaluate import compare as comparing
from bridge.evaluate import report as reporting
from bridge.evaluate.aggregate import files as aggregate_files
from bridge.evaluate.aggregate.content import aggregate
from bridge.evaluate.benchmark import MATRIX, check_configured
from bridge.evaluate.page.films import GRID, write_grid
from bridge.evaluate.run import TasksFailedError, evaluate
from bridge.evaluate.settings import CONTROL_MODES, Checkpoint, Settings, fingerprint, group_tasks
from bridge.evaluate.trained import unlike_training
from bridge.libero.installation import package_root
from bridge.libero.suites import SUITES
from pirl_jax.console.log import log_to_console
from pirl_jax.ending import in_one_line
from pirl_jax.training.metrics import read as read_metrics

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"suites": ("libero_object",), "n_episodes": 3},
    "matrix": {"suites": MATRIX, "n_episodes": 50},
}

_MORE = """Evaluates a LeRobot checkpoint with lerobot-eval, or puts evaluations together. Arguments after --
go to lerobot-eval as they are. The same command continues an evaluation that was interrupted."""
_FORESEEN = (ValueError, OSError, RuntimeError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pirl-eval``; return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("--") if "--" in argv else len(argv)
    arguments, passed_on = argv[:split], argv[split + 1 :]
    options = _parser().parse_args(arguments)
    log_to_console()
    for ending in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: shells ignore it in background jobs
        signal.signal(ending, _interrupt)
    try:
        if options.compare:
            return _compare(options, passed_on)
        if options.aggregate:
            return _aggregate(options, passed_on)
        return _evaluate(options, passed_on, argv)
    except _FORESEEN as error:
        print(f"pirl-eval: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pirl-eval: interrupted", file=sys.stderr)
        return 130


def _evaluate(options: argparse.Namespace, passed_on: Sequence[str], argv: Sequence[str]) -> int:
    if options.checkpoint is None:
        raise ValueError("give the checkpoint to evaluate, --compare A B, or --aggregate RUN RUN ….")
    if options.metrics is not None:
        raise ValueError("--metrics belongs to --compare A B; evaluating a checkpoint does not read it.")
    if options.baseline:
        raise ValueError(
            "--baseline belongs to --aggregate RUN RUN …; evaluating a checkpoint does not read it."
        )
    preset = PRESETS.get(options.preset, {})
    suites, n_episodes = (
        options.suites or preset.get("suites"),
        options.n_episodes or preset.get("n_episodes"),
    )
    if not suites or not n_episodes:
        raise ValueError("say what to evaluate: --preset, or --suites and --n_episodes.")
    if options.processes < 1:
        raise ValueError(f"--processes must be at least 1; got {options.processes}.")
    package_root()
    check_configured()
    settings = Settings.make(
        Checkpoint.read(Path(options.checkpoint)),
        n_episodes=n_episodes,
        seed=options.seed,
        control_mode=options.control_mode,
        episode_length=options.episode_length,
        batch_size=options.batch_size,
        tasks_per_process=options.tasks_per_process,
        arguments=passed_on,
    )
    groups = group_tasks(suites, options.tasks, settings.tasks_per_process)
    identity = settings.identity()
    default = Path("outputs/eval") / f"{settings.checkpoint.label}-{fingerprint(identity)[:8]}"
    output_dir: Path = options.output_dir or default
    tasks = sum(len(group.task_ids) for group in groups)
    print(f"{settings.checkpoint.path}: {tasks * n_episodes} episodes, {n_episodes} of each task")
    for differs in unlike_training(settings, suites):
        print(f"not as the run that made this policy: {differs}")
    print(f"results go to {output_dir}/", flush=True)
    # `last` may have moved by then, and a default folder may depend on what is installed.
    again = [str(settings.checkpoint.path) if word == options.checkpoint else word for word in argv]
    if options.output_dir is None:
        again.insert(0, f"--output_dir={output_dir}")
    failed = {}
    with in_one_line(output_dir, _FORESEEN):
        try:
            results = evaluate(settings, identity, groups, output_dir, options.processes)
        except TasksFailedError as error:
            print(f"pirl-eval: {error}", file=sys.stderr)
            results, failed = error.finished, error.failed
        except KeyboardInterrupt:
            _say_how_to_continue(output_dir, again)
            raise
        if failed:
            _say_how_to_continue(output_dir, again)
        if results:
            _report(reporting.make_report(settings, identity, results, failed), output_dir)
    return 1 if failed else 0


def _say_how_to_continue(output_dir: Path, again: Sequence[str]) -> None:
    print(
        f"pirl-eval: stopping; results so far are in {output_dir}/. Continue with:\n"
        f"  {shlex.join(['pirl-eval', *again])}",
        file=sys.stderr,
    )


def _report(report: dict[str, Any], output_dir: Path) -> None:
    try:
        write_grid(report, output_dir)
    except (ValueError, OSError) as error:  # the report is complete without it
        print(f"pirl-eval: no film of all episodes: {error}", file=sys.stderr)
    reporting.write_report(report, output_dir)
    print(f"\n{reporting.summary(report)}\n")
    if report["notice"]:
        print(f"{report['notice']}\n")
    files = [reporting.JSON, reporting.MARKDOWN, reporting.PICTURE, reporting.PAGE]
    files += [GRID] * (output_dir / GRID).is_file()
    print(f"report: {output_dir}/", *files, sep="\n  ")


def _refuse_unread(options: argparse.Namespace, passed_on: Sequence[str], read: Sequence[str]) -> None:
    """Refuse options that say how to evaluate: nothing is. What is read is given, the command first."""
    default = vars(_parser().parse_args([]))
    used = (*read, "output_dir")
    unread = [name for name, value in vars(options).items() if name not in used and value != default[name]]
    if unread or passed_on:
        names = [name if name == "checkpoint" else f"--{name}" for name in unread] + list(passed_on)
        raise ValueError(f"{', '.join(names)} would do nothing: --{read[0]} evaluates nothing. Leave it out.")


def _compare(options: argparse.Namespace, passed_on: Sequence[str]) -> int:
    _refuse_unread(options, passed_on, ("compare", "metrics"))
    a, b = options.compare
    comparison = comparing.compare(a, b)
    output_dir: Path = options.output_dir or b / f"compared-with-{a.resolve().name}"
    updates = []
    if options.metrics is not None:
        updates = read_metrics(options.metrics)
        if not updates:
            raise ValueError(f"{options.metrics} holds no update; --metrics takes a run's metrics.jsonl.")
    files = comparing.write_comparison(comparison, output_dir, updates)
    print(comparing.markdown(comparison))
    print(f"comparison: {output_dir}/", *files, sep="\n  ")
    return 0


def _aggregate(options: argparse.Namespace, passed_on: Sequence[str]) -> int:
    _refuse_unread(options, passed_on, ("aggregate", "baseline"))
    folders, baseline = options.aggregate, options.baseline or ()
    content = aggregate(folders, baseline)
    first = folders[0].resolve()
    name = f"aggregate-{first.name}-{fingerprint({side: content[side] for side in ('runs', 'baseline')})[:8]}"
    output_dir: Path = options.output_dir or first.parent / name
    files = aggregate_files.write_aggregate(content, output_dir)
    for warning in content["warnings"]:
        print(f"warning: {warning}")
    print(f"\n{aggregate_files.title(content)}\n\n{aggregate_files.summary(content)}\n")
    if content["notice"]:
        print(f"{content['notice']}\n")
    print(f"aggregate: {output_dir}/", *files, sep="\n  ")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("eval", prog="pirl-eval", description=_MORE)
    parser.add_argument("checkpoint", nargs="?", help="folder, as …/checkpoints/000010/pretrained_model")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="; ".join(
            f"{name}: {', '.join(preset['suites'])}, {preset['n_episodes']} episodes a task"
            for name, preset in PRESETS.items()
        ),
    )
    parser.add_argument("--suites", type=_names, help=f"comma-separated, of {', '.join(SUITES)}")
    parser.add_argument(
        "--tasks", type=_numbers, help="comma-separated task ids, of every suite; default: all"
    )
    parser.add_argument("--n_episodes", type=int, help="of each task")
    parser.add_argument("--seed", type=int, default=1000, help="of each task's first episode (default: 1000)")
    parser.add_argument(
        "--control_mode", choices=CONTROL_MODES, help="default: absolute for X-VLA, else relative"
    )
    parser.add_argument("--episode_length", type=int, help="steps; default: 800 for X-VLA, else LeRobot's")
    parser.add_argument("--batch_size", type=int, default=1, help="environments a process steps together")
    parser.add_argument("--tasks_per_process", type=int, default=1, help="tasks one lerobot-eval evaluates")
    parser.add_argument("--processes", type=int, default=1, help="lerobot-eval processes at a time")
    parser.add_argument(
        "--output_dir", type=Path, help="default: a folder in outputs/eval for these settings"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="two folders with a report; evaluates nothing",
    )
    parser.add_argument(
        "--aggregate",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folders with a report, of several training runs (and of their suites); evaluates nothing",
    )
    parser.add_argument(
        "--baseline",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="with --aggregate: folders of the runs to be better than, as of the policy before training",
    )
    parser.add_argument(
        "--metrics",
        type=Path,
        help="with --compare: metrics.jsonl of the run that led from A to B; draws its learning curve",
    )
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
