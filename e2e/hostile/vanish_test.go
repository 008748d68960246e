//go:build linux

package hostile

import (
	"bytes"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// found is when a peer that has vanished must be found at the very latest here: the documents say
// 30 s.
const found = 45 * time.Second

// A peer that vanishes says nothing and answers nothing, as if its cable had been cut: a filter on its
// socket drops all that comes, before TCP sees it, and what it has sent before is long there. The
// other peer lives, and answers pings.
func TestAPeerThatVanishesIsFound(t *testing.T) {
	w := newWorld(t)
	var together sync.WaitGroup // they do nothing but wait
	for name, c := range map[string]struct {
		client bool // it is the client that vanishes, not the container
		sent   int  // messages to it that are then under way
		size   int
	}{
		"client, idle":                         {client: true},
		"client, a message under way":          {client: true, sent: 1, size: 200},
		"client, more under way than is taken": {client: true, sent: 100, size: 1 << 20},
		"container, idle":                      {},
		"container, a message under way":       {sent: 1, size: 200},
		"container, much under way":            {sent: 100, size: 1 << 20},
	} {
		together.Go(func() {
			t.Run(name, func(t *testing.T) {
				arrived, over := make(chan *websocket.Conn, 1), make(chan struct{})
				defer close(over)
				s := w.session(t, func(rw http.ResponseWriter, r *http.Request) {
					conn, err := (&websocket.Upgrader{}).Upgrade(rw, r, nil)
					if err != nil {
						t.Errorf("upgrading: %v", err)
						return
					}
					defer conn.Close()
					arrived <- conn
					<-over
				})
				client, resp, err := websocket.DefaultDialer.DialContext(t.Context(), s.ConnectURL, nil)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				defer client.Close()
				container := <-arrived
				lost, alive := container, client
				if c.client {
					lost, alive = client, container
				}
				// Both directions have been used. The last thing that comes to the one that vanishes
				// acknowledges what it has sent, which it would repeat otherwise.
				exchange(t, lost, alive)
				exchange(t, alive, lost)
				vanish(t, lost)
				since := time.Now()
				written := make(chan struct{})
				go func() { // waited for below
					defer close(written)
					for range c.sent {
						if alive.WriteMessage(websocket.BinaryMessage, make([]byte, c.size)) != nil {
							return
						}
					}
				}()
				_ = alive.SetReadDeadline(time.Now().Add(found))
				_, _, err = alive.ReadMessage()                                            // it answers pings meanwhile
				if timeout, ok := err.(net.Error); err == nil || ok && timeout.Timeout() { //nolint:errorlint // it is never wrapped
					t.Fatalf("after %s nobody has noticed: %v", time.Since(since).Round(time.Second), err)
				}
				t.Logf("found after %.1f s: %v", time.Since(since).Seconds(), err)
				_ = alive.Close()
				<-written
			})
		})
	}
	together.Wait()
}

// exchange sends something small from one to the other.
func exchange(t *testing.T, from, to *websocket.Conn) {
	t.Helper()
	hello := []byte("hello")
	if err := from.WriteMessage(websocket.TextMessage, hello); err != nil {
		t.Fatal(err)
	}
	_ = to.SetReadDeadline(time.Now().Add(patience))
	if _, got, err := to.ReadMessage(); err != nil || !bytes.Equal(got, hello) {
		t.Fatalf("%q came: %v", got, err)
	}
	_ = to.SetReadDeadline(time.Time{})
}

// vanish has a socket take no packet any more.
func vanish(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	tcp := conn.NetConn().(*net.TCPConn)
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := tcp.SetKeepAlive(false); err != nil { // it would send probes of its own
		t.Fatal(err)
	}
	drop := []syscall.SockFilter{{Code: syscall.BPF_RET | syscall.BPF_K, K: 0}}
	err = raw.Control(func(fd uintptr) {
		if err := syscall.AttachLsf(int(fd), drop); err != nil { //nolint:staticcheck // a package for one call is no better
			t.Errorf("attaching a filter: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
