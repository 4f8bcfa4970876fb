"""Training and evaluation begin in initial states of their own: in the simulator, not only in a number."""

import numpy as np
from chunked import IMAGES, SIZE, random_chunk, row, stock, task

from bridge.libero.schedule import Schedule
from bridge.plugin.chunk_env import ChunkEnv
from pirl_jax.rollout.assignments import Assignments, Verdict
from pirl_jax.rollout.evaluation import Evaluation, Outcome, spread

TRAIN, EVAL = range(20, 50), range(4, 7)
TASKS = (task("libero_object", 1), task("libero_object", 3))


def test_training_draws_from_its_states_and_an_evaluation_goes_through_its_own():
    """Both of one run's assignments, as an actor is given them; 4 episodes a task over 3 states."""
    from bridge.libero.tasks import LiberoTasks

    schedule = Schedule(len(TASKS), "round_robin")
    assignments = Assignments(8, 7, choose=schedule.choose)
    evaluation = Evaluation(0, 1, 7, spread(8, len(TASKS)))
    assignments.publish(1, 0, evaluation)
    inner = LiberoTasks(TASKS, stock, schedule, 4, TRAIN, EVAL)
    given = []

    def assign():
        given.append(assignments.next("a", 0))
        return given[-1]

    env = ChunkEnv(
        inner,
        image_keys=IMAGES,
        image_shapes=dict.fromkeys(IMAGES.values(), (3, SIZE, SIZE)),
        state_dim=20,
        tokens=[[index, 1] for index in range(len(TASKS))],
        assign=assign,
    )
    chunk = row(random_chunk(np.random.default_rng(0), 1))
    played: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    begun = {}
    for _ in range(16):
        env.reset()
        assigned = given[-1]
        simulator = inner.simulator._env.get_sim_state()
        _, _, _, _, info = env.step(chunk)
        number, init_state = (int(value) for value in info["discrete_penalty"][4:6])
        played[assigned.evaluates].append((number, init_state))
        begun[number, init_state] = simulator
        outcome = Outcome("", False, 0.0, 1, 1) if assigned.evaluates else None
        assert assignments.deliver(assigned.number, assigned.seed, outcome) is Verdict.WANTED
    env.close()
    # As lerobot-eval: state e mod size, here of the range; one task after the other.
    assert played[True] == [(number, EVAL[e % len(EVAL)]) for number in (0, 1) for e in range(4)]
    assert evaluation.over
    assert {state for _, state in played[False]} <= set(TRAIN)
    assert len({state for _, state in played[False]}) > 3
    # Where the simulator had the things is nearest to where the state that is named has them.
    for (number, init_state), simulator in begun.items():
        states = things(np.asarray(stock(TASKS[number])._init_states))
        apart = np.linalg.norm(states - things(simulator), axis=-1).max(-1)
        assert apart[init_state] < 0.003 < np.delete(apart, init_state).min()


def things(state):
    """x and y of each thing, [..., 7, 2], of a flattened state: time, the arm's nine joints, seven poses."""
    return state[..., 10:59].reshape(*state.shape[:-1], 7, 7)[..., :2]
