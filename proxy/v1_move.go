package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// moveV1 hands a client over, which has its 101 already, to the replica that has its session's
// link: the other end gets the same request again, its answer is swallowed, and the client's
// messages follow, those first that were kept. It returns when the client is gone; false: it
// was not taken and is as before.
func (r *Relay) moveV1(ctx context.Context, req *http.Request, owner string, access Access, c *v1Client) bool {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	w := &movedWriter{conn: far, header: http.Header{}}
	tunnelled := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = near.Close() })
	defer stop()
	go func() {
		err := r.cfg.Peers.Tunnel(w, req.Clone(ctx), owner, access)
		if !w.taken {
			_ = far.Close() // else it is the tunnel's
		}
		tunnelled <- err
	}()
	back := bufio.NewReader(near)
	if !swallowAnswer(back) {
		_ = near.Close()
		_ = <-tunnelled
		return false
	}
	// From here on the client is the other replica's. Its frames go back as they are, so nothing
	// of ours may be written between them.
	m := &moved{conn: near}
	c.handOver(m)
	_, _ = io.Copy(c.conn.NetConn(), back)
	_ = c.conn.Close()
	_ = near.Close()
	_ = <-tunnelled
	return true
}

// swallowAnswer reads the head of the answer to an upgrade.
func swallowAnswer(r *bufio.Reader) bool {
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // a 101 has none
	return resp.StatusCode == http.StatusSwitchingProtocols
}

// movedWriter stands for a client's connection towards a replica that is asked to take it.
type movedWriter struct {
	conn   net.Conn
	header http.Header
	taken  bool
}

// Header implements http.ResponseWriter.
func (w *movedWriter) Header() http.Header { return w.header }

// Write implements http.ResponseWriter. Nobody may answer but by taking the connection over.
func (w *movedWriter) Write([]byte) (int, error) {
	return 0, errors.New("the client has been answered already")
}

// WriteHeader implements http.ResponseWriter.
func (w *movedWriter) WriteHeader(int) {}

// Hijack implements http.Hijacker.
func (w *movedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.taken = true
	return w.conn, bufio.NewReadWriter(bufio.NewReader(w.conn), bufio.NewWriter(w.conn)), nil
}

// moved is the place of a client that another replica serves.
type moved struct {
	mu   sync.Mutex // guards conn's writes
	conn net.Conn
}

// pass implements place.
func (m *moved) pass(c *v1Client, text []byte) {
	if m.frame(websocket.TextMessage, text) != nil {
		_ = c.conn.Close()
	}
}

// frame writes one frame as a client does: masked, with a mask that changes nothing.
func (m *moved) frame(opcode int, text []byte) error {
	const masked = 0x80
	head := []byte{0x80 | byte(opcode)}
	switch n := len(text); {
	case n < 126:
		head = append(head, masked|byte(n))
	case n < 1<<16:
		head = append(head, masked|126, byte(n>>8), byte(n))
	default:
		head = append(head, masked|127)
		for shift := 56; shift >= 0; shift -= 8 {
			head = append(head, byte(uint64(n)>>shift))
		}
	}
	head = append(head, 0, 0, 0, 0)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.conn.Write(head); err != nil {
		return err
	}
	_, err := m.conn.Write(text)
	return err
}

// handOver gives the client another replica's place, and its control frames with it.
func (c *v1Client) handOver(m *moved) {
	c.placing.Lock()
	defer c.placing.Unlock()
	c.remote.Store(m)
	for _, text := range c.early {
		m.pass(c, text)
	}
	c.early, c.earlyN = nil, 0
	c.place = m
}

// forwardControls answers the client's control frames until another replica does.
func (c *v1Client) forwardControls() {
	ping := c.conn.PingHandler()
	goodbye := c.conn.CloseHandler()
	c.conn.SetPingHandler(func(data string) error {
		if m := c.remote.Load(); m != nil {
			return m.frame(websocket.PingMessage, []byte(data))
		}
		return ping(data)
	})
	c.conn.SetCloseHandler(func(code int, text string) error {
		m := c.remote.Load()
		if m == nil {
			return goodbye(code, text)
		}
		var payload []byte
		if code != websocket.CloseNoStatusReceived {
			payload = websocket.FormatCloseMessage(code, text)
		}
		if err := m.frame(websocket.CloseMessage, payload); err != nil {
			return err
		}
		// The other replica's answer is on its way to the client.
		time.AfterFunc(clientFarewell, func() { _ = c.conn.Close() })
		return nil
	})
}
