"""What the ingestion service, the consumer and the operator share.

The core knows messages, settings, Kafka and logs. It knows no HTTP routes, no channels and no Kubernetes: those
belong to the packages that stand on it, and import-linter keeps it so.
"""
