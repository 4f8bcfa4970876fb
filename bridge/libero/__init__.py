"""LIBERO for the actor: its installation, its cameras, its tasks as one environment.

Nothing here is imported with the plugin: LIBERO is an optional dependency (``pirl-jax[libero]``) and slow to
import.
"""
