-- high_water --
SELECT only, at_ms, mac, mac_key_id FROM high_water WHERE only = 1;

-- raise_high_water --
-- Only forwards, unless what stands there was :forged by somebody else.
INSERT INTO high_water (only, at_ms, mac, mac_key_id) VALUES (1, :at_ms, :mac, :mac_key_id)
ON CONFLICT (only) DO UPDATE
SET at_ms = excluded.at_ms, mac = excluded.mac, mac_key_id = excluded.mac_key_id
WHERE excluded.at_ms > at_ms OR :forged;
