"""LeRobotDataset v3.0, v2.1 and v2.0: reader and writer."""
