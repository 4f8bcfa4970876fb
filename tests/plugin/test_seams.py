"""Promises of the seams into LeRobot: one that moved is named in one line, no actor acts on without it."""

import ast
import importlib.metadata
import importlib.util
import logging
import sys
import threading
import tomllib
from dataclasses import replace
from pathlib import Path

import draccus
import grpc
import pytest
import seams as page
from forked import Command
from lerobot.envs.configs import EnvConfig
from lerobot.policies.xvla import XVLAPolicy, processor_xvla
from lerobot.rl.algorithms import factory
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from lerobot.utils.process import ProcessSignalHandler
from tiny import tiny_policy_config, write_run_config

import bridge.plugin

bridge.plugin.register()

from bridge.libero import installation  # noqa: E402
from bridge.plugin import seams, source, transport  # noqa: E402
from bridge.plugin.algorithm import PiRLAlgorithm  # noqa: E402
from bridge.plugin.libero_config import LiberoConfig  # noqa: E402
from bridge.plugin.recipe_config import PiRLConfig  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PLACES = [(seam, place) for seam in seams.SEAMS for place in seam.expected]
HAS_ROBOSUITE = importlib.util.find_spec("robosuite") is not None
ADDRESS = "127.0.0.1:1"


def label(value):
    return value.name if isinstance(value, seams.Seam) else value.partition("(")[0]


def needs(seam):
    if seam is seams.ROBOSUITE and not HAS_ROBOSUITE:
        pytest.skip("robosuite is not installed")


def parts(place):
    where, _, parameters = place.removesuffix(")").partition("(")
    module, _, path = where.partition(":")
    return module, path, parameters


def edited(monkeypatch, module, edit):
    """Let the installed packages look as if one module's syntax tree had been edited."""
    text = source.source(module)
    tree = ast.parse(text)
    edit(tree)
    true = source.source
    monkeypatch.setattr(source, "source", lambda name: ast.unparse(tree) if name == module else true(name))


def definition(tree, path):
    for name in path.split("."):
        tree = next(node for node in tree.body if getattr(node, "name", "") == name)
    return tree


def empty(node):
    node.body, node.decorator_list = [ast.Pass()], []


def refusal(caplog, call):
    """The line that a call is refused with, which is also the only one in the log."""
    caplog.clear()
    with caplog.at_level(logging.ERROR), pytest.raises(seams.SeamError) as refused:
        call()
    line = str(refused.value)
    assert [record.getMessage() for record in caplog.records] == [line]
    assert "\n" not in line
    return line


def opening(seam, package="lerobot"):
    name, distribution = {
        "lerobot": ("LeRobot", "lerobot"),
        "draccus": ("draccus", "draccus"),
        "grpc": ("grpcio", "grpcio"),
        "robosuite": ("robosuite", "robosuite"),
    }[package]
    return f"{name} {importlib.metadata.version(distribution)} has moved: seam '{seam.name}': "


def check_is_refused(seam, place, caplog, what):
    line = refusal(caplog, lambda: seams.check(seam))
    module, path, _ = parts(place)
    assert line.startswith(f"{opening(seam, module.split('.')[0])}{module}:{path} {what}")
    assert f"; without it, {seam.without}. Install " in line


@pytest.mark.parametrize("seam", seams.SEAMS, ids=label)
def test_the_installed_lerobot_is_what_every_seam_expects(seam):
    needs(seam)
    seams.check(seam)
    assert seam.expected
    assert seam.instead
    assert seam.without


def test_the_releases_named_in_the_message_are_among_those_the_package_requires():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = " ".join(project["dependencies"])
    assert seams._WRITTEN_FOR["lerobot"][1].replace("==", "[hilserl,xvla,dataset]>=") in required
    assert seams._WRITTEN_FOR["grpc"][1].startswith("grpcio==1.")
    assert "grpcio>=1." in required


def test_the_page_shows_todays_seams():
    text = page.PAGE.read_text()
    assert page.page_with_table(text) == text, "run: python docs/seams.py --write"


@pytest.mark.parametrize(("seam", "place"), PLACES, ids=label)
def test_a_place_that_is_gone_is_named_in_one_line(seam, place, monkeypatch, caplog):
    needs(seam)
    module, path, _ = parts(place)
    edited(monkeypatch, module, lambda tree: setattr(definition(tree, path), "name", "renamed"))
    check_is_refused(seam, place, caplog, "is not there; ")


@pytest.mark.parametrize(
    ("seam", "place"), [(seam, place) for seam, place in PLACES if "(" in place], ids=label
)
def test_another_signature_is_named_in_one_line(seam, place, monkeypatch, caplog):
    needs(seam)
    module, path, parameters = parts(place)

    def add_parameter(tree):
        definition(tree, path).args.args.insert(0, ast.arg("novelty"))

    edited(monkeypatch, module, add_parameter)
    check_is_refused(seam, place, caplog, f"takes (novelty, {parameters}) instead of ({parameters}); ")


