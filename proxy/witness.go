package proxy

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// asksAtOnce and mostAsked bound the questions of a round: those that have been silent
	// longest come first, and nobody is given up where very many are silent.
	asksAtOnce = 50
	mostAsked  = 150
	// sessionsAsked is how many sessions of a container are asked, until one answers.
	sessionsAsked = 2
	// testifyTimeout bounds the telling.
	testifyTimeout = 3 * time.Second
)

// WitnessMirror is what a Witness needs of the mirror.
type WitnessMirror interface {
	Containers() []*state.Container
	Session(id string) (*state.Session, bool)
	Now() time.Time
}

// WitnessConfig is what a Witness is made of.
type WitnessConfig struct {
	Replica string // this replica's id
	Store   state.Witnesses
	Mirror  WitnessMirror
	Relay   *Relay // whose clients tell more of a container than any question

	Every       time.Duration // between rounds; zero: state.WitnessInterval
	SilentAfter time.Duration // without a report, and a container is asked; zero: state.OwnerLease

	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
}

// Witness asks the containers of which no report comes whether they are there, and says what
// came of it, and what this replica's clients have of them. It decides nothing: the leader
// gives a container up when every replica has asked in vain.
//
// It also closes clients whose session was lost with its container: one that hangs tells
// nobody, and one that vanished may leave half of a connection behind.
type Witness struct {
	cfg   WitnessConfig // set once in NewWitness
	log   *slog.Logger
	asked *prometheus.CounterVec

	// owned by Run
	began   time.Time
	unheard map[string]silence // by container
	quiet   bool               // trouble has been logged
}

// silence is how long one life of a container has not answered.
type silence struct {
	bootID string
	since  time.Time // of the first question without an answer; zero: it has answered the last
}

// How a question ends.
const (
	askedAnswered = "answered"
	askedInVain   = "in_vain"
	askedNot      = "not_asked" // this replica could not open a connection, to nobody
)

// answer is what came of asking a container.
type answer int

const (
	mute answer = iota
	spoke
	unasked
)

// NewWitness returns a Witness. Nothing is asked before Run.
func NewWitness(cfg WitnessConfig) *Witness {
	defaultTo(&cfg.Every, state.WitnessInterval)
	defaultTo(&cfg.SilentAfter, state.OwnerLease)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	w := &Witness{
		cfg: cfg, log: cfg.Log, unheard: map[string]silence{},
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_silent_asked_total",
			Help: "Questions to containers that do not report, by whether they answered, or could not be asked for want of a socket.",
		}, []string{"result"}),
	}
	for _, result := range []string{askedAnswered, askedInVain, askedNot} {
		w.asked.WithLabelValues(result)
	}
	register(cfg.Registerer, w.asked)
	return w
}

// Run asks and tells until ctx ends.
func (w *Witness) Run(ctx context.Context) error {
	w.began = time.Now()
	tick := time.NewTicker(w.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		w.cfg.Relay.closeLost()
		if silent := w.silent(); len(silent) > 0 {
			w.testify(ctx, silent)
		}
		w.cfg.Relay.heard() // so that whoever falls silent next is known to have been heard
	}
}

// silent gives the containers to ask, those that have been silent longest first, and forgets
// what it knows of others.
func (w *Witness) silent() []*state.Container {
	var silent []*state.Container
	now := w.cfg.Mirror.Now()
	for _, c := range w.cfg.Mirror.Containers() {
		if (c.Phase == state.ContainerReady || c.Phase == state.Draining) && c.Addr != "" && now.Sub(c.SeenAt) > w.cfg.SilentAfter {
			silent = append(silent, c)
		}
	}
	slices.SortFunc(silent, func(a, b *state.Container) int { return a.SeenAt.Compare(b.SeenAt) })
	silent = silent[:min(len(silent), mostAsked)]
	still := make(map[string]silence, len(silent))
	for _, c := range silent {
		if was := w.unheard[c.ID]; was.bootID == c.BootID {
			still[c.ID] = was
		}
	}
	w.unheard = still
	return silent
}

