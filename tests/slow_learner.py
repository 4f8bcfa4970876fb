"""The learner, as it is with a policy whose steps take minutes: ``python -m slow_learner …``.

The first update goes as ever. In the second one's second minibatch a part takes for ever, in compiled code.
"""

import jax

from pirl_jax import learner
from pirl_jax.training import loop
from pirl_jax.update import update


def main() -> None:
    """Run the learner's command line."""
    endless = jax.jit(lambda x: jax.lax.while_loop(lambda y: y >= 0, lambda y: (y + 1) % 7, x))
    turn, wait = loop._update, update._wait_for_all_but_one
    updates = parts = 0

    def counted(*arguments):
        nonlocal updates, parts
        updates, parts = updates + 1, 0
        return turn(*arguments)

    def slow(running):
        nonlocal parts
        parts += 1
        if (updates, parts) == (2, 2):
            print("in a slow step", flush=True)
            endless(1).block_until_ready()
        wait(running)

    loop._update, update._wait_for_all_but_one = counted, slow
    learner.main()


if __name__ == "__main__":
    main()
