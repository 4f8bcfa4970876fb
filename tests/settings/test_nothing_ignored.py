"""Every setting that a command accepts is read, refused, named as idle, or allowed with a reason."""

import copy
import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import draccus
import pytest
from lerobot.configs.default import DatasetConfig, PeftConfig
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from reads import Setting, file_of_installed, files_of, reads, settings
from tiny import tiny_policy_config, write_run_config

import bridge.plugin
from bridge.evaluate import __main__ as pirl_eval
from bridge.settings import unused
from bridge.settings.learner_config import LearnerConfig
from bridge.settings.sft_config import SFTConfig
from pirl_jax.run_folder.retention import Retention

bridge.plugin.register()

from bridge.plugin.gym_config import ChunkedGymConfig  # noqa: E402
from bridge.plugin.libero_config import LiberoConfig  # noqa: E402
from bridge.plugin.recipe_config import PiRLConfig  # noqa: E402

ACTOR = (
    *("lerobot.rl.actor", "lerobot.rl.gym_manipulator", "lerobot.envs.configs", "lerobot.policies.factory"),
    *(f"lerobot.policies.xvla.{name}_xvla" for name in ("configuration", "modeling", "processor")),
)
"""LeRobot's files whose reads count where an actor plays."""
LOADER = ("lerobot.datasets.factory",)

HELD = {
    "": {"cfg"},
    "policy": {"config", "policy_cfg", "policy_config"},
    "env": {"settings"},
    "algorithm": {"recipe"},
    "algorithm.launch": {"settings", "_settings"},
    "algorithm.security": {"_security"},
    "algorithm.serve": {"settings"},
    "algorithm.videos": {"_settings"},
    "algorithm.watchdog": {"_settings"},
    "wandb": {"wandb_config"},
}
"""Section → other names by which code holds it."""

CARRIED = "stays in the exported config.json, of which the model card is made (tests/card)"
REFUSED_AS_A_WHOLE = "read with dataset.image_transforms.enable alone, which is refused"
ALLOWED = {
    **dict.fromkeys(("policy.tags", "policy.license"), CARRIED),
    "wandb.disable_artifact": "no artifact is stored, which is what it asks for",
    "wandb.add_tags": "no tags are added, which is what false asks for",
    **dict.fromkeys(
        (f"dataset.image_transforms.{name}" for name in ("max_num_transforms", "random_order", "tfs")),
        REFUSED_AS_A_WHOLE,
    ),
}
NETWORK = {
    "policy.florence_config": "of the network's sizes, read as a dictionary (tests/parity/test_config.py)",
    "policy.num_image_views": "of the network's sizes, read as a dictionary (tests/parity/test_config.py)",
    "job_name": "names the default output_dir and the run in W&B (tests/training/test_metrics.py)",
}
FEATURES = dict.fromkeys(
    ("env.features", "env.features_map"), "follow from the other settings, in saved configs too"
)
ENV_OF_ACTORS = "a section that configs share with actors; an export asks for its type"


@dataclass
class Command:
    """A command, what its config consists of and what is said of it."""

    entries: tuple[str, ...]
    config: type
    sections: dict[str, type]
    tables: tuple[typing.Mapping[str, str], ...]
    installed: tuple[str, ...]
    allowed: dict[str, str] = field(default_factory=dict)

    def settings(self) -> list[Setting]:
        return list(settings(self.config, self.sections, HELD))

    def reads(self) -> set[tuple[str, str]]:
        own = set().union(*map(files_of, self.entries))
        return reads([*own, *map(file_of_installed, self.installed)])

    def said(self) -> dict[str, str]:
        return {
            name: why
            for table in (unused.REFUSED, unused.IGNORED, *self.tables)
            for name, why in table.items()
        }


