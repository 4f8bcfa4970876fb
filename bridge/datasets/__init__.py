"""LeRobotDatasets as batches and as demonstrations."""
