-- Tokens that are refused although they have not expired: never the token itself.
CREATE TABLE invalidated_tokens (
    jti            text PRIMARY KEY,
    expires_at     timestamptz NOT NULL,
    invalidated_at timestamptz NOT NULL
);
CREATE INDEX invalidated_tokens_latest ON invalidated_tokens (invalidated_at);
CREATE INDEX invalidated_tokens_oldest ON invalidated_tokens (expires_at);

-- When each caller's latest requests were, in milliseconds since 1970. A crash may forget them: they are worth a minute.
CREATE UNLOGGED TABLE recent_requests (
    caller  text PRIMARY KEY,
    at_ms   bigint[] NOT NULL,
    last_ms bigint NOT NULL,
    granted boolean NOT NULL
);
CREATE INDEX recent_requests_oldest ON recent_requests (last_ms);
