//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// patience is how long anything may take. Nothing is judged by time.
const patience = 60 * time.Second

// world is the service whose relay is judged: the built program, and a container whose sessions'
// sockets are the checks' own.
type world struct {
	*stage.Service

	mu      sync.Mutex // guards waiting
	waiting map[string]chan arrival

	legs       int // sockets of the relay, links and of API calls, while no client is there
	goroutines int
}

// arrival is an upgrade that has come to the container.
type arrival struct {
	request *http.Request
	conn    net.Conn
	early   []byte
}

func newWorld(ctx context.Context, g *stage.Stage, sessions int) (*world, error) {
	w := &world{waiting: map[string]chan arrival{}}
	s, err := g.StartService(ctx, stage.Options{Containers: 1, Slots: sessions, Notifications: true, Sockets: w.arrive,
		// A ping of the relay's own would be right, and not what was sent: none while anything moves.
		Env: []string{"CLIENT_PING=25s"}})
	if err != nil {
		return nil, err
	}
	w.Service = s
	return w, nil
}

// arrive hands the connection of an upgrade to the check that waits for it.
func (w *world) arrive(rw http.ResponseWriter, r *http.Request) {
	id, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/sessions/"), "/")
	w.mu.Lock()
	to := w.waiting[id]
	w.mu.Unlock()
	if to == nil {
		http.Error(rw, "nobody waits", http.StatusServiceUnavailable)
		return
	}
	conn, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // it is in the buffer
	select {
	case to <- arrival{r, conn, bytes.Clone(early)}:
	default:
		_ = conn.Close()
	}
}

// session is one whose sockets are a check's own, one connection after another.
type session struct {
	world    *world
	id       string
	target   string // of its socket's requests, with the token
	arrivals chan arrival
}

func (w *world) open(ctx context.Context) (*session, error) {
	var created stage.Session
	err := w.API.Do(ctx, http.MethodPost, "/v1/sessions", map[string]any{"keepAlive": true}, &created)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(created.ConnectURL)
	if err != nil {
		return nil, fmt.Errorf("the connect URL of %s is none", created.ID)
	}
	s := &session{w, created.ID, u.RequestURI(), make(chan arrival, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[s.id] = s.arrivals
	return s, nil
}

// handshakeKey is a client's, and handshakeAccept the answer to it.
const handshakeKey = "Y29uZm9ybWFuY2Uga2V5IQ=="

func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// upgrade connects a client to the session, with more headers if any, and gives what each side got:
// the headers of the answer, and the request.
func (s *session) upgrade(headers string) (client net.Conn, answered http.Header, backend arrival, err error) {
	client, err = net.DialTimeout("tcp", s.world.Addr.String(), patience)
	if err != nil {
		return nil, nil, arrival{}, err
	}
	defer func() {
		if err != nil {
			_ = client.Close()
		}
	}()
	if err := client.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, nil, arrival{}, err
	}
	_, err = fmt.Fprintf(client, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s\r\n", s.target, s.world.Addr, handshakeKey, headers)
	if err != nil {
		return nil, nil, arrival{}, err
	}
	select {
	case backend = <-s.arrivals:
	case <-time.After(patience):
		return nil, nil, arrival{}, errors.New("no upgrade came to the container")
	}
	defer func() {
		if err != nil {
			_ = backend.conn.Close()
		}
	}()
	if err := backend.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, nil, arrival{}, err
	}
	_, err = fmt.Fprintf(backend.conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		acceptOf(backend.request.Header.Get("Sec-Websocket-Key")))
	if err != nil {
		return nil, nil, arrival{}, err
	}
	// One byte at a time: what follows the head belongs to the stream.
	head := bufio.NewReader(&byteReader{client})
	answer, err := http.ReadResponse(head, &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, nil, arrival{}, fmt.Errorf("reading the answer to the upgrade: %w", err)
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode != http.StatusSwitchingProtocols:
		text, _ := io.ReadAll(answer.Body) // for people
		return nil, nil, arrival{}, fmt.Errorf("the upgrade was refused: %s: %s", answer.Status, text)
	case answer.Header.Get("Sec-Websocket-Accept") != acceptOf(handshakeKey):
		return nil, nil, arrival{}, errors.New("the upgrade was answered with a wrong Sec-WebSocket-Accept")
	case head.Buffered() > 0:
		return nil, nil, arrival{}, errors.New("bytes came before any were sent")
	}
	return client, answer.Header, backend, nil
}

// byteReader reads no further than it must.
type byteReader struct{ r io.Reader }

func (b *byteReader) Read(p []byte) (int, error) { return b.r.Read(p[:min(1, len(p))]) }

// countLegs counts the service's sockets with its clients and its containers, held open by a
// descriptor: not those with Redis or ECS, whose number is up to pools.
func (w *world) countLegs() (int, error) {
	ports := map[string]bool{fmt.Sprintf("%04X", w.Addr.Port()): true, fmt.Sprintf("%04X", w.ContainerPort): true}
	mine := map[string]bool{} // inodes
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(w.Pid()), "net", name))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			const listening = "0A"
			if len(f) < 10 || f[3] == listening {
				continue
			}
			_, from, _ := strings.Cut(f[1], ":")
			_, to, _ := strings.Cut(f[2], ":")
			if ports[from] || ports[to] {
				mine["socket:["+f[9]+"]"] = true
			}
		}
	}
	dir := filepath.Join("/proc", strconv.Itoa(w.Pid()), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && mine[to] {
			n++
		}
	}
	return n, nil
}

// slack is how many goroutines may come and go without any client: timers, pools, reports.
const slack = 15

// note remembers what is held while no client is there.
func (w *world) note(ctx context.Context) error {
	return w.Until(ctx, patience, "nothing is going on", func() (err error) {
		now, err := w.Vitals(ctx)
		if err == nil && now.Clients > 0 {
			err = stage.ErrNotYet
		}
		if err == nil {
			w.goroutines = now.Goroutines
			w.legs, err = w.countLegs()
		}
		return err
	})
}

// freed waits until nothing is held of the clients that were there.
func (w *world) freed(ctx context.Context) error {
	return w.Until(ctx, patience, "all is freed", func() error {
		now, err := w.Vitals(ctx)
		if err != nil {
			return err
		}
		legs, err := w.countLegs()
		if err == nil && (now.Clients > 0 || legs > w.legs || now.Goroutines > w.goroutines+slack) {
			err = fmt.Errorf("%d clients, %d sockets (%d before), %d goroutines (%d before): %w", now.Clients, legs, w.legs, now.Goroutines, w.goroutines, stage.ErrNotYet)
		}
		return err
	})
}
