-- What kind of work a task is, as its creator said: policy decides on it.
--
-- NULL in rows of the schema before, whose MAC does not cover it; every task started since says something, if only
-- that nothing was said ('').
ALTER TABLE tasks ADD COLUMN task_type TEXT CHECK (task_type IS NULL OR length(task_type) <= 63);
