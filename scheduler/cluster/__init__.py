"""Processes of a cluster on this machine: started, supervised, ended."""
