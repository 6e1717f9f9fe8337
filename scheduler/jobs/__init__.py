"""Runs and jobs: the controller, one job under way, and the records that end it."""
