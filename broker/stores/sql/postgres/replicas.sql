-- ledger_timeline --
-- The first eight digits of the name of a file of the write-ahead log.
SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
