"""Everything that knows torch, LeRobot or gRPC: weights, checkpoints, the learner service, the actor plugin."""
