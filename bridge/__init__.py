"""Everything that knows torch, LeRobot or gRPC: weights, export, the service, the plugin."""
