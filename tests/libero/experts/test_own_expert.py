"""What an expert of one's own does wrong is told as its own."""

import pickle

import pytest

from bridge.libero import demonstrate
from bridge.libero.experts.choice import Choice
from bridge.libero.suites import TaskId


class Scene:
    simulator = None

    def set_rendering(self, enabled):
        pass

    def reset(self, **_):
        return {"pixels": {}, "agent_pos": None}, {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def act(self): return next(iter(()))", "StopIteration()"),
        ("def act(self): return self.plan[7]", "AttributeError"),
        ("def __new__(cls, *_, **__): raise KeyError('bowl')", "KeyError('bowl')"),
    ],
)
def test_what_an_expert_raises_names_it_and_the_episode(tmp_path, monkeypatch, body, words):
    file = tmp_path / "mine.py"
    file.write_text(f"class Expert:\n    def __init__(self, env, *, rng, noise): pass\n    {body}\n")
    monkeypatch.setattr(demonstrate, "environment", lambda *_: Scene())
    attempt = demonstrate.Attempt(TaskId("libero_goal", 4), 3, 11, Choice(f"{file}:Expert"))
    with pytest.raises(demonstrate.ExpertError) as caught:
        demonstrate.demonstrate(attempt)
    text = str(pickle.loads(pickle.dumps(caught.value)))  # it comes from a worker process
    assert text.startswith(f"{file}:Expert failed at ")
    assert "initial state 3, seed 11: " in text
    assert words in text
