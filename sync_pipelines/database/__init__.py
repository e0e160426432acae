"""The ledger, its migrations, and the connections to it and to local records."""
