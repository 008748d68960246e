package proxy

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

// forgetAsked is how long an answer is waited for: longer than a container takes for any.
const forgetAsked = 10 * time.Minute

// v1State is where a session stands in its container, as far as we know.
type v1State int

const (
	v1Starting v1State = iota // ordered, or found bound when the link was adopted
	v1Serving                 // has a browser
	v1Dormant                 // timed out before anybody came: created again for the first who does
	v1Over                    // refused, lost or ordered to be destroyed: takes no client
)

// v1Session is one session of a v1 container under one binding.
type v1Session struct {
	// set once in put
	id      string
	bindRev int64
	env     *envelopes
	head    []byte // of the envelope that its commands travel in

	mu      sync.Mutex    // guards the following
	moves   chan struct{} // closed and replaced when state changes
	state   v1State
	clients []*v1Client
	asked   map[commandID]*asker

	connected  bool      // somebody has been, ever
	since      time.Time // serving, or adopted
	commanded  time.Time // the last CLIENT_MESSAGE; zero: not known
	moved      time.Time // the last message either way
	graceUntil time.Time // zero: not running
	probes     int       // keepalives whose answer is to be dropped
	absent     bool      // the container has said that it does not hold it
	again      bool      // to be created again, or has been
	keepAlive  bool

	order v1Order // owned by the line
}

// asker is a client that waits for the answer to a command. Ids are the clients' own: of
// several clients that use the same one, the first to ask gets the first answer. A client that
// has left keeps its place, so that nobody else gets what it asked for.
type asker struct {
	client *v1Client
	at     time.Time
	next   *asker
}

// attach gives the session another client. It is false if the session takes none now.
func (s *v1Session) attach(c *v1Client) bool {
	s.env.mu.RLock()
	closed := s.env.closed
	s.env.mu.RUnlock()
	s.mu.Lock()
	if closed || s.state == v1Over || s.state == v1Starting && !s.again {
		s.mu.Unlock()
		return false
	}
	s.clients = append(s.clients, c)
	s.connected, s.graceUntil = true, time.Time{}
	s.moved = time.Now()
	if s.state == v1Dormant {
		s.state, s.again = v1Starting, true
	}
	if s.state == v1Serving {
		c.send(readyNotice(s.id), false)
	}
	s.mu.Unlock()
	s.env.metrics.clients.Inc()
	s.env.changed()
	return true
}

// detach takes a client away. The last one starts the grace.
func (s *v1Session) detach(c *v1Client, grace time.Duration) {
	s.mu.Lock()
	at := slices.Index(s.clients, c)
	if at >= 0 {
		s.clients = slices.Delete(s.clients, at, at+1)
		if len(s.clients) == 0 {
			s.graceUntil = time.Now().Add(grace)
		}
	}
	s.mu.Unlock()
	if at >= 0 {
		s.env.metrics.clients.Dec()
		s.env.changed()
	}
}

// awaitServing waits until the session has a browser. It is false at the client's end.
func (s *v1Session) awaitServing(c *v1Client) bool {
	for {
		s.mu.Lock()
		st, moves := s.state, s.moves
		s.mu.Unlock()
		if st != v1Starting {
			return st == v1Serving
		}
		select {
		case <-moves:
		case <-c.over:
			return false
		}
	}
}

// enter moves the session on.
func (s *v1Session) enter(st v1State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == st {
		return
	}
	s.state = st
	if st == v1Serving {
		s.since, s.moved = time.Now(), time.Now()
		for _, c := range s.clients {
			c.send(readyNotice(s.id), false)
		}
	}
	close(s.moves)
	s.moves = make(chan struct{})
}

func (s *v1Session) standing() v1State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// isAgain tells whether it is, or was, created for a second time.
func (s *v1Session) isAgain() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.again
}

// tell sends all clients a message of the service's own.
func (s *v1Session) tell(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		c.send(text, false)
	}
}

// end closes its clients, who may be told something first.
func (s *v1Session) end(code int, reason string, last ...[]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		for _, text := range last {
			c.send(text, false)
		}
		c.end(code, reason, false)
	}
}

// sent notes that something goes to the container.
func (s *v1Session) sent(command bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = now
	if command {
		s.commanded = now
	}
}

