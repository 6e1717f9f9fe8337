"""The slot's child process, where user code lives, and what is shared with its parent to talk to it."""
