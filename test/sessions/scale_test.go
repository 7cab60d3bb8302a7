// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

// scale says how often each figure is tried.
type scale struct {
	// full is a benchmark: its times are worth reporting.
	full bool
	// once is the number of rounds per store of the exactly-once figure, calls the
	// requests of each.
	once, calls int
	// crashes are spread over stores and steps.
	crashes int
	// thefts and interleavings are per store.
	thefts, interleavings int
	// sidecars follow revocations; revocations are per store and kind of trouble.
	sidecars, revocations int
	// sessions are in a store whose rate is measured; seconds is how long.
	sessions, seconds int
	// logins of each kind, per user source.
	logins int
}

func fewRounds() scale {
	return scale{
		once: 4, calls: 200, crashes: 15, thefts: 2, interleavings: 2,
		sidecars: 50, revocations: 2, sessions: 40, seconds: 1, logins: 2,
	}
}

// manyRounds is the benchmark of the goals when n is 1,000.
func manyRounds(n int) scale {
	per := func(thousand int) int { return max(1, thousand*n/1000) }
	return scale{
		full: true,
		once: max(4, n), calls: 200, crashes: max(15, n), thefts: per(100), interleavings: per(200),
		sidecars: 50, revocations: max(2, per(100)), sessions: max(100, per(10000)), seconds: per(20), logins: max(3, per(1000)),
	}
}