func (s *v1Session) ask(id commandID, c *v1Client) {
	a := &asker{client: c, at: time.Now()}
	c.ask()
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.asked[id]
	if first == nil {
		s.asked[id] = a
		return
	}
	for first.next != nil {
		first = first.next
	}
	first.next = a
}

// unask takes a command back that was not sent.
func (s *v1Session) unask(id commandID, c *v1Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var before *asker
	for a := s.asked[id]; a != nil; before, a = a, a.next {
		if a.client != c || a.next != nil {
			continue
		}
		if before == nil {
			delete(s.asked, id)
		} else {
			before.next = nil
		}
		c.answered()
		return
	}
}

// keepalive is the command that keeps a session from timing out, and asks whether the
// container holds it: there is no such target.
func keepalive() []byte {
	return []byte(`{"id":-1,"method":"Runtime.evaluate","params":{"expression":"0"},"targetId":"keepalive"}`)
}

func keepaliveID() commandID { return idOf([]byte("-1")) }

// probe sends a keepalive.
func (s *v1Session) probe() error {
	s.mu.Lock()
	s.probes++
	s.commanded = time.Now()
	s.mu.Unlock()
	return s.env.order(nil, s.head, keepalive(), endOfObject())
}

// answer gives the answer to a command to the client that asked.
func (s *v1Session) answer(data []byte, owned bool) {
	if data == nil {
		s.env.metrics.drop(dropUnknown)
		return
	}
	id := idOf(answerID(data))
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.asked[id]
	// A client may use our id: what names our target is ours all the same.
	ours := id == keepaliveID() && (a == nil || bytes.Contains(data, []byte("keepalive"))) ||
		id == commandID{} && saysNotFound(data)
	if s.probes > 0 && ours {
		s.probes--
		if saysNotFound(data) {
			s.absent = true
			s.env.changed()
		}
		return
	}
	s.moved = time.Now()
	switch {
	case a != nil:
		if a.next == nil {
			delete(s.asked, id)
		} else {
			s.asked[id] = a.next
		}
		a.client.send(keep(data, owned), false)
		a.client.answered()
	case id == commandID{}: // an event, of a container that has some
		s.broadcast(data, false, owned)
	default:
		s.env.metrics.drop(dropUnasked)
	}
}

// saysNotFound tells whether a word of the container's says that it does not hold a session.
func saysNotFound(text []byte) bool {
	if len(text) > 1000 {
		return false
	}
	text = bytes.ToLower(text)
	return bytes.Contains(text, []byte("session")) && bytes.Contains(text, []byte("not found"))
}

// show passes a message on to all clients, whole.
func (s *v1Session) show(text []byte, frame, owned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = time.Now()
	s.broadcast(text, frame, owned)
}

// broadcast sends to all clients. s.mu is held.
func (s *v1Session) broadcast(text []byte, frame, owned bool) {
	if len(s.clients) == 0 {
		s.env.metrics.drop(dropNobody)
		return
	}
	text = keep(text, owned)
	for _, c := range s.clients {
		c.send(text, frame)
	}
}

// keep gives text for a queue.
func keep(text []byte, owned bool) []byte {
	if owned {
		return text
	}
	return append(make([]byte, 0, len(text)), text...)
}

// forget gives up on answers that never came.
func (s *v1Session) forget(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, a := range s.asked {
		for a != nil && now.Sub(a.at) > forgetAsked {
			a.client.answered()
			a = a.next
		}
		if a == nil {
			delete(s.asked, id)
		} else {
			s.asked[id] = a
		}
	}
}

// report tells of the session's clients as a v2 container does.
func (s *v1Session) report(now time.Time) (wire.SessionReport, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == v1Starting && !s.again || s.state == v1Over {
		return wire.SessionReport{}, false
	}
	r := wire.SessionReport{
		SessionID: s.id, BindRev: s.bindRev, Phase: wire.Serving, Attached: len(s.clients), Connected: s.connected,
		Idle: now.Sub(s.moved).Milliseconds(), GraceLeft: -1,
	}
	if len(s.clients) > 0 {
		r.Idle = 0 // outsiders take a session for dead that is idle, connected or not
	}
	if !s.graceUntil.IsZero() && !s.keepAlive {
		r.GraceLeft = max(0, s.graceUntil.Sub(now).Milliseconds())
	}
	return r, true
}
