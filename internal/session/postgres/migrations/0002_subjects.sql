-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0
-- oldest: 1

-- The oldest schema whose release can go on with this one; NULL is none. A release that
-- meets a newer schema goes by it.
ALTER TABLE tokenward.migrations ADD COLUMN oldest integer;

-- An order ends the sessions of one subject. No refresh changes a column of it, so that
-- refreshes are done in place as before.
CREATE INDEX sessions_subjects ON tokenward.sessions (policy, subject, id) WHERE revoked_at IS NULL;