def learner(env: type, entry: str, **allowed: str) -> Command:
    sections = {"policy": XVLAConfig, "algorithm": PiRLConfig, "dataset": DatasetConfig, "env": env}
    entries = (
        "pirl_jax.learner",
        "pirl_jax.doctor",
        "pirl_jax.serve",
        "bridge.launch.command",
        entry,
        "bridge.plugin.algorithm",
        "bridge.plugin.processors",
    )
    tables = (unused.IGNORED_IN_RL, unused.IGNORED_WITHOUT_DEMONSTRATIONS)
    return Command(
        entries, LearnerConfig, sections, tables, (*ACTOR, *LOADER), {**ALLOWED, **FEATURES, **allowed}
    )


COMMANDS = {
    "learner with a gym": learner(ChunkedGymConfig, "bridge.plugin.gym_config"),
    "learner with LIBERO": learner(LiberoConfig, "bridge.plugin.libero_config"),
    "sft": Command(
        ("pirl_jax.sft",),
        SFTConfig,
        {"policy": XVLAConfig},
        (unused.IGNORED_IN_SFT, unused.IGNORED_WITH_PRESET, unused.IGNORED_WITHOUT_PRESET),
        LOADER,
        {**ALLOWED, **NETWORK, "env": ENV_OF_ACTORS},
    ),
}


def below(setting: str, entries: typing.Iterable[str]) -> bool:
    return any(setting == entry or setting.startswith(f"{entry}.") for entry in entries)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_setting_is_passed_over(command):
    found, known = command.reads(), [*command.said(), *command.allowed]
    silent = [s.name for s in command.settings() if not s.is_read(found) and not below(s.name, known)]
    assert not silent, f"nothing reads, refuses or names {', '.join(silent)}"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_what_is_allowed_or_said_is_there_and_allowed_for_a_reason(command):
    names = [setting.name for setting in command.settings()]
    here = {entry for entry in command.allowed if any(below(name, [entry]) for name in names)}
    assert here == set(command.allowed)
    assert all(len(reason.split()) > 3 for reason in [*command.allowed.values(), *command.said().values()])
    found = command.reads()
    needless = [s.name for s in command.settings() if s.name in command.allowed and s.is_read(found)]
    assert not set(needless) - {"env", *FEATURES}, "is read after all"  # LIBERO's is, for the action


def test_what_is_said_is_said_of_a_setting_of_some_command():
    names = {setting.name for command in COMMANDS.values() for setting in command.settings()}
    said = {entry for command in COMMANDS.values() for entry in command.said()}
    assert not {entry for entry in said if not any(below(name, [entry]) for name in names)}


def test_a_setting_that_nothing_reads_would_be_found():
    """One of a new name, and one whose name is read, but of another section."""

    @dataclass
    class More(LearnerConfig):
        unheard_of: int = 0
        minibatch_size: int = 0

    command = COMMANDS["learner with a gym"]
    command = dataclasses.replace(command, config=More)
    found, known = command.reads(), [*command.said(), *command.allowed]
    silent = {s.name for s in command.settings() if not s.is_read(found) and not below(s.name, known)}
    assert silent == {"unheard_of", "minibatch_size"}


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, (list, tuple)):
        return [*value[:-1], value[-1] / 2]
    return "other"


SECTION = {
    "peft": PeftConfig(),
    "rename_map": {"a": "b"},
    "eval": "eval.n_episodes",
    "job": "job.detach",
    "dataset": "dataset.root",
    "env.processor": "env.processor.max_gripper_pos",
    "optimizer": "optimizer.lr",
    "scheduler": "scheduler.num_warmup_steps",
}
"""What is set for entries that are no plain values: a value, or the setting below it."""


def spoil(cfg: Any, entry: str) -> str:
    """Change what a table's entry is about; return the name of what was changed."""
    name = SECTION[entry] if isinstance(SECTION.get(entry), str) else entry
    *parents, last = name.split(".")
    holder = cfg
    for parent in parents:
        holder = getattr(holder, parent)
    setattr(holder, last, SECTION.get(name) or other(getattr(holder, last)))
    return name


