"""Every metric that a run writes has an entry in the glossary, and every entry a metric."""

import ast
import dataclasses
import threading
from pathlib import Path

import by_recipe
import jax.numpy as jnp
import metrics as metrics_page
import numpy as np
import pytest
from by_recipe import make_recipe
from toy_run import FROZEN, RECIPE, STD, A, H, critic, episode, fresh_state, toy_policy

import pirl_jax.learner
import pirl_jax.sft
import pirl_jax.supervised.step
from bridge.wire.server import LearnerServer
from pirl_jax.glossary import GLOSSARY, entry_of
from pirl_jax.recipe import CriticConfig, DemonstrationsConfig, NoiseConfig, ServeConfig
from pirl_jax.rollout.assignments import Assignments
from pirl_jax.rollout.encoded import Encoded
from pirl_jax.rollout.evaluation import Evaluation, Outcome, spread
from pirl_jax.serving.service import PolicyService
from pirl_jax.training.evaluations import Evaluations, found
from pirl_jax.update.demonstrations import Demonstrations
from pirl_jax.xvla.actions import FIXED_SPACES


def of_an_update():
    """A run of one update with everything that adds a metric."""
    recipe = make_recipe(
        RECIPE,
        noise=NoiseConfig(level=STD, gripper="bernoulli"),
        critic=CriticConfig(extra_steps=1),
        demonstrations=DemonstrationsConfig(coef=0.1, batch_size=2),
        reference_kl_coef=0.1,
        task_success_range=(0.0, 1.0),
    )
    shapes = {"features": (2,), "proprio": (2, 1), "action": (2, H, A)}
    frames = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    numbers = iter(range(99))
    (update,) = by_recipe.run(
        dataclasses.replace(toy_policy(), gripper_logits=(1,)),
        critic,
        FROZEN,
        recipe,
        fresh_state(recipe),
        total_steps=1,
        receive=lambda timeout: dataclasses.replace(
            episode(next(numbers), 2, terminated=True), task="goal_0"
        ),
        publish=lambda version, behaviour: None,
        stop=threading.Event(),
        demonstrations=Demonstrations(domain_id=jnp.zeros(2, jnp.int32), **frames),
        encoded=Encoded(1e6),
    )
    return update.metrics


def of_an_evaluation():
    evaluations = Evaluations(1, spread(2, 1), 0, 1)
    evaluation = evaluations.begin(0, 1)
    for number in evaluation.numbers:
        evaluation.outcomes[number] = Outcome("goal_0", True, 1.0, 1, 1)
    (evaluated,) = evaluations.ended(lambda: False)
    return evaluated.metrics | found(Evaluation(0, 1, 0, spread(2, 1)))


def of_the_service():
    server = LearnerServer(
        "127.0.0.1",
        0,
        decode=lambda data: episode(0, 1, terminated=True),
        assignments=Assignments(4, 0),
        agreement={},
    )
    server._counts.drop("nan", "of a test")
    return server.metrics()


def of_the_policy_server():
    return PolicyService(toy_policy(), NoiseConfig(level=STD), ServeConfig(max_batch=1)).metrics()


def of_a_warm_start():
    terms = {term.name for space in FIXED_SPACES.values() for term in space.loss_terms}
    return {f"train/{name}" for name in terms} | literals(pirl_jax.sft) | literals(pirl_jax.supervised.step)


def literals(module):
    """Names of metrics that a module writes out itself."""
    tree = ast.parse(Path(module.__file__).read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {text for text in texts if isinstance(text, str) and text.startswith("train/") and text[-1] != "/"}


@pytest.fixture(scope="module")
def written():
    sources = (of_an_update, of_an_evaluation, of_the_service, of_the_policy_server, of_a_warm_start)
    return {name for source in sources for name in source()} | literals(pirl_jax.learner)


def test_every_metric_that_a_run_writes_has_an_entry(written):
    assert sorted(name for name in written if entry_of(name) is None) == []
    assert len(written) > 80


def test_every_entry_has_a_metric_that_a_run_writes(written):
    found = {entry_of(name) for name in written}
    assert [entry.name for entry in GLOSSARY if entry not in found] == []


def test_an_entry_says_what_is_healthy_and_what_to_do_and_no_two_have_a_name():
    assert len({entry.name for entry in GLOSSARY}) == len(GLOSSARY)
    for entry in GLOSSARY:
        assert all((entry.meaning, entry.healthy, entry.remedy)), entry.name
        assert entry.low <= entry.high
        assert "|" not in f"{entry.meaning}{entry.healthy}{entry.remedy}"  # it would end a cell of the page


def test_a_name_of_its_own_comes_before_a_family():
    assert entry_of("train/success_rate").name == "train/success_rate"
    assert entry_of("train/success_rate/goal_3").name == "train/success_rate/<task>"
    assert entry_of("actor/dropped/nan").name == "actor/dropped/<reason>"
    assert entry_of("train/success_rate/") is None
    assert entry_of("train/unknown") is None
    assert np.isinf([entry_of("train/lr").low, entry_of("train/lr").high]).all()


def test_the_page_is_made_of_todays_glossary():
    assert metrics_page.PAGE.read_text() == metrics_page.page(), "run: python docs/metrics.py --write"
