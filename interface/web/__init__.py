"""The HTTP interface, served by Litestar."""
