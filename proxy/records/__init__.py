"""What Lockgate keeps: the database with its tables, and the journal."""
