"""`tocsin dlq`: what ended in the dead-letter topic, and what becomes of it.

Kafka cannot delete single records, so a dead letter that was replayed or discarded stays in its topic until retention
takes it, and a marker record behind it says that it is settled. `DeleteRecords` was refused, because it only cuts off
whole beginnings of a partition; so was a topic of its own, which somebody would have to create and keep.
"""
