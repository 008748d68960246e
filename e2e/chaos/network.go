//go:build linux

package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// weather is what a proxy does to connections.
type weather int32

const (
	fair      weather = iota // bytes pass
	refusing                 // connections are cut, and so are new ones
	blackhole                // nothing passes and nothing is cut
)

// proxy passes TCP connections on to the first target that takes them, in turn, and makes the
// weather.
type proxy struct {
	listener net.Listener
	targets  []string
	next     atomic.Int64
	work     sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	weather weather
	changed chan struct{} // closed at a change
	conns   map[net.Conn]struct{}
	closed  bool
}

func startProxy(targets ...string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, targets: targets, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	p.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.pass(conn) })
		}
	})
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// set changes the weather.
func (p *proxy) set(w weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = w
	close(p.changed)
	p.changed = make(chan struct{})
	if w == refusing {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.set(fair)
	_ = p.listener.Close()
	p.work.Wait()
}

// keep remembers a connection, so that it can be cut.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.weather == refusing {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *proxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// hold returns when bytes may pass.
func (p *proxy) hold() {
	for {
		p.mu.Lock()
		w, changed, closed := p.weather, p.changed, p.closed
		p.mu.Unlock()
		if w != blackhole || closed {
			return
		}
		<-changed
	}
}

func (p *proxy) pass(conn net.Conn) {
	defer p.drop(conn)
	if !p.keep(conn) {
		return
	}
	p.hold()
	up := p.dial()
	if up == nil {
		return
	}
	defer p.drop(up)
	if !p.keep(up) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { p.copy(up, conn) })
	p.copy(conn, up)
	_ = conn.Close()
	_ = up.Close()
	back.Wait()
}

func (p *proxy) copy(dst, src net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p.hold()
			if _, err := dst.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if c, ok := dst.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
}

// dial reaches the next target that takes connections; nil: none does.
func (p *proxy) dial() net.Conn {
	for range p.targets {
		at := p.targets[int(p.next.Add(1))%len(p.targets)]
		if conn, err := net.DialTimeout("tcp", at, time.Second); err == nil {
			return conn
		}
	}
	return nil
}
