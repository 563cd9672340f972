-- How far each webhook destination has been told of the audit trail. No grant rests on it.
CREATE TABLE webhook_positions (
    tenant      TEXT    NOT NULL CHECK (tenant <> ''),
    destination TEXT    NOT NULL CHECK (destination <> ''),
    upto        INTEGER NOT NULL CHECK (upto >= 0),
    PRIMARY KEY (tenant, destination)
) STRICT;
