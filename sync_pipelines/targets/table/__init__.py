"""Access to the rows of one table: reflection, mapping, transactions, reads and writes."""
