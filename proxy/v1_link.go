package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

// Defaults of V1Config.
const (
	v1Ping      = 5 * time.Second
	v1Silence   = 20 * time.Second
	v1Probe     = 15 * time.Second
	v1ProbeWait = 10 * time.Second
	v1Keepalive = 2 * time.Minute
	v1Settle    = 5 * time.Second
)

const (
	maxV1Message = 128 << 20
	v1Farewell   = 2 * time.Second
	v1Tick       = time.Second
	v1Health     = 3 * time.Second // for one answer
)

// v1ProbeSession names the session that does not exist and is asked for all the same.
const v1ProbeSession = "wallcrawler-probe"

var errMute = errors.New("the container answers pings but has lost its voice")

// V1Slots reads what v1 containers write down of their sessions: container:{id}:sessions.
type V1Slots interface {
	V1Has(ctx context.Context, container, session string) (bool, error)
	V1Count(ctx context.Context, container string) (int, error)
	V1Forget(ctx context.Context, container string) error
}

// V1Config is what links to v1 containers need beside the rest. Zero times have defaults.
type V1Config struct {
	Slots V1Slots // nil: containers that speak v1 are left alone

	Ping      time.Duration // between pings, and looks at GET /health
	Silence   time.Duration // without a word or a pong, and the container is gone
	Probe     time.Duration // without a word, and the container is asked for one
	ProbeWait time.Duration // without an answer to that, and it is mute
	Keepalive time.Duration // between the messages that keep sessions from timing out
	Settle    time.Duration // between two looks that find a draining container empty
}

func (c *V1Config) setDefaults() {
	defaultTo(&c.Ping, v1Ping)
	defaultTo(&c.Silence, v1Silence)
	defaultTo(&c.Probe, v1Probe)
	defaultTo(&c.ProbeWait, v1ProbeWait)
	defaultTo(&c.Keepalive, v1Keepalive)
	defaultTo(&c.Settle, v1Settle)
}

// v1Line is one socket of a link to a v1 container. Its fields are owned by serve, but for
// what read uses.
//
// A v1 container loses its voice for good when any of its sockets closes. So there is never a
// second one: it is asked over HTTP whether it is the right one before it is dialled, and a
// socket is closed to its end before the next is opened.
type v1Line struct {
	*link
	cfg          *V1Config
	conn         *websocket.Conn
	to           target
	words        atomic.Uint64 // messages that the container has sent
	pongs        atomic.Uint64 // pongs heard
	pongsAtProbe uint64        // of those, when the probe was sent
	notice       chan wire.NoticeV1
	looks        chan v1Look
	ask          chan []v1Question
	told         chan []v1Reply

	opened    bool // it has a voice
	heard     uint64
	heardAt   time.Time
	probedAt  time.Time // zero: no probe is without an answer
	asking    bool
	rested    v1Rest
	drainSeen int64 // the order to drain since which it has been watched
	health    wire.HealthV1
	cpu       cpuMeter
	memory    float64
	reported  time.Time
	forgotAt  time.Time
}

// v1Look is one look at GET /health.
type v1Look struct {
	health wire.HealthV1
	at     time.Time
	err    error
}

func newV1Line(l *link, conn *websocket.Conn, to target) *v1Line {
	return &v1Line{
		link: l, cfg: &l.links.cfg.V1, conn: conn, to: to,
		notice: make(chan wire.NoticeV1, 1024), looks: make(chan v1Look, 1),
		ask: make(chan []v1Question, 1), told: make(chan []v1Reply, 1),
		forgotAt: time.Now(),
	}
}

// dialV1 opens the control socket of a v1 container that is there and is the right one.
func (l *link) dialV1(addr string) (*websocket.Conn, error) {
	health, err := l.lookAt(l.ctx, addr)
	if err != nil {
		return nil, err
	}
	if health.ContainerID != "" && health.ContainerID != l.id {
		return nil, fmt.Errorf("dialling %s: container %q answers there", addr, clip(health.ContainerID))
	}
	dialer := websocket.Dialer{
		NetDialContext: gather(l.links.cfg.Dial), HandshakeTimeout: 5 * time.Second,
		ReadBufferSize: 64 << 10, WriteBufferSize: 32 << 10,
	}
	conn, resp, err := dialer.DialContext(l.ctx, "ws://"+addr+wire.LinkPathV1, nil)
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil && resp != nil {
		return nil, fmt.Errorf("dialling %s: refused with status %d", addr, resp.StatusCode)
	}
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", addr, err)
	}
	return conn, nil
}

