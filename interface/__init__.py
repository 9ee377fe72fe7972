"""The outside: HTTP, Kafka, the command line and the local stand-ins. Clock, chance and environment enter here."""
