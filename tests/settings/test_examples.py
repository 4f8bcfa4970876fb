"""The examples in the help of the commands that LeRobot's parser reads name settings that there are."""

import shlex

import pytest
from draccus.argparsing import ArgumentParser
from lerobot.rl.train_rl import TrainRLServerPipelineConfig

from bridge import plugin
from bridge.command.table import COMMANDS
from bridge.settings.learner_config import LearnerConfig
from bridge.settings.sft_config import SFTConfig

LEROBOTS = {"--config_path", "--policy.path"}
"""Which it takes from the command line before its parser."""
OWN = {"launch": {"--actors"}, "serve": {"--replica"}, "doctor": {"--episodes", "--patience"}}


@pytest.fixture(scope="module")
def known():
    plugin.register()
    classes = {"sft": SFTConfig, "actor": TrainRLServerPipelineConfig, "train": LearnerConfig}
    return {
        name: set(ArgumentParser(of).parser._option_string_actions) | LEROBOTS for name, of in classes.items()
    }


@pytest.mark.parametrize("name", ["launch", "train", "actor", "serve", "doctor", "sft"])
def test_an_example_names_settings_that_there_are(name, known):
    options = known.get(name, known["train"]) | OWN.get(name, set())
    for _, arguments in COMMANDS[name].examples:
        assert {word.partition("=")[0] for word in shlex.split(arguments)} <= options
