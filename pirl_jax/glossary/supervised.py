"""Metrics that only the supervised warm start (``pirl_jax.sft``) writes; it shares others."""

from pirl_jax.glossary.entry import Entry

_TERMS = {
    "position_loss": "end-effector positions",
    "rotate6D_loss": "end-effector rotations",
    "gripper_loss": "grippers",
    "joints_loss": "joints",
    "left_arm_loss": "the left arm",
    "right_arm_loss": "the right arm",
}
"""Terms of the action spaces' losses (``pirl_jax/xvla/actions.py``)."""

SUPERVISED = (
    Entry(
        "train/loss",
        "Supervised loss, all its terms together.",
        "falls, then levels off",
        "Rising: lower the learning rate.",
    ),
    *(
        Entry(
            f"train/{term}",
            f"Its term of {what}, weighted.",
            "falls",
            "One that stays high: look at these channels in the dataset.",
        )
        for term, what in _TERMS.items()
    ),
    Entry(
        "train/epoch",
        "Passes over the dataset so far.",
        "rises",
        "Many on a small dataset, and the policy knows it by heart: record more.",
    ),
)
