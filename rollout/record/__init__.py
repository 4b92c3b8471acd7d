"""Expert demonstrations as a LeRobotDataset."""
