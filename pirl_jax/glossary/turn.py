"""Metrics of a turn of the loop: where its time goes."""

from pirl_jax.glossary.entry import Entry

TURN = (
    Entry(
        "train/collect_s",
        "Time until the update had its episodes, scoring on this thread included.",
        "train/wait_s and some scoring",
        "See train/wait_s.",
        unit="s",
    ),
    Entry(
        "train/wait_s",
        "Part of it in which there was nothing to score: the learner waited for actors.",
        "below a third of the turn",
        "More actors; rollout.max_staleness=1 or 2, with which they play during updates.",
        unit="s",
    ),
    Entry(
        "train/score_s",
        "Time of encoding and scoring, on a thread beside the update included.",
        "below the update's",
        "A GPU; inference=served keeps what was encoded to act on.",
        unit="s",
    ),
    Entry(
        "train/release_s",
        "Time until nobody read the old parameters any more: a push or a checkpoint was under way.",
        "near 0",
        "Save less often (save_freq); a faster disk; push.dtype=bfloat16.",
        unit="s",
    ),
    Entry(
        "train/update_s",
        "Time of the update itself, laying out of rows and beginning of the push included.",
        "the same in each update, after the first",
        "Fewer optimizer.num_epochs, a larger microbatch_size, a GPU; the first one compiles.",
        unit="s",
    ),
    Entry(
        "train/push_s",
        "Time of the newest push that is over; it goes on beside the next turn.",
        "below the turn's",
        "push.dtype=bfloat16; inference=served, which pushes nothing to actors.",
        unit="s",
    ),
    Entry(
        "train/save_s",
        "Time of the newest checkpoint that is over; it is written beside the next turn.",
        "below the turn's",
        "Save less often (save_freq), or to a faster disk.",
        unit="s",
    ),
    Entry(
        "train/samples_per_s",
        "Decision points that were learned from, a second of the turn.",
        "steady",
        "Falling: look at which of the times above has grown.",
        unit="1/s",
    ),
    Entry(
        "train/compilations",
        "Programs that were compiled in this turn.",
        "some in the first update, 0 after",
        "Later ones cost time each: please report it with your config.",
    ),
)
