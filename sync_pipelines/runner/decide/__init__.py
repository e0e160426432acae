"""What is to become of each item: the diff, by pages or by the database, and the rules that it follows."""
