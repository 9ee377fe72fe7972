"""The ledger's rules: pure functions over frozen values. No clock, no chance, no input or output."""
