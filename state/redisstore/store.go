// Package redisstore keeps the state in Redis: one server, Sentinel or Cluster. Every
// transition is one script in one round trip; docs/state.md lists the keys. It decides
// nothing about sessions or containers beyond what package state documents.
package redisstore

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/wallcrawler/wallcrawler/state"
)

// Limits of one call. A store that does not answer within them is unavailable.
const (
	dialTimeout = 2 * time.Second
	callTimeout = 2 * time.Second
	poolSize    = 32
)

// Options say where the store is.
type Options struct {
	Addrs         []string // host:port of the server, of the sentinels, or of some cluster nodes
	MasterName    string   // not empty: Addrs are sentinels, and this is their master
	IsClusterMode bool     // a cluster although Addrs is one configuration endpoint
	DB            int      // not on a cluster
	Username      string
	Password      string
	TLS           *tls.Config // nil: plain TCP

	Deployment string                // names the control keys; empty: default
	Log        *slog.Logger          // nil: none
	Metrics    prometheus.Registerer // nil: none

	// Client, if set, is used instead of dialling Addrs. The caller closes it, after the store.
	Client redis.UniversalClient

	// EnableKeyspaceEvents asks the server for notifications of changed documents, keeping
	// those that are configured already. A server that refuses is left as it is.
	EnableKeyspaceEvents bool
}

// Store is state.Store on Redis. Its methods may be called from several goroutines.
type Store struct {
	client  redis.UniversalClient
	cluster *redis.ClusterClient // nil unless client is one
	owned   bool                 // we made the client, so we close it
	db      int
	keys    keys
	name    string // of the deployment
	scripts map[string]*redis.Script
	calls   combiner
	log     *slog.Logger
	metrics *metrics
	seen    atomic.Int64 // highest revision that this process has seen
	homes   homes
}

var _ state.Store = (*Store)(nil)

// Open connects to the store and claims it for the deployment: ErrOtherDeployment if it
// serves another, ErrUnavailable if it does not answer. The caller closes it.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Deployment == "" {
		o.Deployment = "default"
	}
	if !state.ValidID(o.Deployment) {
		return nil, fmt.Errorf("%w: deployment %q: use letters, digits, _ and -", state.ErrInvalid, o.Deployment)
	}
	if o.Client == nil && len(o.Addrs) == 0 {
		return nil, fmt.Errorf("%w: no address of a Redis given", state.ErrInvalid)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	scripts, err := loadScripts()
	if err != nil {
		return nil, err
	}
	s := &Store{
		client: o.Client, db: o.DB, keys: newKeys(o.Deployment), name: o.Deployment, scripts: scripts,
		log: o.Log,
	}
	if s.client == nil {
		s.client, s.owned = dial(o), true
	}
	switch c := s.client.(type) {
	case *redis.ClusterClient:
		s.cluster, s.db = c, 0
	case *redis.Client:
		s.db = c.Options().DB
	}
	s.calls.client = s.client
	if err := s.claim(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	// Only now: a caller that waits for its Redis opens again with the same registry.
	s.metrics = newMetrics(o.Metrics, scripts)
	if o.EnableKeyspaceEvents {
		s.enableKeyspaceEvents(ctx)
	}
	return s, nil
}

// dial makes the client for the options. It connects when first used.
func dial(o Options) redis.UniversalClient {
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: o.Addrs, MasterName: o.MasterName, IsClusterMode: o.IsClusterMode, DB: o.DB,
		Username: o.Username, Password: o.Password, TLSConfig: o.TLS, Protocol: 2,
		// A script whose answer was lost may have run: whoever called it must look again.
		MaxRetries:  -1,
		DialTimeout: dialTimeout, DialerRetries: 1,
		ReadTimeout: callTimeout, WriteTimeout: callTimeout, PoolTimeout: callTimeout,
		ContextTimeoutEnabled: true, PoolSize: poolSize,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// claim makes this Redis the deployment's, or finds that it is another's.
func (s *Store) claim(ctx context.Context) error {
	pipe := s.client.Pipeline()
	pipe.SetNX(ctx, deploymentKey, s.name, 0)
	name := pipe.Get(ctx, deploymentKey)
	pipe.SetNX(ctx, s.keys.incarnation, rand.Text(), 0)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("opening the store: %w", answer(err))
	}
	if name.Val() != s.name {
		return fmt.Errorf("%w: %s; give each deployment a Redis of its own, this one is %s",
			state.ErrOtherDeployment, name.Val(), s.name)
	}
	return nil
}

// Ping tells whether the store answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("pinging the store: %w", answer(err))
	}
	return nil
}

// Close lets go of the connections that the store made.
func (s *Store) Close() error {
	s.calls.close()
	if !s.owned {
		return nil
	}
	if err := s.client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return fmt.Errorf("closing the store: %w", err)
	}
	return nil
}

// see raises the highest revision that this process has seen.
func (s *Store) see(rev int64) {
	for {
		old := s.seen.Load()
		if rev <= old || s.seen.CompareAndSwap(old, rev) {
			return
		}
	}
}

// answer turns an error of the client into one of ours: the store is unavailable unless it
// has given an answer that says something else.
func answer(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
	}
	word, _, _ := strings.Cut(reply.Error(), " ")
	switch word {
	case "LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "TRYAGAIN", "BUSY", "OOM", "MISCONF", "NOREPLICAS",
		"MOVED", "ASK":
		return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
	}
	if strings.Contains(reply.Error(), "max number of clients") {
		return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
	}
	return fmt.Errorf("the store answered: %w", err)
}

// homes remembers which container each live session was last seen in, so that a leader's
// write about it can name all its keys at once. A wrong guess costs one more round trip.
type homes struct {
	mu sync.Mutex
	of map[string]string // guarded by mu
}

// maxHomes bounds the memory. Beyond it everything is forgotten and learnt again.
const maxHomes = 1 << 17

func (h *homes) learn(s *state.Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !s.HoldsSlot() {
		delete(h.of, s.ID)
		return
	}
	if h.of == nil || len(h.of) >= maxHomes {
		h.of = map[string]string{}
	}
	h.of[s.ID] = s.Container
}

func (h *homes) guess(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of[id]
}
