package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// errNoLine says that a message was not sent, since the container has no link.
var errNoLine = errors.New("the container has no link at the moment")

// What a message from a client is.
type verity string

const (
	goodJSON verity = ""
	notJSON  verity = "not_json"
	notUTF8  verity = "not_utf8" // one such message would close the link of all
	nullJSON verity = "null"
)

// judge tells whether a client's message may be passed on.
func judge(text []byte) verity {
	switch {
	case !utf8.Valid(text):
		return notUTF8
	case !json.Valid(text):
		return notJSON
	case string(bytes.TrimSpace(text)) == "null":
		return nullJSON
	}
	return goodJSON
}

// envelopes carries the clients of one v1 container's sessions over its one link. It outlives
// the link's sockets. Each message costs one look-up by its session's id, however many
// sessions there are; a session that is not in the table does not exist, whatever the
// container says.
type envelopes struct {
	// set once in newEnvelopes
	metrics *envelopeMetrics
	changed func() // clients have come or gone

	mu       sync.RWMutex // guards the following
	sessions map[string]*v1Session
	closed   bool

	out  sync.Mutex    // guards the following and orders what is sent
	up   chan struct{} // closed and replaced when conn or over changes
	conn *websocket.Conn
	over bool
}

func newEnvelopes(m *envelopeMetrics, changed func()) *envelopes {
	return &envelopes{metrics: m, changed: changed, sessions: map[string]*v1Session{}, up: make(chan struct{})}
}

// session gives a session; nil: none. id may lie in a buffer.
func (e *envelopes) session(id []byte) *v1Session {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.sessions[string(id)]
}

// put makes a session known, under a binding.
func (e *envelopes) put(id string, bindRev int64, st v1State) *v1Session {
	s := &v1Session{
		id: id, bindRev: bindRev, env: e, state: st, since: time.Now(), moved: time.Now(),
		head:  []byte(`{"type":"` + wire.ClientMessage + `","sessionId":"` + id + `","data":`),
		asked: map[commandID]*asker{}, moves: make(chan struct{}),
	}
	e.mu.Lock()
	e.sessions[id] = s
	e.mu.Unlock()
	return s
}

// drop forgets a session.
func (e *envelopes) drop(id string) {
	e.mu.Lock()
	s := e.sessions[id]
	delete(e.sessions, id)
	e.mu.Unlock()
	if s != nil {
		s.end(closeBroken, reasonLost)
	}
}

// all lists the sessions.
func (e *envelopes) all() []*v1Session {
	e.mu.RLock()
	defer e.mu.RUnlock()
	list := make([]*v1Session, 0, len(e.sessions))
	for _, s := range e.sessions {
		list = append(list, s)
	}
	return list
}

// linked tells where messages go from now on; nil: nowhere, clients wait.
func (e *envelopes) linked(conn *websocket.Conn) {
	e.out.Lock()
	defer e.out.Unlock()
	e.conn = conn
	close(e.up)
	e.up = make(chan struct{})
}

// cut tells clients that the container is gone: all, or those that wait for its answer.
func (e *envelopes) cut(waiting bool) {
	for _, s := range e.all() {
		s.mu.Lock()
		for _, c := range s.clients {
			if !waiting || c.waiting() > 0 {
				c.end(closeBroken, reasonLost, false)
			}
		}
		// What was asked on that link is never answered. Whoever asked is gone or told so; the
		// answers to come belong to those who ask from now on.
		for id, a := range s.asked {
			for ; a != nil; a = a.next {
				a.client.answered()
			}
			delete(s.asked, id)
		}
		s.probes = 0
		s.mu.Unlock()
	}
}

// finish closes every client: another replica serves the container, or will.
func (e *envelopes) finish() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.out.Lock()
	e.conn, e.over = nil, true
	close(e.up)
	e.up = make(chan struct{})
	e.out.Unlock()
	for _, s := range e.all() {
		s.end(closeAway, reasonShutdown)
	}
}

