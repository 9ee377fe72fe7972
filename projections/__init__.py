"""Questions and the tables that answer them. Each file holds one: its rows, how facts change them, how it is asked."""
