-- One key a person, wrapped by the deployment's ENCRYPTION_KEY. Deleting the row erases what was sealed with it.
CREATE TABLE person_keys (
    person  text PRIMARY KEY,
    wrapped bytea NOT NULL
);
