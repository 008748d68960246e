package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Versions are the texts that a secret has at a time.
type Versions struct {
	Current  Secret
	Previous Secret    // the one before, still good during a rotation; empty: none
	Since    time.Time // when Current was made; zero: not known
}

// Source reads a secret where it is kept. Its errors must not quote it.
type Source func(ctx context.Context) (Versions, error)

const (
	defaultReadInterval = 3 * time.Minute
	readTimeout         = 5 * time.Second
	retryInterval       = time.Second

	// A credential that does not pass may be made of a secret that is newer than ours, so the
	// secret is read again; but anyone can send such credentials. Once a second is enough for
	// a secret that changes as often, and costs little.
	renewBurst    = 5
	renewInterval = time.Second
)

// SecretConfig says where a secret that may change is read, and how often. Name and Source
// must be set.
type SecretConfig struct {
	Name   string // for logs and metrics: one of few
	Source Source

	Interval time.Duration // between readings, jittered; zero: 3 min
	Retry    time.Duration // after a reading that went wrong at the start; zero: 1 s

	Log     *slog.Logger // nil: none
	Metrics *Metrics     // nil: none
}

// rotated is a value made of a secret that may change while we run. When the secret cannot be
// read, or what is read is of no use, the last good value stays.
type rotated[T any] struct {
	// set once in openRotated
	cfg    SecretConfig
	makeOf func(Versions) (T, error) // its errors do not quote the secret

	value atomic.Pointer[made[T]]
	limit *rate.Limiter

	mu     sync.Mutex    // guards flight
	flight chan struct{} // closed when the reading under way is over; nil: there is none
}

// made is a value and what it was made of.
type made[T any] struct {
	value    T
	versions Versions
}

// openRotated reads the secret for the first time. While it cannot be read it says so and
// tries again until ctx ends; a secret of no use is an error at once.
func openRotated[T any](ctx context.Context, cfg SecretConfig, makeOf func(Versions) (T, error)) (*rotated[T], error) {
	if cfg.Interval <= 0 {
		cfg.Interval = defaultReadInterval
	}
	if cfg.Retry <= 0 {
		cfg.Retry = retryInterval
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		// Without a registerer nothing can go wrong.
		cfg.Metrics, _ = NewMetrics(nil)
	}
	r := &rotated[T]{cfg: cfg, makeOf: makeOf, limit: rate.NewLimiter(rate.Every(renewInterval), renewBurst)}
	for _, result := range []string{resultGood, resultError} {
		cfg.Metrics.reads.WithLabelValues(cfg.Name, result)
	}
	said := ""
	for {
		err := r.read(ctx)
		if err == nil {
			if said != "" {
				cfg.Log.Info("secret read at last", "secret", cfg.Name)
			}
			return r, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.As(err, new(*uselessError)) {
			return nil, fmt.Errorf("using secret %s: %w", cfg.Name, err)
		}
		if err.Error() != said {
			said = err.Error()
			cfg.Log.Warn("secret unreadable, waiting for it", "secret", cfg.Name, "error", err)
		}
		if !pause(ctx, cfg.Retry) {
			return nil, ctx.Err()
		}
	}
}

// uselessError is of a secret that was read, but holds nothing of use.
type uselessError struct{ err error }

func (e *uselessError) Error() string { return e.err.Error() }
func (e *uselessError) Unwrap() error { return e.err }

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// get is the value as of the last good reading.
func (r *rotated[T]) get() T { return r.value.Load().value }

// Run reads the secret again and again until ctx ends.
func (r *rotated[T]) Run(ctx context.Context) error {
	said := ""
	for {
		// Replicas that started together must not ask together for ever.
		if !pause(ctx, r.cfg.Interval*4/5+rand.N(r.cfg.Interval*2/5)) {
			return ctx.Err()
		}
		err := r.read(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && said != "":
			r.cfg.Log.Info("secret read again", "secret", r.cfg.Name)
			said = ""
		case err != nil && err.Error() != said:
			said = err.Error()
			r.cfg.Log.Warn("secret not read, the last good one stays", "secret", r.cfg.Name, "error", err)
		}
	}
}

// renew reads the secret again because a credential did not pass under seen. It gives the
// newer value if there is one. Readings on this account are limited, and several callers
// share one.
func (r *rotated[T]) renew(seen *made[T]) (*made[T], bool) {
	if newest := r.value.Load(); newest != seen {
		return newest, true
	}
	r.mu.Lock()
	flight := r.flight
	leads := flight == nil && r.limit.Allow()
	if leads {
		flight = make(chan struct{})
		r.flight = flight
	}
	r.mu.Unlock()
	switch {
	case leads:
		// The caller's own context must not end what others wait for.
		if err := r.read(context.Background()); err != nil {
			r.cfg.Log.Debug("secret not read again", "secret", r.cfg.Name, "error", err)
		}
		r.mu.Lock()
		r.flight = nil
		r.mu.Unlock()
		close(flight)
	case flight != nil:
		<-flight
	}
	newest := r.value.Load()
	return newest, newest != seen
}

// read reads the secret once. The value changes only if the secret has.
func (r *rotated[T]) read(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			r.cfg.Metrics.reads.WithLabelValues(r.cfg.Name, resultError).Inc()
			return
		}
		r.cfg.Metrics.reads.WithLabelValues(r.cfg.Name, resultGood).Inc()
		r.cfg.Metrics.readAt.WithLabelValues(r.cfg.Name).SetToCurrentTime()
	}()
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	seen := r.value.Load()
	versions, err := r.cfg.Source(bounded)
	if err != nil {
		return err
	}
	if seen != nil && seen.versions == versions {
		return nil
	}
	value, err := r.makeOf(versions)
	if err != nil {
		return &uselessError{err}
	}
	// Of two readings at once, the one that began on the newer state stands.
	if r.value.CompareAndSwap(seen, &made[T]{value, versions}) && seen != nil {
		r.cfg.Log.Info("secret changed", "secret", r.cfg.Name)
	}
	return nil
}

// Fixed is the Source of a secret that does not change while we run.
func Fixed(current Secret, previous Secret) Source {
	return func(context.Context) (Versions, error) { return Versions{Current: current, Previous: previous}, nil }
}
