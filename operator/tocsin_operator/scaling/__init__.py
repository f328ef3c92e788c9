"""Pure scaling: observations in, one explained decision out; and the loop that feeds it."""
