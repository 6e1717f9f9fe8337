"""Giving space back: what is referred to (`mark`), what may go (`plan`), making it go (`sweep`), what holds it.

Safe beside any number of writers, by the order of the ledger and by no clock: see `objects/condemned.py` for the
writers' side. Ages and heartbeats only keep a collector from taking what somebody is still using, which would cost
them a repetition and never data.
"""
