"""``pirl-card CHECKPOINT``: the model card of a policy, and with ``--push`` both on the Hugging Face Hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bridge.command.help import Parser
from pirl_jax.console.log import log_to_console
from pirl_jax.ending import end_on_signal

_MORE = """The card is LeRobot's kind of README.md: task, recipe with what differs from its preset, what the
policy began with, success with intervals, the run's learning curve. Figures are of a report of
pirl-eval that is of just this policy: one that is given, or lies beside the run."""


def main() -> None:
    """Run the command line."""
    options = _parser().parse_args()
    end_on_signal("; the policy is as it was, the same command begins anew")
    log_to_console()
    try:
        _run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser("card", prog="pirl-card", description=_MORE)
    parser.add_argument(
        "checkpoint", type=Path, help="a checkpoint, its pretrained_model, or a run's output_dir: its last"
    )
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="of pirl-eval, with its report.json")
    parser.add_argument(
        "--output_dir", type=Path, help="where the card goes (default: the policy's folder and .card)"
    )
    parser.add_argument("--license", help="default: the policy's own, else apache-2.0")
    parser.add_argument(
        "--push", action="store_true", help="put policy, processors, tokenizer and card there"
    )
    parser.add_argument("--repo_id", help="as me/robot; default: what the run's policy.repo_id said")
    parser.add_argument("--private", action="store_true", help="if the repository has to be made")
    return parser


def _run(options: argparse.Namespace) -> None:
    from bridge.card.policy import Policy

    policy = Policy.read(options.checkpoint)
    repo_id = options.repo_id or policy.repo_id
    if options.push and repo_id is None:
        raise ValueError("give --repo_id=<you>/<name of the policy>: its run was to push nothing.")

    from bridge.card import evaluation  # loads SciPy
    from bridge.card.hub import push
    from bridge.card.written import README, write_card

    report = None if options.report is None else evaluation.given(policy, options.report)
    about = {"licence": options.license, "report": report}
    if not options.push:
        # Not into it: what lies there is what an evaluation is of.
        folder = options.output_dir or policy.folder.with_name(f"{policy.folder.name}.card")
        write_card(policy, folder, repo_id=repo_id, **about)
        print(folder / README)
        return
    assert repo_id is not None
    print(f"pushed to {push(policy, repo_id, options.private or None, **about)}")


if __name__ == "__main__":
    main()