// transmit sends one message, made of parts, for a client. It waits for a link while the
// client is there.
func (e *envelopes) transmit(c *v1Client, parts ...[]byte) error {
	for {
		e.out.Lock()
		if e.conn != nil || e.over {
			break
		}
		up := e.up
		e.out.Unlock()
		select {
		case <-up:
		case <-c.over:
			return errNoLine
		}
	}
	defer e.out.Unlock()
	if e.conn == nil {
		return errNoLine
	}
	return e.write(e.conn, parts...)
}

// order sends one message of the service's own on a socket, or on the link if that is nil.
func (e *envelopes) order(conn *websocket.Conn, parts ...[]byte) error {
	e.out.Lock()
	defer e.out.Unlock()
	if conn == nil {
		conn = e.conn
	}
	if conn == nil {
		return errNoLine
	}
	return e.write(conn, parts...)
}

// write puts one message on the socket. e.out is held. A failure closes the socket, whose
// reader finds out.
func (e *envelopes) write(conn *websocket.Conn, parts ...[]byte) error {
	const chunk = 256 << 10
	_ = conn.SetWriteDeadline(time.Now().Add(linkWrite))
	w, err := conn.NextWriter(websocket.TextMessage)
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("sending to the container: %w", err)
	}
	for _, part := range parts {
		for len(part) > 0 && err == nil {
			n := min(len(part), chunk)
			_, err = w.Write(part[:n])
			if part = part[n:]; len(part) > 0 {
				_ = conn.SetWriteDeadline(time.Now().Add(linkWrite))
			}
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("sending to the container: %w", err)
	}
	return nil
}

// deliver takes one message off the link. What concerns a session's life is returned; the
// rest goes to clients. With owned, text may be kept as it is.
func (e *envelopes) deliver(text []byte, owned bool) (*wire.NoticeV1, error) {
	m, err := openEnvelope(text)
	if err != nil {
		return nil, fmt.Errorf("reading a message of the container's: %w", err)
	}
	switch string(m.kind) {
	case wire.CDPResponse, wire.ScreencastFrame, wire.ScreencastStarted, wire.ScreencastStopped, wire.ScreencastError:
	case wire.SessionReady, wire.SessionError, wire.SessionTimeout, wire.HealthUpdate:
		n := &wire.NoticeV1{}
		if err := json.Unmarshal(text, n); err != nil {
			return nil, fmt.Errorf("reading a notice of the container's: %w", err)
		}
		return n, nil
	default:
		e.metrics.drop(dropUnknown)
		return nil, nil
	}
	s := e.session(m.session)
	if s == nil {
		if string(m.session) != v1ProbeSession {
			e.metrics.drop(dropStranger)
		}
		return nil, nil
	}
	e.metrics.fromContainer(len(text))
	if string(m.kind) == wire.CDPResponse {
		s.answer(m.data, owned)
		return nil, nil
	}
	s.show(text, string(m.kind) == wire.ScreencastFrame, owned)
	return nil, nil
}

// pingClients keeps the connections of quiet clients in use.
func (e *envelopes) pingClients() {
	for _, s := range e.all() {
		s.mu.Lock()
		clients := slices.Clone(s.clients)
		s.mu.Unlock()
		for _, c := range clients {
			c.ping()
		}
	}
}

// flat tells whether a client's message goes to the container as it is.
func flat(kind []byte) bool {
	switch string(kind) {
	case wire.StartScreencast, wire.StopScreencast, wire.SendInput:
		return true
	}
	return false
}

// endOfObject closes an envelope.
func endOfObject() []byte { return []byte{'}'} }

// pass sends a client's message to the container: commands in an envelope, byte for byte, and
// screencast messages as they are but for the session's id.
func (s *v1Session) pass(c *v1Client, text []byte) {
	if !c.await() || !s.awaitServing(c) {
		return
	}
	m, err := openEnvelope(text)
	object := err == nil
	if object && flat(m.kind) {
		whole, err := state.SetField(text, "sessionId", s.id)
		if err == nil {
			s.sent(false)
			_ = s.env.transmit(c, whole) // whoever reads the link finds out
		}
		return
	}
	var id commandID
	if object {
		id = idOf(m.id)
	}
	if id != (commandID{}) {
		s.ask(id, c)
	}
	s.sent(true)
	if s.env.transmit(c, s.head, text, endOfObject()) != nil && id != (commandID{}) {
		s.unask(id, c)
	}
}
