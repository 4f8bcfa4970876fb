"""Metrics of the episodes that an update learns from, and of those that it does not."""

from pirl_jax.glossary.entry import Entry

_PLAYED_AGAIN = "0; each one is played again"

EPISODES = (
    Entry(
        "train/success_rate",
        "Share of the update's episodes that succeeded, of the exploring policy: its noise costs success.",
        "rises over tens of updates; between 5 and 95 % there is most to learn from",
        "Near 0 or 1 episodes teach little: begin from a better policy, or on a harder task.",
    ),
    Entry(
        "train/success_rate/<task>",
        "The same of one task's episodes; absent in updates without one.",
        "no task falls while others rise",
        "A task that stays at 0 costs episodes: env.task_sampling=weighted, or rollout.task_success_range.",
    ),
    Entry(
        "train/recent_success_rate/<task>",
        "A task's success over its last rollout.task_window episodes, dropped ones included.",
        "within rollout.task_success_range, outside of which the task's episodes are left out",
        "Outside for long: narrow env.task_ids, or widen the range.",
    ),
    Entry(
        "train/return",
        "Mean over episodes of the sum of their rewards.",
        "rises; equals the success rate where success alone is rewarded",
        "Flat while the success rate rises: the reward is not what you want.",
    ),
    Entry(
        "train/episode_chunks",
        "Mean number of chunks of an episode.",
        "falls as episodes succeed sooner",
        "At rollout.max_chunks nearly all run into the limit: raise it, or begin from a better policy.",
    ),
    Entry(
        "train/episodes",
        "Episodes that the update has learned from.",
        "rollout.episodes_per_update",
        "Nothing: a stopped run has no row with fewer.",
    ),
    Entry(
        "train/noise_level",
        "Mean noise level that the learned chunks were played with.",
        "as noise.level says, or falling as its schedule says",
        "Nothing, unless it is not what you configured.",
    ),
    Entry(
        "train/stale_fraction",
        "Share of chunks that were chosen by an older policy than the newest when the update began.",
        "0 with rollout.max_staleness=0; below 0.8 otherwise",
        "Nearly all are old: fewer actors, or a faster update; with objective.decoupled they do less harm.",
        high=0.95,
    ),
    Entry(
        "train/actor_learner_logprob_gap",
        "Largest difference between an actor's log-probability of a chunk and the learner's.",
        "below 0.01 with an encoder in float32, 0.2 in bfloat16",
        "They do not run the same network: same config, checkpoint and precision on both sides? "
        "The doctor looks at it before a run (docs/numerics.md).",
        unit="nats a chunk",
        high=0.2,
    ),
    Entry(
        "train/encoder_calls",
        "How often the encoder was applied to an observation, acting and scoring together; served runs only.",
        "1 where features are kept from acting to scoring",
        "Nearer to 2: features are lost in between; raise algorithm.serve.features_gb.",
        high=2.0,
    ),
    Entry(
        "dropped/stale_chunks",
        "Chunks of learned episodes whose policy is too old to be known: the policy's loss leaves them out.",
        "0, or few beside all of an update",
        "Raise rollout.max_staleness, or have fewer episodes open: fewer actors.",
    ),
    Entry(
        "dropped/unknown_version",
        "Episodes all of whose chunks were chosen by policies that are too old.",
        _PLAYED_AGAIN,
        "An actor is very slow, or was suspended: look at its log, raise rollout.max_staleness.",
        high=1.0,
    ),
    Entry(
        "dropped/not_finite",
        "Episodes whose log-probability is not finite.",
        _PLAYED_AGAIN,
        "Actions, tokens or a domain id that the policy cannot have seen: same config on both sides?",
        high=0.0,
    ),
    Entry(
        "dropped/gap",
        "Episodes that were played otherwise than the learner scores them, by ten times what is tolerated.",
        _PLAYED_AGAIN,
        "Give learner and actors the same config, checkpoint and precision (docs/numerics.md).",
        high=0.0,
    ),
    Entry(
        "dropped/given_up",
        "Episodes whose number was handed out three times without anything usable.",
        "0",
        "Look at the logs of learner and actors: the environment may fail on an initial state.",
        high=0.0,
    ),
    Entry(
        "dropped/broken_group",
        "Episodes of a group of which another one could not be played (advantage.estimator=group).",
        "0",
        "As for dropped/given_up.",
        high=0.0,
    ),
    Entry(
        "dropped/uniform_group",
        "Episodes of groups with equal returns, or outside rollout.group_return_range: they teach nothing.",
        "less than half of what is played",
        "The task is too easy or too hard for groups: other tasks, larger groups, a wider range.",
    ),
    Entry(
        "dropped/uniform_task",
        "Episodes of tasks that succeed too seldom or too often (rollout.task_success_range).",
        "less than half of what is played",
        "Leave such tasks out (env.task_ids), or widen the range.",
    ),
)