// lookAt asks for the container's health.
func (l *link) lookAt(ctx context.Context, addr string) (wire.HealthV1, error) {
	var h wire.HealthV1
	ctx, cancel := context.WithTimeout(ctx, v1Health)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+wire.HealthPath, nil)
	if err != nil {
		return h, fmt.Errorf("asking %s for its health: %w", addr, err)
	}
	resp, err := l.links.fetch.RoundTrip(req)
	if err != nil {
		return h, fmt.Errorf("asking %s for its health: %w", addr, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return h, fmt.Errorf("asking %s for its health: status %d", addr, resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&h); err != nil {
		return h, fmt.Errorf("reading the health of %s: %w", addr, err)
	}
	return h, nil
}

// serve runs the socket until it fails or the link is stopped. opened tells whether the
// container has spoken on it. When it returns, the socket is closed to its end.
func (l *v1Line) serve() (opened bool, err error) {
	over := make(chan struct{})
	ended := make(chan struct{})
	var readErr error // set before ended is closed
	go func() {
		defer close(ended)
		readErr = l.read(over)
	}()
	ctx, cancel := context.WithCancel(l.ctx)
	helped := make(chan struct{})
	go func() {
		defer close(helped)
		l.help(ctx)
	}()
	defer func() {
		l.env.linked(nil)
		close(over)
		cancel()
		l.hangUp(ended)
		switch {
		case l.ctx.Err() != nil: // the link's own end has its own word for clients
		case errors.Is(err, errMute):
			l.links.envMetrics.mute.Inc()
			l.env.cut(true)
		default:
			l.env.cut(false)
		}
		<-helped
	}()
	tick := time.NewTicker(min(v1Tick, l.cfg.Probe, l.cfg.Settle))
	defer tick.Stop()
	ping := time.NewTicker(l.cfg.Ping)
	defer ping.Stop()
	clients := time.NewTicker(clientPing)
	defer clients.Stop()
	if err := l.probe(); err != nil {
		return false, err
	}
	for {
		select {
		case <-l.ctx.Done():
			return l.opened, context.Cause(l.ctx)
		case <-ended:
			return l.opened, readErr
		case n := <-l.notice:
			l.heed(n)
		case look := <-l.looks:
			err = l.look(look)
		case replies := <-l.told:
			l.asking = false
			l.settleReplies(replies)
		case <-l.poked:
		case <-tick.C:
		case <-ping.C:
			err = l.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(linkWrite))
		case <-clients.C:
			go l.env.pingClients()
		}
		if err == nil {
			err = l.listen()
		}
		if err == nil {
			err = l.advance()
		}
		if err != nil {
			return l.opened, err
		}
	}
}

// hangUp closes the socket and waits until the container has done so too, for as long as it
// may take if it still answers.
func (l *v1Line) hangUp(ended <-chan struct{}) {
	_ = l.conn.WriteControl(websocket.CloseMessage,
		websocket.FormatCloseMessage(websocket.CloseGoingAway, "no longer the owner"), time.Now().Add(time.Second))
	timer := time.NewTimer(v1Farewell)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
	_ = l.conn.Close()
	<-ended
}

// read takes messages off the socket.
func (l *v1Line) read(over <-chan struct{}) error {
	l.conn.SetReadLimit(maxV1Message)
	alive := func() { _ = l.conn.SetReadDeadline(time.Now().Add(l.cfg.Silence)) }
	alive()
	l.conn.SetPongHandler(func(string) error {
		alive()
		l.pongs.Add(1)
		return nil
	})
	scratch := make([]byte, 0, maxKept)
	since := time.Now()
	for {
		_, r, err := l.conn.NextReader()
		if err != nil {
			return err
		}
		text, err := readAll(r, scratch[:0], alive)
		if err != nil {
			return err
		}
		if l.words.Add(1) == 1 {
			l.wake()
		}
		if now := time.Now(); now.Sub(since) > time.Second {
			since = now
			alive()
		}
		owned := cap(text) > cap(scratch) // a large one is handed on, not copied
		n, err := l.env.deliver(text, owned)
		if err != nil {
			l.links.envMetrics.drop(dropUnknown)
			continue
		}
		if n == nil {
			continue
		}
		select {
		case l.notice <- *n:
		case <-over:
			// Nobody listens any more: what follows up to the close frame is read to its end.
			for err == nil {
				_, _, err = l.conn.NextReader()
			}
			return err
		}
	}
}

// listen finds out whether the container has a voice.
func (l *v1Line) listen() error {
	now := time.Now()
	if words := l.words.Load(); words != l.heard {
		l.heard, l.heardAt, l.probedAt = words, now, time.Time{}
		if !l.opened {
			l.opened = true
			l.log.Info("link opened", "protocol", wire.ProtocolV1)
			l.env.linked(l.conn)
		}
	}
	switch {
	case l.probedAt.IsZero() && now.Sub(l.heardAt) >= l.cfg.Probe:
		return l.probe()
	case !l.probedAt.IsZero() && now.Sub(l.probedAt) >= l.cfg.ProbeWait && l.pongs.Load() != l.pongsAtProbe:
		// Without a pong it would not be mute but silent, which the read deadline judges: then
		// it is lost, and its clients are told.
		return errMute
	}
	return nil
}

// probe asks for a word: the answer to a command for a session that does not exist.
func (l *v1Line) probe() error {
	l.probedAt, l.pongsAtProbe = time.Now(), l.pongs.Load()
	return l.env.order(l.conn, []byte(`{"type":"`+wire.ClientMessage+`","sessionId":"`+v1ProbeSession+`","data":`),
		keepalive(), endOfObject())
}

// look takes one look at its health in. A failed one says nothing: pings and probes judge.
func (l *v1Line) look(v v1Look) error {
	if v.err != nil {
		l.rested.reset()
		return nil
	}
	if v.health.ContainerID != "" && v.health.ContainerID != l.id {
		return fmt.Errorf("container %q answers at its address", clip(v.health.ContainerID))
	}
	l.health = v.health
	if v.health.Sessions == 0 {
		l.rested.empty(v.at)
	} else {
		l.rested.reset()
	}
	return nil
}

// help does what takes time: it looks at the container's health and asks the store what the
// container has written down.
func (l *v1Line) help(ctx context.Context) {
	ticker := time.NewTicker(min(l.cfg.Ping, l.cfg.Settle))
	defer ticker.Stop()
	for first := true; ; first = false {
		var questions []v1Question
		if !first {
			select {
			case <-ctx.Done():
				return
			case questions = <-l.ask:
			case <-ticker.C:
			}
		}
		if questions != nil {
			replies := l.askStore(ctx, questions)
			select {
			case l.told <- replies:
			case <-ctx.Done():
				return
			}
			continue
		}
		h, err := l.lookAt(ctx, l.to.addr)
		select {
		case l.looks <- v1Look{health: h, at: time.Now(), err: err}:
		case <-ctx.Done():
			return
		}
	}
}
