"""The policies that can be compared: Tocsin's own decision, and the published formulas of others.

The others are written from their documentation and sources as published, with their defaults, and are kept as small as
the formula: each module says what it takes from where.
"""
