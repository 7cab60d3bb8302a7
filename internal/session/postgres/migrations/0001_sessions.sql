-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0

-- One row per session. A refresh changes no column of an index, so that it is done in
-- place; the fill factor leaves the room for it.
CREATE TABLE tokenward.sessions (
    policy              text COLLATE "C" NOT NULL, -- UID of the TokenPolicy
    id                  text COLLATE "C" NOT NULL,
    version             text NOT NULL,             -- of the last write
    prior               text NOT NULL,             -- of the one before it
    subject             text NOT NULL,
    generation          bigint NOT NULL,
    current_id          text NOT NULL,
    current_issued_at   timestamptz,
    current_expires_at  timestamptz,
    current_key_id      text NOT NULL,
    current_claims      text,                      -- text, not json: it is minted again byte for byte
    previous_id         text NOT NULL,
    previous_issued_at  timestamptz,
    previous_expires_at timestamptz,
    rotated_at          timestamptz,
    created_at          timestamptz,
    last_refresh_at     timestamptz,
    idle_until          timestamptz,
    expires_at          timestamptz,
    tokens_until        timestamptz,
    revoked_at          timestamptz,
    revoked_reason      text,
    revocation          bigint,                    -- number within the policy, see policies
    keep_until          timestamptz NOT NULL,      -- the row may be removed after it
    forget_after        timestamptz NOT NULL,      -- keep_until, once it is revoked
    PRIMARY KEY (policy, id),
    CHECK ((revoked_at IS NULL) = (revocation IS NULL)),
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
) WITH (fillfactor = 70);

CREATE INDEX sessions_revocations ON tokenward.sessions (policy, revocation) WHERE revocation IS NOT NULL;

-- The last number given to a revocation. Its row is locked until that revocation is
-- committed, so numbers become visible in their order.
CREATE TABLE tokenward.policies (
    policy      text COLLATE "C" PRIMARY KEY,
    revocations bigint NOT NULL
) WITH (fillfactor = 50);
