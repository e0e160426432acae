"""What differs from database to database: a module for each, and one for all the others."""