def check(cfg, table):
    given = unused.Given.of(cfg)
    unused.check(cfg, given, table)


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    """With an option for every setting of every registered class, which takes seconds."""
    with draccus.config_type("json"):
        path = write_run_config(tmp_path_factory.mktemp("run"), 50051)
        return draccus.parse(LearnerConfig, str(path), args=[])


@pytest.fixture
def run_config(parsed):
    cfg = copy.deepcopy(parsed)
    cfg.validate()
    return cfg


@pytest.fixture
def sft_config(tmp_path):
    cfg = SFTConfig(DatasetConfig("test/demos"), policy=tiny_policy_config(), output_dir=tmp_path / "out")
    cfg.validate()
    return cfg


@pytest.mark.parametrize("entry", unused.REFUSED)
@pytest.mark.parametrize("config", ["run_config", "sft_config"])
def test_what_is_not_supported_is_refused_by_name(entry, config, request):
    cfg = request.getfixturevalue(config)
    name = spoil(cfg, entry)
    with pytest.raises(ValueError, match=rf"^{name}.* is not supported: .+\.$"):
        check(cfg, {})


@pytest.mark.parametrize(
    ("entry", "table"),
    [
        (entry, table)
        for table in (
            *("IGNORED", "IGNORED_IN_RL", "IGNORED_IN_SFT"),
            *("IGNORED_WITHOUT_DEMONSTRATIONS", "IGNORED_WITHOUT_EVALUATION", "IGNORED_WITHOUT_PRESET"),
        )
        for entry in getattr(unused, table)
        if entry != "env.eval_init_states"  # LIBERO's (test_evaluation_settings)
    ],
)
def test_what_has_no_effect_is_named_in_one_line(entry, table, run_config, caplog):
    caplog.clear()
    name = spoil(run_config, entry)
    if name.startswith("policy."):  # as LeRobot's validation goes on
        run_config.optimizer = run_config.policy.get_optimizer_preset()
        run_config.scheduler = run_config.policy.get_scheduler_preset()
    check(run_config, getattr(unused, table))
    (line,) = caplog.messages
    assert line.startswith(f"{name}=")
    assert " has no effect here: " in line


@pytest.mark.parametrize(
    ("entry", "config"), [("algorithm.checkpoint", "run_config"), ("checkpoint", "sft_config")]
)
def test_how_to_save_is_named_where_nothing_is_saved(entry, config, request, caplog):
    cfg = request.getfixturevalue(config)
    cfg.save_freq, cfg.save_checkpoint = 3, False
    (cfg.algorithm if "." in entry else cfg).checkpoint = Retention(keep_last=7)
    check(cfg, {})
    assert [line.split("=")[0] for line in caplog.messages if "nothing is saved" in line] == [
        "save_freq",
        f"{entry}.keep_last",
    ]


def test_a_range_of_success_by_task_is_refused_where_tasks_have_no_names(tmp_path):
    rollout = {"task_success_range": [0.1, 0.9]}
    path = write_run_config(tmp_path, 50051, algorithm={"rollout": rollout})
    with draccus.config_type("json"):
        cfg = draccus.parse(LearnerConfig, str(path), args=[])
    with pytest.raises(
        ValueError, match=r"task_success_range=.* would do nothing: the environment \(chunked_gym\)"
    ):
        cfg.validate()


@pytest.mark.parametrize("config", ["run_config", "sft_config"])
def test_nothing_is_said_of_a_config_that_sets_nothing(config, request, caplog):
    request.getfixturevalue(config)
    assert "no effect" not in caplog.text


def test_every_option_of_pirl_eval_is_read():
    options = {name for holder, name in reads([Path(pirl_eval.__file__)]) if holder == "options"}
    assert options >= {action.dest for action in pirl_eval._parser()._actions} - {"help"}
