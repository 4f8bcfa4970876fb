"""Which room may import which, and whether the picture of it is today's."""

import rooms

GROUND = {"console", "typing", "files", "trees", "run_folder", "rows", "linear", "optim", "placement"}
LEARNER = {
    "typing": set(),
    "files": set(),
    "console": {"files"},
    "trees": set(),
    "recipe": set(),
    "run_folder": {"files", "recipe"},
    "rows": {"typing"},
    "linear": {"typing"},
    "optim": {"typing"},
    "placement": {"recipe", "typing"},
    "glossary": set(),
    "ending": {"run_folder"},
    "command": {"console", "ending", "recipe", "run_folder"},
    "policy": {"linear", "typing"},
    "xvla": GROUND,
    "likelihood": {*GROUND, "policy", "recipe"},
    "rollout": {*GROUND, "likelihood", "policy", "recipe"},
    "serving": {*GROUND, "likelihood", "policy", "recipe", "rollout"},
    "supervised": {*GROUND, "recipe", "xvla"},
    "update": {*GROUND, "likelihood", "policy", "recipe", "rollout", "supervised"},
    "training": {*GROUND, "likelihood", "policy", "recipe", "rollout", "update"},
    "diagnosis": {
        *GROUND,
        "glossary",
        "likelihood",
        "policy",
        "recipe",
        "rollout",
        "serving",
        "training",
        "update",
    },
}
"""Rooms of ``pirl_jax`` → those of ``pirl_jax`` that they may import, from the ground up."""
BRIDGE = {
    "processes": {"pirl_jax/files"},
    "trust": {"pirl_jax/recipe"},
    "wire": {
        "bridge/trust",
        *(f"pirl_jax/{room}" for room in ("console", "likelihood", "recipe", "rollout", "serving")),
    },
    "actors": {
        *(f"bridge/{room}" for room in ("libero", "plugin", "weights", "wire")),
        *(f"pirl_jax/{room}" for room in ("rollout", "serving")),
    },
    "replica": {
        *(f"bridge/{room}" for room in ("plugin", "trust", "weights", "wire")),
        *(f"pirl_jax/{room}" for room in ("recipe", "rollout", "serving", "typing")),
    },
    "datasets": {"bridge/wire", "pirl_jax/files", "pirl_jax/supervised", "pirl_jax/xvla"},
    "libero": {
        "bridge/command",
        *("bridge/datasets", "bridge/processes"),
        *(f"pirl_jax/{room}" for room in ("command", "console", "ending", "files")),
    },
    "plugin": {
        *("bridge/libero", "bridge/trust", "bridge/wire"),
        *("pirl_jax/likelihood", "pirl_jax/recipe", "pirl_jax/rollout", "pirl_jax/run_folder"),
        *("pirl_jax/command", "pirl_jax/console", "pirl_jax/ending", "pirl_jax/trees", "pirl_jax/xvla"),
    },
    "weights": {
        "bridge/command",
        "bridge/plugin",
        *(f"pirl_jax/{room}" for room in ("console", "files", "likelihood", "run_folder", "trees", "xvla")),
    },
    "settings": {
        "bridge/plugin",
        "bridge/trust",
        "bridge/wire",
        "pirl_jax/likelihood",
        "pirl_jax/recipe",
        "pirl_jax/rollout",
        "pirl_jax/run_folder",
        "pirl_jax/trees",
        "pirl_jax/xvla",
    },
    "launch": {
        "bridge/command",
        *(f"bridge/{room}" for room in ("plugin", "processes", "trust", "weights", "wire")),
        *(f"pirl_jax/{room}" for room in ("command", "console", "ending", "files")),
        *(f"pirl_jax/{room}" for room in ("recipe", "run_folder", "training")),
    },
    "videos": {f"pirl_jax/{room}" for room in ("files", "recipe", "rollout", "typing")},
    "figures": set(),
    "command": set(),
    "card": {
        "bridge/command",
        *(f"bridge/{room}" for room in ("evaluate", "figures", "plugin", "watch", "weights")),
        *(f"pirl_jax/{room}" for room in ("console", "ending", "files", "run_folder", "training")),
    },
    "watch": {
        "bridge/command",
        "bridge/wire",
        *(
            f"pirl_jax/{room}"
            for room in ("console", "diagnosis", "files", "glossary", "recipe", "run_folder", "training")
        ),
    },
    "evaluate": {
        "bridge/command",
        *("bridge/figures", "bridge/libero", "bridge/videos", "bridge/watch"),
        *(f"pirl_jax/{room}" for room in ("console", "ending", "files", "run_folder", "training")),
    },
    "demo": {
        "bridge/command",
        *(f"bridge/{room}" for room in ("datasets", "evaluate", "figures", "launch", "plugin", "processes")),
        *(f"pirl_jax/{room}" for room in ("command", "console", "ending", "run_folder", "training")),
    },
}
"""Rooms of ``bridge`` → what they may import."""
ALLOWED = {
    **{f"pirl_jax/{room}": {f"pirl_jax/{other}" for other in others} for room, others in LEARNER.items()},
    **{f"bridge/{room}": others for room, others in BRIDGE.items()},
}


def test_every_arrow_is_in_the_table():
    others = {
        f"{room} → {other}"
        for room, found in rooms.arrows().items()
        if room not in rooms.COMMANDS
        for other in found - ALLOWED.get(room, set())
    }
    assert not others, "not allowed: " + ", ".join(sorted(others))


def test_the_learners_rooms_form_no_circle():
    above: dict[str, set[str]] = {}
    for room, others in LEARNER.items():  # in the table's order each stands on what came before it
        assert others <= set(above), f"{room} imports {sorted(others - set(above))}, which come later"
        above[room] = others


def test_the_picture_is_that_of_the_imports():
    page = rooms.PAGE.read_text()
    assert rooms.page_with_picture(page) == page, "run: python docs/rooms.py --write"