// testify asks containers, and tells what came of it.
func (w *Witness) testify(ctx context.Context, silent []*state.Container) {
	asking := time.Now()
	answers := make([]answer, len(silent))
	var group sync.WaitGroup
	slots := make(chan struct{}, asksAtOnce)
	for i, c := range silent {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			answers[i] = w.cfg.Relay.answers(ctx, c)
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return
	}
	heard, now := w.cfg.Relay.heard(), time.Now()
	given := make([]state.Testimony, 0, len(silent))
	for i, c := range silent {
		if answers[i] == unasked {
			// What this replica lacks is nobody's silence. It knows nothing until it has asked.
			w.asked.WithLabelValues(askedNot).Inc()
			w.unheard[c.ID] = silence{bootID: c.BootID}
			continue
		}
		t := state.Testimony{Container: c.ID, BootID: c.BootID, Replica: w.cfg.Replica, Quiet: now.Sub(later(w.began, heard[c.ID]))}
		w.asked.WithLabelValues(map[answer]string{spoke: askedAnswered, mute: askedInVain}[answers[i]]).Inc()
		s := silence{bootID: c.BootID}
		if answers[i] == mute {
			if s.since = w.unheard[c.ID].since; s.since.IsZero() {
				s.since = asking
			}
			t.Silent = max(time.Millisecond, now.Sub(s.since))
		}
		w.unheard[c.ID] = s
		given = append(given, t)
	}
	bounded, cancel := context.WithTimeout(ctx, testifyTimeout)
	defer cancel()
	err := w.cfg.Store.Testify(bounded, given)
	if err != nil && ctx.Err() == nil && !w.quiet {
		w.log.Warn("what is known of silent containers was not told: trying again", "containers", len(given), "error", err)
	}
	w.quiet = err != nil
}

// answers asks a container for the version of a browser that it serves, or for its health if
// it serves none. Whatever it says, short of an error of its own, shows that it is there. Other
// browsers are asked each time: some may hang or crash while the others serve.
func (r *Relay) answers(ctx context.Context, c *state.Container) answer {
	asked := 0
	for _, i := range rand.Perm(len(c.Slots)) {
		id := c.Slots[i]
		s, ok := r.cfg.Mirror.Session(id)
		if c.Protocol == wire.ProtocolV1 || !ok || s.Phase != state.Ready || !s.BoundTo(c.ID, c.BootID) {
			continue
		}
		_, err := r.ask(ctx, s, c, "/json/version", maxVersion)
		var refused *tunnel.HandshakeError
		switch {
		case err == nil || errors.As(err, &refused) && refused.Status < http.StatusInternalServerError:
			return spoke
		case ours(err):
			return unasked
		}
		if asked++; asked == sessionsAsked {
			break
		}
	}
	if asked > 0 {
		return mute
	}
	return r.healthy(ctx, c.Addr)
}

// healthy asks whether anything answers at a container's address as containers do.
func (r *Relay) healthy(ctx context.Context, addr string) answer {
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+wire.HealthPath, nil)
	if err != nil {
		return mute
	}
	resp, err := r.fetch.RoundTrip(req)
	switch {
	case ours(err):
		return unasked
	case err != nil:
		return mute
	}
	_ = resp.Body.Close()
	return spoke
}

// heard tells, by container, when something of it last reached a client of this replica: to
// the time between two calls. Clients of v1 containers come and go over their container's
// link, whose owner reports for as long as it hears it.
func (r *Relay) heard() map[string]time.Time {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for v := range r.live {
		r.listenLocked(v, v.tunnel.Stats().ToClient.Bytes, now)
	}
	heard := make(map[string]time.Time, len(r.heardAt))
	for container, at := range r.heardAt {
		if now.Sub(at) > heardFor {
			delete(r.heardAt, container)
			continue
		}
		heard[container] = at
	}
	return heard
}

// heardFor is how long it is remembered when a container was last heard: longer than anybody
// asks for.
const heardFor = time.Hour

// listenLocked notes whether anything has come of a visit's container since it was last looked
// at.
func (r *Relay) listenLocked(v *visit, bytes uint64, now time.Time) {
	if bytes != v.heard && v.container != "" {
		v.heard = bytes
		r.heardAt[v.container] = now
	}
}

// closeLost closes the clients of sessions that were lost with their container, which is not
// there to do it.
func (r *Relay) closeLost() {
	r.mu.Lock()
	visits := make([]*visit, 0, len(r.live))
	for v := range r.live {
		visits = append(visits, v)
	}
	r.mu.Unlock()
	for _, v := range visits {
		s, known := r.cfg.Mirror.Session(v.session)
		if !known || s.Phase != state.Ended || s.Reason != state.ContainerLost && s.Reason != state.StoppedExternally {
			continue
		}
		if v.lost.CompareAndSwap(nil, &s.Reason) {
			v.tunnel.Close(s.Reason.CloseCode(), string(s.Reason))
		}
	}
}
