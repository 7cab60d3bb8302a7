-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0
-- oldest: 1

-- One row per key whose allowance is not whole (package attempts). A row that is older
-- than its moment may be removed. No index has the moment: it changes each time.
CREATE TABLE tokenward.attempts (
    policy text COLLATE "C" NOT NULL,
    key    text COLLATE "C" NOT NULL,
    whole  bigint NOT NULL, -- the moment, in milliseconds since 1970
    writer text NOT NULL,   -- of the last change
    PRIMARY KEY (policy, key)
) WITH (fillfactor = 50);
