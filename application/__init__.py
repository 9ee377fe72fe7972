"""One use case per verb. It talks to the outside through ports and never reads a clock or makes an id."""
