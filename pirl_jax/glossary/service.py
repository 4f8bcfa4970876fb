"""Counters of the learner's service, and of the policy server beside it: totals since the process began."""

from pirl_jax.glossary.entry import Entry

_NOTHING = "Nothing by itself."

SERVICE = (
    Entry(
        "actor/messages",
        "Messages that have arrived.",
        "rises",
        "Standing still: no actor plays; see their logs.",
    ),
    Entry(
        "actor/episodes",
        "Episodes that were taken.",
        "rises with actor/messages",
        "See actor/dropped/<reason>.",
    ),
    Entry(
        "actor/duplicates",
        "Messages that had been taken before: an actor repeats what it has no receipt for.",
        "few",
        "Many: the connection breaks often.",
    ),
    Entry(
        "actor/interactions",
        "LeRobot's own notes of ended episodes, which are counted and not opened.",
        "as actor/episodes",
        _NOTHING,
    ),
    Entry("actor/bytes_received", "Bytes of episodes.", "rises", _NOTHING, unit="bytes"),
    Entry(
        "actor/bytes_sent",
        "Bytes of parameters, to all actors together.",
        "rises with each push",
        "push.dtype=bfloat16 halves it.",
        unit="bytes",
    ),
    Entry(
        "actor/actors",
        "Actors that receive parameters now.",
        "as many as were started",
        "Fewer: the others load, have ended, or cannot reach the learner; see their logs.",
    ),
    Entry(
        "actor/playing",
        "Episodes that are being played now.",
        "one an actor",
        "Fewer: actors wait for a version.",
    ),
    Entry(
        "actor/queued",
        "Episodes that have arrived and were not looked at yet.",
        "few",
        "Growing: the learner is slower than its actors.",
    ),
    Entry(
        "actor/version", "Newest version of the parameters that was pushed.", "updates, plus one", _NOTHING
    ),
    Entry(
        "actor/dropped/<reason>",
        "Messages that were dropped: broken, cut off, never assigned, of another run.",
        "0; a few of other_run after a restart",
        "The learner's log names each reason once a minute.",
    ),
    Entry("serve/chunks", "Chunks that the policy server has chosen.", "rises", _NOTHING),
    Entry(
        "serve/batch",
        "Mean number of questions answered together.",
        "about half of the actors",
        "1 with many actors: raise serve.max_wait_ms.",
    ),
    Entry(
        "serve/wait_ms",
        "Mean time that a question has waited for its batch.",
        "below serve/batch_ms",
        "Higher: the server is too slow for so many actors (the doctor says for how many it is enough).",
        unit="ms",
    ),
    Entry(
        "serve/batch_ms",
        "Mean time to answer a batch.",
        "steady",
        "A GPU, or servers of their own.",
        unit="ms",
    ),
    Entry(
        "serve/held_gb",
        "Features that are kept from acting to scoring, in host memory.",
        "below algorithm.serve.features_gb",
        "At the limit features are lost, see serve/evicted.",
        unit="GiB",
    ),
    Entry(
        "serve/evicted",
        "Features that had to go before their episode was scored.",
        "0",
        "Raise algorithm.serve.features_gb.",
    ),
)
