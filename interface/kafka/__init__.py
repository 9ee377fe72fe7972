"""Facts out to Kafka, orders in from it."""

# The publisher's name in `checkpoints` and `parked`: here, so that who shows it needs no Kafka client.
PUBLISHER = "publisher"