@pytest.mark.parametrize(("seam", "place"), [pair for pair in PLACES if pair[0].expected[pair[1]]], ids=label)
def test_code_that_is_not_where_it_was_is_named_in_one_line(seam, place, monkeypatch, caplog):
    needs(seam)
    module, path, _ = parts(place)
    edited(monkeypatch, module, lambda tree: empty(definition(tree, path)))
    check_is_refused(seam, place, caplog, f"no longer has `{seam.expected[place][0]}` where it was; ")


def test_the_order_of_what_the_actor_does_counts(monkeypatch, caplog):
    """A handler made after the channel would leave the channel without the event that stops it."""

    def reverse(tree):
        definition(tree, "actor_cli").body.reverse()

    edited(monkeypatch, "lerobot.rl.actor", reverse)
    check_is_refused(
        seams.SIGNAL_HANDLER, "lerobot.rl.actor:actor_cli", caplog, "no longer has `learner_service_client("
    )


def test_a_module_that_is_gone_is_named(monkeypatch, caplog):
    true = source.source
    monkeypatch.setattr(source, "source", lambda name: None if name == "lerobot.rl.actor" else true(name))
    line = refusal(caplog, seams.check_all)
    assert line.startswith(f"{opening(seams.CHANNEL)}lerobot.rl.actor:learner_service_client is not there; ")


def test_a_moved_lerobot_stops_the_actor_before_it_acts(tmp_path, monkeypatch, caplog, actor):
    """LeRobot's actor would swallow what is raised later, and exit as if all were well."""
    with draccus.config_type("json"):
        cfg = draccus.parse(TrainRLServerPipelineConfig, str(write_run_config(tmp_path, 1)), args=[])
    edited(monkeypatch, "lerobot.rl.actor", lambda tree: empty(definition(tree, "act_with_policy")))
    caplog.clear()
    with pytest.raises(SystemExit) as ended, caplog.at_level(logging.ERROR):
        cfg.validate()
    assert ended.value.code.startswith(f"error: {opening(seams.GET_ALGORITHM_CLASS)}")


def test_a_moved_robosuite_is_refused_where_libero_is_made(monkeypatch, caplog):
    needs(seams.ROBOSUITE)
    monkeypatch.setattr(installation, "find_assets", lambda: None)
    module = "robosuite.utils.observables"
    edited(monkeypatch, module, lambda tree: setattr(definition(tree, "Observable"), "name", "Observed"))
    line = refusal(caplog, LiberoConfig(task="libero_spatial").make)
    assert line.startswith(
        f"{opening(seams.ROBOSUITE, 'robosuite')}{module}:Observable.update is not there; "
    )


def test_nothing_is_replaced_where_the_attribute_is_missing():
    class Moved:
        """Has no ``validate`` any more."""

    with pytest.raises(seams.SeamError, match=r"LeRobot .* seam 'validate': Moved has no validate"):
        seams.install(seams.VALIDATE, Moved, lambda: None)
    assert not hasattr(Moved, "validate")


def test_a_replacement_that_does_not_stay_is_refused():
    class Registry:
        """Hands out copies."""

        @staticmethod
        def get_known_choices():
            return {"libero": object}

    spare = replace(seams.LIBERO_ENTRY, name="spare")
    with pytest.raises(seams.SeamError, match=r"seam 'spare': Registry's libero is not this plugin's"):
        seams.install(spare, Registry, LiberoConfig)
    del seams._installed["spare"]


def test_loading_the_plugin_puts_its_replacements_in():
    assert EnvConfig.get_choice_class("libero") is LiberoConfig
    assert factory.get_algorithm_class("pi_rl") is PiRLAlgorithm
    assert TrainRLServerPipelineConfig.validate.__module__ == "bridge.plugin.pipeline"
    assert processor_xvla.make_xvla_pre_post_processors.__module__ == "bridge.plugin.processors"


@pytest.fixture
def actor(monkeypatch):
    """An actor's process up to where LeRobot opens its channel; what the seams changed is put back."""
    monkeypatch.setattr(transport, "is_actor", lambda: True)
    monkeypatch.setattr(transport, "_current", None)
    monkeypatch.setattr(transport, "_stop", None)
    monkeypatch.setattr(seams, "_installed", dict(seams._installed))
    monkeypatch.setattr(grpc, "insecure_channel", grpc.insecure_channel)
    monkeypatch.setattr(ProcessSignalHandler, "__init__", ProcessSignalHandler.__init__)
    monkeypatch.setattr(ProcessSignalHandler, "_register_handlers", lambda self: None)
    transport.install(ADDRESS)
    yield
    if transport._current is not None:
        transport._current.stop.set()  # ends the channel's thread


def make_algorithm():
    config, policy = PiRLConfig(), tiny_policy_config()
    config.policy_config = policy
    return factory.make_algorithm(config, XVLAPolicy(policy))


