"""The model card of a policy: LeRobot's metadata and sections, with what a run knows of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from bridge.card.policy import APACHE, Policy
from bridge.card.training import of_its_run, recipe, task
from bridge.evaluate.claims import claims
from bridge.evaluate.report import summary
from bridge.weights.consumers import consumer_of

CURVE = "learning_curve.png"
_HUB = "https://huggingface.co"
_PAPER = "https://arxiv.org/abs/2510.25889"
_XVLA = "https://huggingface.co/papers/2510.10274"
_LEROBOT = "https://github.com/huggingface/lerobot"


def card(
    policy: Policy,
    report: Mapping[str, Any] | None = None,
    *,
    repo_id: str | None = None,
    licence: str | None = None,
    curve: bool = False,
) -> str:
    """Return the content of ``README.md``.

    Args:
        policy: What it is about.
        report: Of ``pirl-eval``, of this policy.
        repo_id: Where it will be; None: that is open.
        licence: None: the policy's, else LeRobot's default.
        curve: Whether a picture of the run lies beside it.
    """
    licence = licence or str(policy.config.get("license") or APACHE)
    name = (repo_id or policy.name).rpartition("/")[2]
    parts = [
        f"---\n{_metadata(policy, report, name, licence).to_yaml()}\n---\n",
        f"# {name}\n",
        _what(policy),
        "## Model Details\n",
        _details(policy, licence),
        "## Inputs & Outputs\n",
        _features(policy),
        "## Evaluation\n",
        _evaluation(policy, report),
    ]
    if curve:
        parts += [f"![success, KL and explained variance over the run]({CURVE})\n"]
    if policy.settings:
        parts += ["## Training Configuration\n", recipe(policy)]
    parts += ["## How to Get Started with the Model\n", _start(policy, repo_id)]
    return "\n".join([*parts, "## Citation\n", _CITATION])


def _metadata(policy: Policy, report: Mapping[str, Any] | None, name: str, licence: str) -> ModelCardData:
    """Return what the hub reads; scores only of LIBERO's own assets, which others' can be compared with."""
    kind = str(policy.config.get("type"))
    tags = {"robotics", "lerobot", kind, *(policy.config.get("tags") or ())}
    if policy.algorithm:
        tags |= {"reinforcement-learning", "pi_rl"}
    results = []
    if report is not None and report["assets"]["kind"] == "lerobot":
        results = [
            EvalResult(
                task_type="robotics",
                dataset_type=suite,
                dataset_name=f"LIBERO: {suite}",
                metric_type="success_rate",
                metric_value=round(100 * result["success"], 1),
            )
            for suite, result in report["suites"].items()
        ]
    dataset = (policy.settings.get("dataset") or {}).get("repo_id")
    return ModelCardData(
        license=licence,
        library_name="lerobot",
        pipeline_tag="robotics",
        tags=sorted(tags),
        base_model=policy.hub_base,
        datasets=dataset if not policy.algorithm and isinstance(dataset, str) else None,
        model_name=name,
        eval_results=results or None,
    )


def _what(policy: Policy) -> str:
    how = (
        f"trained further by reinforcement learning ([π-RL]({_PAPER}), in simulation, with pirl-jax)"
        if policy.algorithm
        else "trained on demonstrations (with pirl-jax)"
    )
    return (
        f"An [X-VLA]({_XVLA}) policy, {how}. It is an ordinary [LeRobot]({_LEROBOT}) checkpoint: LeRobot as "
        "it is loads and runs it.\n"
    )


def _details(policy: Policy, licence: str) -> str:
    lines = [f"- **License:** {licence}"]
    if policy.hub_base:
        lines += [f"- **Fine-tuned from:** [{policy.hub_base}]({_HUB}/{policy.hub_base})"]
    elif policy.base:  # of a folder its name, not the place on somebody's machine
        lines += [f"- **Fine-tuned from:** a local checkpoint, `{_last_names(policy.base)}`"]
    if said := task(policy.settings.get("env") or {}):
        lines += [f"- **Task:** {said}"]
    if policy.step is not None:
        unit = "updates" if policy.algorithm else "steps"
        lines += [f"- **Trained for:** {policy.step} of {policy.settings.get('steps', '?')} {unit}"]
    return "\n".join([*lines, ""])


def _last_names(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", "pretrained_model")]
    return "/".join(parts[-1:])


def _features(policy: Policy) -> str:
    lines = ["| Feature | Type | Shape |", "| --- | --- | --- |"]
    for section in ("input_features", "output_features"):
        for name, feature in (policy.config.get(section) or {}).items():
            lines += [f"| `{name}` | {feature['type']} | `{tuple(feature['shape'])}` |"]
    return "\n".join([*lines, ""])


def _evaluation(policy: Policy, report: Mapping[str, Any] | None) -> str:
    lines: list[str] = []
    if report is not None:
        settings, assets = report["settings"], report["assets"]
        if report["notice"]:
            lines += [f"> **{report['notice']}**", ""]
        lines += [f"> **{group} failed** and is not counted." for group in report["failed"]]
        lines += [f"> Not as in training: {differs}." for differs in report.get("unlike_training", ())]
        lines += [
            f"LIBERO, by `lerobot-eval` without exploration noise: {settings['n_episodes']} episodes of each "
            f"task, {settings['control_mode']} control, seed {settings['seed']}, "
            f"{_ASSETS[assets['kind']]}.",
            "",
            summary(report),
            "",
            *(f"- {claim}" for claim in claims(1)),
            "",
        ]
    lines += of_its_run(policy)
    return "\n".join(lines or ["_No evaluation results have been provided for this policy yet._", ""])


_ASSETS = {"lerobot": "LeRobot's own assets", "development": "assets made for development"}


def _start(policy: Policy, repo_id: str | None) -> str:
    path, env = repo_id or "<hf_user>/<policy_repo_id>", policy.settings.get("env") or {}
    for_eval = consumer_of(policy.folder) == "eval"
    evaluate = [
        "lerobot-eval",
        f"  --policy.path={path}",
        "  --env.type=libero",
        f"  --env.task={env.get('task', 'libero_object')}",
        f"  --env.control_mode={env.get('control_mode', 'absolute')}",
    ]
    robot = [
        "lerobot-rollout",
        "  --strategy.type=base",
        "  --robot.type=<your_robot_type>",
        f"  --policy.path={path}",
        '  --task="<your_task_description>"',
    ]
    lines = ["```bash", *_continued(evaluate if for_eval else robot), "```", ""]
    ours, other = ("`lerobot-eval`", "train") if for_eval else ("`lerobot-train` and robots", "eval")
    lines += [
        f"Its processors are for {ours}: who prepares an X-VLA's images is not the same there and elsewhere. "
        f"`pirl-convert {path} FOLDER --for={other}` makes the other form.",
        "",
        f"Made with LeRobot {version('lerobot')} and pirl-jax {version('pirl-jax')}.",
        "",
    ]
    return "\n".join(lines)


def _continued(lines: Sequence[str]) -> list[str]:
    return [f"{line} \\" for line in lines[:-1]] + [lines[-1]]


_CITATION = """```bibtex
@article{pirl2025,
    title = {$\\pi_\\mathtt{RL}$: Online RL Fine-tuning for Flow-based Vision-Language-Action Models},
    journal = {arXiv preprint arXiv:2510.25889},
    year = {2025}
}
@misc{cadene2024lerobot,
    author = {Cadene, Remi and others},
    title = {LeRobot: State-of-the-art Machine Learning for Real-World Robotics in Pytorch},
    howpublished = "\\url{https://github.com/huggingface/lerobot}",
    year = {2024}
}
```
"""
