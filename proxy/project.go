package proxy

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// projectEvery is the least time between two writes about the same thing.
	projectEvery = 15 * time.Second
	// reassertEvery is how often a document is looked at although nothing has moved: a
	// requester who writes it back whole may have undone what we wrote.
	reassertEvery = time.Minute
	// projectors is how many writes run at once; they wait for the store, not for a core.
	projectors = 8
	// projectTimeout bounds the writes about one round of reports.
	projectTimeout = 10 * time.Second
	// projectedFor is how long a container is remembered that reports no more.
	projectedFor = 2 * time.Minute
)

// lastActivity is the field of a document that tells when its session was last used.
const lastActivity = "lastActivity"

// Projection is what a link's owner has just learnt of a container, to be shown to others.
type Projection struct {
	Container string
	At        time.Time // when it was learnt, monotonic
	Health    state.Health
	Sessions  []wire.SessionReport // all of them; not to be changed any more
}

// ProjectorMirror is what a Projector needs of the mirror.
type ProjectorMirror interface {
	Session(id string) (*state.Session, bool)
	Container(id string) (*state.Container, bool)
	Now() time.Time
}

// ProjectorConfig is what a Projector is made of.
type ProjectorConfig struct {
	Store      state.Shown
	Mirror     ProjectorMirror
	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
}

// Projector shows others what the links of this replica learn: when a session was last used,
// in its document, and how each container does. Nothing waits for it, and what it cannot write
// it writes later, or never.
type Projector struct {
	// set once in NewProjector
	cfg     ProjectorConfig
	log     *slog.Logger
	metrics *prometheus.CounterVec
	work    chan struct{} // holds one

	mu     sync.Mutex // guards the following
	latest map[string]Projection

	// owned by Run
	containers map[string]*projected
	quiet      bool // trouble has been logged
}

// projected is what has been shown of one container.
type projected struct {
	seen     time.Time // monotonic
	health   state.ContainerHealth
	healthAt time.Time // monotonic; zero: never
	sessions map[string]projectedActivity
}

// projectedActivity is what has been shown of one session.
type projectedActivity struct {
	active time.Time // the store's clock
	at     time.Time // monotonic
}

// NewProjector returns a Projector. Nothing is written before Run.
func NewProjector(cfg ProjectorConfig) *Projector {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Projector{
		cfg: cfg, log: cfg.Log, work: make(chan struct{}, 1),
		latest: map[string]Projection{}, containers: map[string]*projected{},
		metrics: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_projections_total",
			Help: "Attempts to show others what was learnt of sessions and containers, by what and result.",
		}, []string{"of", "result"}),
	}
	for _, of := range []string{ofActivity, ofHealth} {
		for _, result := range []string{resultDone, resultFailed} {
			p.metrics.WithLabelValues(of, result)
		}
	}
	register(cfg.Registerer, p.metrics)
	return p
}

// The labels of projections.
const (
	ofActivity   = "activity"
	ofHealth     = "health"
	resultDone   = "done"
	resultFailed = "failed"
)

// Project has something shown. It returns at once; of two projections of one container the
// later one counts.
func (p *Projector) Project(n Projection) {
	p.mu.Lock()
	p.latest[n.Container] = n
	p.mu.Unlock()
	select {
	case p.work <- struct{}{}:
	default:
	}
}

// Run shows what is given to Project until ctx ends.
func (p *Projector) Run(ctx context.Context) error {
	tidy := time.NewTicker(projectedFor)
	defer tidy.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tidy.C:
			p.forget()
		case <-p.work:
			p.settle(ctx, p.due(p.take()))
		}
	}
}

func (p *Projector) take() map[string]Projection {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.latest
	p.latest = map[string]Projection{}
	return taken
}

// forget drops containers that report no more; another replica may have them by now.
func (p *Projector) forget() {
	for id, c := range p.containers {
		if time.Since(c.seen) > projectedFor {
			delete(p.containers, id)
		}
	}
}

// projecting is one thing to write, and what to remember once that is done.
type projecting struct {
	of   string
	id   string // of the session or the container
	do   func(ctx context.Context) error
	done func()
	err  error
}

// due finds what is worth writing.
func (p *Projector) due(latest map[string]Projection) []*projecting {
	var jobs []*projecting
	for id, n := range latest {
		record, known := p.cfg.Mirror.Container(id)
		if !known || record.Phase == state.Gone {
			continue
		}
		c := p.containers[id]
		if c == nil {
			c = &projected{sessions: map[string]projectedActivity{}}
			p.containers[id] = c
		}
		c.seen = time.Now()
		if job := p.dueHealth(c, record, n); job != nil {
			jobs = append(jobs, job)
		}
		present := make(map[string]bool, len(n.Sessions))
		for _, s := range n.Sessions {
			present[s.SessionID] = true
			if job := p.dueActivity(c, n, s); job != nil {
				jobs = append(jobs, job)
			}
		}
		for session := range c.sessions {
			if !present[session] {
				delete(c.sessions, session)
			}
		}
	}
	return jobs
}

