// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tokenward/tokenward/internal/flight"
)

const (
	// tries at a call whose connection breaks, and the first pause between them.
	tries = 4
	pause = 25 * time.Millisecond
	// migrationTimeout is how long a change of the schema may take.
	migrationTimeout = 5 * time.Minute
)

// Database is one PostgreSQL database, shared by the stores of any number of policies.
type Database struct {
	config     Config
	pool       *pgxpool.Pool
	migrations []string
	// migrated says that the schema is there and is ours; migrating joins those who find
	// that out.
	migrated  atomic.Bool
	migrating flight.Group[struct{}, struct{}]
	listener  listener
	// losses is how often the connections were given up together.
	losses atomic.Int64

	ctx   context.Context //nolint:containedctx // the life of the database's own goroutines
	stop  context.CancelFunc
	tasks sync.WaitGroup
}

// Stats are figures for metrics.
type Stats struct {
	// Connections of the pool, of which Idle wait for work; there may be Max.
	Connections, Idle, Max int32
	// Waits is how often a call had to wait for a connection, since the start.
	Waits int64
	// Listening says that notifications of revocations arrive.
	Listening bool
}

// Open makes no connection yet. It fails for a [Config] that cannot be understood
// alone, with an [*Error] of the kind [Misconfigured]. [Database.Close] ends it.
func Open(config Config) (*Database, error) {
	config = config.complete()
	settings, err := config.pool()
	if err != nil {
		return nil, err
	}
	all, err := migrations(migrationFiles)
	if err != nil {
		return nil, err
	}
	d := &Database{config: config, migrations: all}
	d.ctx, d.stop = context.WithCancel(context.Background())
	if d.pool, err = pgxpool.NewWithConfig(d.ctx, settings); err != nil {
		d.stop()
		return nil, classify(err)
	}
	d.listener = listener{database: d, config: listening(settings.ConnConfig), feeds: map[*feed]struct{}{}}
	d.tasks.Go(d.sweepNowAndThen)
	return d, nil
}

// Close ends the stores and the connections. It waits for the calls under way, which
// take no longer than the timeout.
func (d *Database) Close() error {
	d.listener.mu.Lock() // so that no listening begins any more
	d.stop()
	d.listener.mu.Unlock()
	d.tasks.Wait()
	d.migrating.Wait()
	d.pool.Close()
	return nil
}

// Stats returns figures for metrics.
func (d *Database) Stats() Stats {
	s := d.pool.Stat()
	return Stats{
		Connections: s.TotalConns(), Idle: s.IdleConns(), Max: s.MaxConns(),
		Waits: s.EmptyAcquireCount(), Listening: d.listener.connected.Load(),
	}
}

// Check says whether the database is good for a session store, and brings its schema
// up to date. An error is an [*Error], or that of ctx.
//
// Stores that are at work stay so when it finds that a newer release has changed the
// schema: while that release is rolled out, processes of this one still answer.
func (d *Database) Check(ctx context.Context) error {
	return d.again(ctx, func(ctx context.Context) error {
		if err := d.ensureSchema(ctx); err != nil {
			return err
		}
		return d.once(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			if _, err := conn.Exec(ctx, "SELECT FROM tokenward.policies, tokenward.attempts LIMIT 0"); err != nil {
				return err
			}
			var found loaded
			return found.query(ctx, conn, "", "")
		})
	})
}

// do has work done on a connection, with the schema there. It is done again where the
// connection breaks, so work must come to the same when it is done twice.
func (d *Database) do(ctx context.Context, work func(context.Context, *pgx.Conn) error) error {
	return d.again(ctx, func(ctx context.Context) error {
		if !d.migrated.Load() {
			if err := d.ensureSchema(ctx); err != nil {
				return err
			}
		}
		return d.once(ctx, work)
	})
}

// again makes up to so many attempts, within the timeout, while it may help.
func (d *Database) again(ctx context.Context, attempt func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	var err error = errClosed
	for n := 0; n < tries && d.ctx.Err() == nil; n++ {
		if n > 0 && sleep(bounded, pause<<n) != nil {
			break
		}
		if err = attempt(bounded); err == nil {
			return nil
		}
		if !passing(err) {
			break
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case d.ctx.Err() != nil:
		return errClosed
	}
	return classify(err)
}

func (d *Database) once(ctx context.Context, work func(context.Context, *pgx.Conn) error) error {
	losses := d.losses.Load()
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return d.orBusy(err)
	}
	defer conn.Release()
	err = work(ctx, conn.Conn())
	if err != nil && newConnectionNeeded(err) {
		_ = conn.Conn().Close(ctx) // the pool makes another one
	}
	if err != nil && ctx.Err() == nil && conn.Conn().IsClosed() && d.losses.CompareAndSwap(losses, losses+1) {
		// What has cut this one, such as a restart of the server, has probably cut those that
		// wait beside it, too: a call that met one of them after the other would run out of tries.
		// However many calls find that out, they give up what was there at that time once.
		d.pool.Reset()
	}
	if err != nil && schemaGone(err) {
		d.migrated.Store(false)
	}
	return err
}

// ensureSchema ends with the database, but not with the first caller that gives up.
func (d *Database) ensureSchema(ctx context.Context) error {
	_, _, err := d.migrating.Do(ctx, struct{}{}, migrationTimeout, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(d.ctx, cancel) //nolint:contextcheck // it ends with either of the two
		defer stop()
		return struct{}{}, d.migrate(ctx)
	})
	return d.orBusy(err)
}

// orBusy tells waiting for a connection in vain from waiting for the server.
func (d *Database) orBusy(err error) error {
	if stat := d.pool.Stat(); errors.Is(err, context.DeadlineExceeded) && stat.AcquiredConns() >= stat.MaxConns() {
		return errBusy
	}
	return err
}

func (d *Database) migrate(ctx context.Context) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if err := migrate(ctx, conn.Conn(), d.migrations); err != nil {
		return err
	}
	d.migrated.Store(true)
	return nil
}

// prepare looks at a new connection: it must lead to a server that takes writes. It
// sets what the store relies on, whatever the server's defaults are: a transaction of
// another isolation would fail where this one waits, and one that is committed only in
// memory would be forgotten by a crash after its token has been handed out.
func (c Config) prepare(ctx context.Context, conn *pgconn.PgConn) error {
	timeout := strconv.FormatInt(c.Timeout.Milliseconds(), 10)
	results, err := conn.Exec(ctx, `SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
		set_config('default_transaction_isolation', 'read committed', false),
		set_config('statement_timeout', '`+timeout+`', false),
		set_config('lock_timeout', '`+timeout+`', false),
		set_config('idle_in_transaction_session_timeout', '`+timeout+`', false),
		set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)`).ReadAll()
	if err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || string(results[0].Rows[0][0]) != "f" {
		return errStandby
	}
	return nil
}

// sleep returns the context's error if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// around is d give or take a half, so that many do not do it together.
func around(d time.Duration) time.Duration {
	return d/2 + rand.N(d) //nolint:gosec // spreads work, hides nothing
}
