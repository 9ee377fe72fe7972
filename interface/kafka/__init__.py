"""Facts out to Kafka."""
