"""What dmlpipe costs beside honest alternatives; README.md states the question of each benchmark."""
