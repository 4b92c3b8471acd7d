"""`vla report`: a run or a suite as one self-contained HTML page, without scripts or network."""
