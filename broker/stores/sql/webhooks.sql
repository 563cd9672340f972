-- webhook_position --
SELECT upto FROM webhook_positions WHERE tenant = :tenant AND destination = :destination;

-- webhook_delivered --
-- Only ever forward: a writer that was late takes nothing back.
INSERT INTO webhook_positions (tenant, destination, upto) VALUES (:tenant, :destination, :upto)
ON CONFLICT (tenant, destination) DO UPDATE SET upto = excluded.upto
WHERE excluded.upto > webhook_positions.upto;
