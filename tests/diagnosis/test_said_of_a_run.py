"""What a run's metrics say of it, in words."""

import pytest

from pirl_jax.diagnosis.progress import findings

HEALTHY = {
    "train/approx_kl": 0.05,
    "train/kl_stopped": 0.0,
    "train/policy_steps": 16.0,
    "train/clip_fraction": 0.1,
    "train/explained_variance": 0.5,
    "train/moved/head": 0.99,
    "train/moved/soft_prompts": 0.0,
    "train/wait_s": 4.0,
    "train/collect_s": 6.0,
    "train/release_s": 0.0,
    "train/update_s": 5.0,
    "train/episodes": 64.0,
    "train/compilations": 0.0,
    "train/skipped_steps": 0.0,
    "dropped/uniform_group": 10.0,
    "dropped/gap": 0.0,
}


def found(changes, updates=20, target_kl=0.1):
    row = HEALTHY | changes
    return findings(
        list(row),
        lambda name, count: [row[name]] * min(count, updates) if name in row else [],
        updates,
        target_kl,
    )


def test_of_a_run_that_learns_nothing_is_wrong():
    assert [str(finding) for finding in found({}) if not finding.ok] == []
    assert {finding.name for finding in found({})} >= {"size of the updates", "the policy moves"}


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"train/clip_fraction": 0.6}, "train/clip_fraction", "0.6 in the mean"),
        ({"train/explained_variance": -0.5}, "train/explained_variance", "-0.5 in the mean"),
        ({"train/skipped_steps": 1.0}, "train/skipped_steps", "healthy: 0"),
        ({"dropped/gap": 2.0}, "dropped/gap", "healthy: 0"),
        ({"train/approx_kl": 0.3}, "size of the updates", "KL 0.3 nats a chunk; target_kl=0.1 ended 0 %"),
        ({"train/kl_stopped": 1.0, "train/policy_steps": 1.0}, "size of the updates", "ended 100 %"),
        ({"train/moved/head": 0.0}, "the policy moves", "in 0 of the last 10"),
        ({"train/wait_s": 40.0, "train/collect_s": 42.0}, "the learner waits", "85 % of the last"),
        ({"dropped/uniform_group": 192.0}, "episodes that teach nothing", "75 % of what was played"),
        ({"train/compilations": 2.0}, "compiled again", "20 programs in the last 10"),
    ],
)  # fmt: skip
def test_what_is_wrong_comes_first_with_what_to_do(changes, name, words):
    first, *rest = found(changes)
    assert (first.name, first.ok) == (name, False)
    assert words in first.value
    assert first.advice
    assert all(finding.ok for finding in rest)


def test_the_first_updates_compile_and_of_two_nothing_is_said():
    assert found({"train/clip_fraction": 0.9}, updates=2) == []
    assert all(finding.ok for finding in found({"train/compilations": 9.0}, updates=3))


def test_without_a_target_a_large_step_is_said_all_the_same():
    assert found({"train/approx_kl": 0.8}, target_kl=None)[0].name == "size of the updates"


def test_metrics_of_a_run_that_lacks_them_are_not_missed():
    assert findings(["train/loss"], lambda name, count: [1.0] if name == "train/loss" else [], 9) == []


def test_the_bounds_of_a_range_are_in_it():
    assert all(finding.ok for finding in found({"train/clip_fraction": 0.5}))
    assert not found({"train/clip_fraction": 0.5001})[0].ok
