"""The real services that the stand-ins stand in for, on this machine: only `make test-peers` starts them."""
