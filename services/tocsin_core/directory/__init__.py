"""Directories that have to be asked over a network: what was answered is remembered, and one that is down is spared.

find ─► cache ─► lookups (one question per user, many users at once) ─► guard (turns, time, breaker) ─► source
"""