// dueHealth shows a container's health when it says something new, and often enough that it
// does not run out.
func (p *Projector) dueHealth(c *projected, record *state.Container, n Projection) *projecting {
	now := state.ContainerHealth{
		Status: state.HealthHealthy, ContainerID: record.ID, Sessions: len(n.Sessions), MaxSessions: record.MaxSessions,
		CPU: n.Health.CPU, Memory: n.Health.Memory,
		Uptime: int64(max(0, p.cfg.Mirror.Now().Sub(record.RegisteredAt).Seconds())),
	}
	if record.Phase == state.Draining || record.Phase == state.Stopping {
		now.Status = state.HealthDraining
	}
	news := now.Status != c.health.Status || now.Sessions != c.health.Sessions || now.MaxSessions != c.health.MaxSessions
	if !c.healthAt.IsZero() && !news && time.Since(c.healthAt) < projectEvery {
		return nil
	}
	return &projecting{
		of: ofHealth, id: record.ID,
		do:   func(ctx context.Context) error { return p.cfg.Store.ShowHealth(ctx, now) },
		done: func() { c.health, c.healthAt = now, time.Now() },
	}
}

// dueActivity shows when a session was last used: now, while a client is attached.
func (p *Projector) dueActivity(c *projected, n Projection, s wire.SessionReport) *projecting {
	record, known := p.cfg.Mirror.Session(s.SessionID)
	if !known || record.Phase != state.Ready || record.Container != n.Container || record.BindRev != s.BindRev || s.Phase != wire.Serving {
		return nil // not ours to speak of, or not any more
	}
	now := p.cfg.Mirror.Now()
	active := now
	if s.Attached <= 0 {
		active = now.Add(-time.Since(n.At) - time.Duration(max(0, s.Idle))*time.Millisecond)
	}
	if last, shown := c.sessions[s.SessionID]; shown {
		since := time.Since(last.at)
		moved := active.Sub(last.active) >= state.TouchGrain
		if since < projectEvery || !moved && since < reassertEvery {
			return nil
		}
		if !moved {
			active = last.active
		}
	}
	return &projecting{
		of: ofActivity, id: s.SessionID,
		do: func(ctx context.Context) error { return p.showActivity(ctx, s.SessionID, active) },
		done: func() {
			c.sessions[s.SessionID] = projectedActivity{active: active, at: time.Now()}
		},
	}
}

// showActivity writes lastActivity, never over a requester's final word and never backwards.
func (p *Projector) showActivity(ctx context.Context, id string, active time.Time) error {
	err := p.cfg.Store.AnnotateDocument(ctx, id, func(text []byte) ([]byte, error) {
		spec, err := state.ParseSpec(id, text)
		if err != nil || spec.Final() || spec.Status == string(state.Ended) {
			return nil, nil //nolint:nilerr // what is no session's document is not ours to mend
		}
		if shown, err := time.Parse(time.RFC3339, state.StringField(text, lastActivity)); err == nil && !shown.Before(active.Truncate(time.Millisecond)) {
			return nil, nil
		}
		return state.SetField(text, lastActivity, state.FormatTime(active))
	})
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrInvalid) {
		return nil // nothing is there to show it in
	}
	return err
}

// settle does what is due, several at once, and remembers what was done. What failed is due
// again with the next report.
func (p *Projector) settle(ctx context.Context, jobs []*projecting) {
	// One limit for all of them: a store that hangs must not hold up what comes after for long.
	bounded, cancel := context.WithTimeout(ctx, projectTimeout)
	defer cancel()
	var group sync.WaitGroup
	slots := make(chan struct{}, projectors)
	for _, job := range jobs {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			job.err = job.do(bounded)
		})
	}
	group.Wait()
	if len(jobs) == 0 || ctx.Err() != nil {
		return
	}
	var trouble error
	for _, job := range jobs {
		switch {
		case job.err == nil:
			job.done()
			p.metrics.WithLabelValues(job.of, resultDone).Inc()
		default:
			p.metrics.WithLabelValues(job.of, resultFailed).Inc()
			if !errors.Is(job.err, state.ErrConflict) { // somebody keeps editing: an outcome
				trouble = job.err
			}
		}
	}
	if trouble != nil && !p.quiet {
		p.log.Warn("store not written: what others see of sessions and containers ages", "error", trouble)
	}
	p.quiet = trouble != nil
}

// project hands on what a report says, to whoever shows it to others.
func (ls *Links) project(container string, health state.Health, sessions []wire.SessionReport) {
	if ls.cfg.Project != nil {
		ls.cfg.Project(Projection{Container: container, At: time.Now(), Health: health, Sessions: sessions})
	}
}
