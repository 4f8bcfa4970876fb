"""Every metric that a run writes: what it means, what is healthy, what to do.

``docs/metrics.md`` and the run page are made of it. Standard library only.
"""

from pirl_jax.glossary.entry import Entry
from pirl_jax.glossary.episodes import EPISODES
from pirl_jax.glossary.evaluations import EVALUATIONS
from pirl_jax.glossary.service import SERVICE
from pirl_jax.glossary.supervised import SUPERVISED
from pirl_jax.glossary.turn import TURN
from pirl_jax.glossary.update import UPDATE

SECTIONS: dict[str, tuple[Entry, ...]] = {
    "Episodes": EPISODES,
    "Evaluation by the run itself": EVALUATIONS,
    "The update": UPDATE,
    "Where the time goes": TURN,
    "Learner service and policy server": SERVICE,
    "Supervised warm start": SUPERVISED,
}
"""Title → entries, in the order of a page."""
GLOSSARY: tuple[Entry, ...] = tuple(entry for entries in SECTIONS.values() for entry in entries)

__all__ = ["GLOSSARY", "SECTIONS", "Entry", "entry_of"]


def entry_of(metric: str) -> Entry | None:
    """Return the entry that explains a metric, a name of its own before one with ``<…>``; None: none does."""
    found = [entry for entry in GLOSSARY if entry.explains(metric)]
    return min(found, key=lambda entry: entry.prefix is not None, default=None)
