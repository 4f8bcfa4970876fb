"""Metrics of the evaluations that a run makes of itself: a row each, whose step is its policy's updates."""

from pirl_jax.glossary.entry import Entry

EVALUATIONS = (
    Entry(
        "eval/pc_success",
        "Success of the noise-free policy, over the same episodes each time.",
        "rises; above the exploring policy's",
        "Flat while training success rises: the noise is what is learned; lower noise.level.",
        unit="%",
    ),
    Entry(
        "eval/pc_success/<task>",
        "The same of one task.",
        "no task falls while others rise",
        "Few episodes each: look at several evaluations, or raise eval.n_episodes.",
        unit="%",
    ),
    Entry(
        "eval/interval_low",
        "Lower end of Wilson's 95 % interval of eval/pc_success.",
        "above what the run began with, once it has learned",
        "Too wide to tell: raise eval.n_episodes; four times the episodes halve it.",
        unit="%",
    ),
    Entry(
        "eval/interval_high",
        "Upper end of the same interval.",
        "near eval/pc_success: what you look for is larger than the interval",
        "As for eval/interval_low.",
        unit="%",
    ),
    Entry(
        "eval/n_episodes",
        "Episodes that the evaluation is of.",
        "eval.n_episodes",
        "Fewer: see eval/given_up.",
    ),
    Entry(
        "eval/given_up",
        "Episodes of the evaluation that could not be played in three tries.",
        "0",
        "Look at the logs of learner and actors.",
    ),
    Entry(
        "eval/avg_sum_reward",
        "Mean of the episodes' summed rewards.",
        "rises with success",
        "See train/return.",
    ),
    Entry(
        "eval/version_lag",
        "By how many versions the newest chunk's policy was newer than the evaluated one.",
        "0: nothing is pushed meanwhile",
        "Please report it.",
    ),
    Entry(
        "eval/eval_s",
        "Time from the push of the evaluated policy to the end of its last episode.",
        "about the time of an update",
        "Longer: fewer eval.n_episodes, a larger env_eval_freq, more actors.",
        unit="s",
    ),
    Entry(
        "eval/wait_s",
        "Time that the learner, done with its update, waited for the evaluation.",
        "near 0",
        "As for eval/eval_s.",
        unit="s",
    ),
)
