"""The database's migrations, run by `proxy.records.database.migrate`."""
