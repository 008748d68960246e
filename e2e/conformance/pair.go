//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// side is one end of a connection through the relay. It keeps what it has sent and received.
type side struct {
	name   string
	conn   net.Conn
	client bool

	// guarded by the pair's mu
	sent, got []byte
	ended     bool  // the other side's stream has come to its end
	err       error // which was a failure
}

// pair is a client and a container's socket, joined by the relay.
type pair struct {
	client, backend *side

	mu      sync.Mutex
	changed sync.Cond
	timer   *time.Timer
	late    bool
	readers sync.WaitGroup
}

// join opens a connection of the session.
func (s *session) join() (*pair, error) {
	client, _, backend, err := s.upgrade("")
	if err != nil {
		return nil, err
	}
	p := &pair{client: &side{name: "client", conn: client, client: true}, backend: &side{name: "backend", conn: backend.conn, got: backend.early}}
	p.changed.L = &p.mu
	p.timer = time.AfterFunc(patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.late = true
		p.changed.Broadcast()
	})
	return p, nil
}

// close frees both sockets. The streams should have ended by then.
func (p *pair) close() {
	p.timer.Stop()
	_ = p.client.conn.Close()
	_ = p.backend.conn.Close()
	p.readers.Wait()
}

// read collects what comes to a side, and calls taken with each piece of it.
func (p *pair) read(s *side, taken func([]byte)) {
	p.readers.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := s.conn.Read(buf)
			if taken != nil && n > 0 {
				taken(buf[:n])
			}
			p.mu.Lock()
			s.got = append(s.got, buf[:n]...)
			if err != nil {
				s.ended = true
				if !errors.Is(err, io.EOF) {
					s.err = err
				}
			}
			p.changed.Broadcast()
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
}

// write sends bytes of a side.
func (p *pair) write(s *side, b []byte) error {
	p.mu.Lock()
	s.sent = append(s.sent, b...)
	p.mu.Unlock()
	_, err := s.conn.Write(b)
	return err
}

func (p *pair) other(s *side) *side {
	if s == p.client {
		return p.backend
	}
	return p.client
}

// await waits until a condition holds, which is asked under the lock.
func (p *pair) await(what string, done func() bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !done() {
		if p.late {
			return fmt.Errorf("%s: not within %s: the client sent %d bytes and got %d (ended: %v), the backend sent %d and got %d (ended: %v)",
				what, patience, len(p.client.sent), len(p.client.got), p.client.ended, len(p.backend.sent), len(p.backend.got), p.backend.ended)
		}
		p.changed.Wait()
	}
	return nil
}

// halfClose ends a side's stream. It still reads.
func (s *side) halfClose() error { return s.conn.(*net.TCPConn).CloseWrite() }

// same tells whether either side got what the other has sent, and both streams ended well.
func (p *pair) same() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range []*side{p.client, p.backend} {
		from := p.other(s)
		switch {
		case s.err != nil:
			return fmt.Errorf("the %s's stream was cut: %w", s.name, s.err)
		case !s.ended:
			return fmt.Errorf("the %s's stream has not ended", s.name)
		case !bytes.Equal(s.got, from.sent):
			at := 0
			for at < min(len(s.got), len(from.sent)) && s.got[at] == from.sent[at] {
				at++
			}
			return fmt.Errorf("the %s got other bytes than the %s has sent, from byte %d: %d bytes, … %.40x; of %d bytes, … %.40x",
				s.name, from.name, at, len(s.got), s.got[at:], len(from.sent), from.sent[at:])
		}
	}
	return nil
}
