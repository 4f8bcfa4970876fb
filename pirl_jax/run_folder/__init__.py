"""The folder of a run as LeRobot lays it out, and what of it is kept.

    <output_dir>/
      .lock                      held by the process that writes here
      metrics.jsonl
      status.json                how the run stands: what it waits for, its actors
      train_config.json          what it was started with
      checkpoints/
        000010/
          manifest.json          size and SHA-256 of every file below
          pretrained_model/      the policy's settings and processors; weights where the list below says so
          training_state/
            orbax/               what changes from update to update: weights, critic, optimiser, RNG, counters
            training_step.json   {"step": 10, …}
        best -> 000010           of those scored, the one with the highest score
        last -> 000020           moved only when everything above is complete

``pretrained_model`` holds all of the weights, those that never change included, in ``last`` and ``best``, or
in every checkpoint (``Retention.export``). They are written anew from the training state by
``pirl-convert --step``: of a ``best``, too, that became so later, in the place of one written over.

Standard library only: a run's config has a ``Retention``, and actors read configs.
"""