def test_an_actor_that_came_by_every_seam_acts(actor, caplog):
    handler = ProcessSignalHandler(use_threads=True)
    assert grpc.insecure_channel(ADDRESS) is transport.current()
    handler.shutdown_event.set()  # no learner is there to wait for
    with pytest.raises(SystemExit) as caught:
        make_algorithm()
    assert caught.value.code == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_actor_whose_channel_was_not_intercepted_is_refused(actor, caplog):
    ProcessSignalHandler(use_threads=True)
    transport._open_plain(ADDRESS).close()
    line = refusal(caplog, make_algorithm)
    assert line.startswith(f"{opening(seams.CHANNEL)}this actor opened its channel to the learner past the ")


def test_an_actor_whose_config_was_never_validated_is_refused(actor, caplog, monkeypatch):
    monkeypatch.delitem(seams._installed, "channel")
    assert refusal(caplog, make_algorithm).startswith(f"{opening(seams.CHANNEL)}this process never came to ")


@pytest.mark.parametrize("late", [False, True])
def test_an_actor_whose_stop_event_was_not_captured_is_refused(actor, caplog, late):
    channel = grpc.insecure_channel(ADDRESS)
    if late:
        ProcessSignalHandler(use_threads=True)
    assert isinstance(channel.stop, threading.Event)
    line = refusal(caplog, make_algorithm)
    assert line.startswith(f"{opening(seams.SIGNAL_HANDLER)}this actor opened its channel before it made ")


@pytest.mark.parametrize(
    ("owner", "attribute", "seam"),
    [
        (TrainRLServerPipelineConfig, "validate", seams.VALIDATE),
        (processor_xvla, "make_xvla_pre_post_processors", seams.PROCESSOR_FACTORY),
        (factory, "get_algorithm_class", seams.GET_ALGORITHM_CLASS),
    ],
)
def test_an_actor_in_which_a_replacement_was_replaced_is_refused(
    actor, caplog, monkeypatch, owner, attribute, seam
):
    ours = getattr(owner, attribute)
    monkeypatch.setattr(owner, attribute, lambda *args, **kwargs: ours(*args, **kwargs))
    line = refusal(caplog, make_algorithm)
    assert line.startswith(f"{opening(seam)}{owner.__name__}'s {attribute} is not this plugin's; ")


def test_a_process_that_is_no_actor_needs_no_channel(monkeypatch):
    monkeypatch.setattr(transport, "_current", None)
    monkeypatch.setattr(seams, "_installed", {})
    assert make_algorithm().acting.version == 0


@pytest.mark.e2e
def test_an_actor_with_an_old_setting_name_is_refused_in_one_line(tmp_path):
    config = write_run_config(tmp_path, 1)
    flags = ["--env.discover_packages_path=bridge.plugin", "--algorithm.gamma=0.9"]
    log = tmp_path / "log"
    assert Command("lerobot.rl.actor", [f"--config_path={config}", *flags], log).wait(300) == 1
    assert log.read_text().splitlines()[-1] == (
        "error: algorithm.gamma in the command line is now algorithm.advantage.gamma; "
        "docs/configuration.md lists every setting that has moved."
    )
    assert "refuse_old_names" not in log.read_text()  # as a traceback would have it


def test_nothing_of_the_plugin_patches_foreign_code_but_by_its_seams():
    settings = {"torch.backends.cudnn.allow_tf32"}  # made to be assigned to
    patched = {seam.attribute for seam in seams.SEAMS if seam.attribute}
    offences = [
        f"{path.name}:{target.lineno} {ast.unparse(target)}"
        for path in sorted((ROOT / "bridge" / "plugin").glob("*.py"))
        if path.name != "seams.py"
        for target, foreign in assigned(ast.parse(path.read_text()))
        if ast.unparse(target) not in settings
        and (foreign or (isinstance(target, ast.Attribute) and target.attr in patched))
    ]
    assert not offences


def assigned(tree):
    """Assigned attributes and entries, and whether their owner was imported from a foreign package."""
    foreign = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            for alias in node.names:
                top = (module or alias.name).split(".")[0]
                if top not in {"bridge", "pirl_jax", *sys.stdlib_module_names}:
                    foreign.add(alias.asname or (alias.name if module else top))
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setattr":
            targets = node.args[:1]
        for target in targets:
            if isinstance(target, ast.Attribute | ast.Subscript) or isinstance(node, ast.Call):
                yield target, root(target) in foreign


def root(node):
    while not isinstance(node, ast.Name):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import grpc\ngrpc.insecure_channel = f", True),
        ("from lerobot.rl.algorithms import factory\nfactory.get_algorithm_class = f", True),
        ("from lerobot.envs.configs import EnvConfig\nEnvConfig.get_known_choices()['libero'] = C", True),
        ("import torch.nn as nn\nsetattr(nn.Module, 'forward', f)", True),
        ("import os\nos.environ['MUJOCO_GL'] = 'egl'", False),
        ("from bridge.plugin import transport\ntransport.log = f", False),
    ],
)
def test_the_search_for_patches_finds_them(code, found):
    assert [foreign for _, foreign in assigned(ast.parse(code))] == [found]
