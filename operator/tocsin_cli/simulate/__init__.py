"""`tocsin simulate`: what a scaling policy would make of a load, before anybody's notifications depend on it."""
