-- What a connector of kind `postgresql` needs, for a database `shop` with a table `orders`. Run once, as a superuser,
-- connected to that database (PostgreSQL 16 or later):  psql -d shop -f setup.sql,  then  \password jit_broker

-- The broker's own login: it makes roles, and nothing else.
CREATE ROLE jit_broker LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS;

-- What it may hand on. It cannot grant what it has not got WITH GRANT OPTION.
GRANT USAGE ON SCHEMA public TO jit_broker WITH GRANT OPTION;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.orders TO jit_broker WITH GRANT OPTION;

-- Or by a role: its members have its privileges. ADMIN lets the broker make members; it is none itself that could act.
CREATE ROLE orders_reader NOLOGIN;
GRANT USAGE ON SCHEMA public TO orders_reader;
GRANT SELECT ON public.orders TO orders_reader;
GRANT orders_reader TO jit_broker WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;

-- A place where logins may make objects of their own; these are dropped with them.
CREATE SCHEMA scratch;
GRANT USAGE, CREATE ON SCHEMA scratch TO jit_broker WITH GRANT OPTION;

-- What everybody may do, every login may do, whatever its template says.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
REVOKE CONNECT ON DATABASE template1 FROM PUBLIC;
