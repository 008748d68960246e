//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

const (
	askEvery    = 100 * time.Millisecond
	stay        = 150 // questions; then a client goes to the next replica, so that each has some
	dialTimeout = 30 * time.Second
	// answerTimeout is when a client gives a connection up that is silent, as one to a replica
	// that is frozen.
	answerTimeout = 45 * time.Second
)

// client drives one session for as long as the run lasts: it asks which pages there are, again
// and again, and comes back when it is cut.
type client struct {
	session, query string
	hosts          []string // of replicas
	at             int      // index of the next
	container      string   // that has its browser

	mu      sync.Mutex // guards the fields below
	page    string
	answers int
	cuts    int
	lost    error // the page is gone
	excused bool  // its container was killed by us
}

type clientState struct {
	answers, cuts int
	lost          error
}

func (c *client) state() clientState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return clientState{c.answers, c.cuts, c.lost}
}

func (c *client) lose(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == nil {
		c.lost = fmt.Errorf("session %s in container %s: %w", c.session, c.container, err)
	}
}

func (c *client) run(ctx context.Context) {
	for id := 1; ctx.Err() == nil; {
		conn, err := dial(ctx, c.hosts[c.at%len(c.hosts)], c.query)
		c.at++
		if errors.Is(err, errOver) {
			c.lose(err)
			return
		}
		if err != nil {
			_ = stage.Pause(ctx, 50*time.Millisecond)
			continue
		}
		id, err = c.drive(ctx, conn, id)
		_ = conn.Close()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errMoves) {
			continue
		}
		c.mu.Lock()
		c.cuts++
		lost := c.lost
		c.mu.Unlock()
		if closed := (*websocket.CloseError)(nil); errors.As(err, &closed) && closed.Code == 1011 {
			c.lose(closed)
			return
		}
		if lost != nil {
			return
		}
	}
}

// drive asks until the connection ends; it returns the next question's number.
func (c *client) drive(ctx context.Context, conn *websocket.Conn, id int) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for asked := 0; ; asked++ {
		if asked == stay {
			return id, errMoves
		}
		page, err := ask(conn, id)
		if err != nil {
			return id + 1, err
		}
		id++
		c.mu.Lock()
		c.answers++
		before := c.page
		if before == "" {
			c.page = page
		}
		c.mu.Unlock()
		if before != "" && before != page {
			c.lose(fmt.Errorf("its page was %s and is %s", before, page))
			return id, nil
		}
		if err := stage.Pause(ctx, askEvery); err != nil {
			return id, err
		}
	}
}

// ask asks one question and awaits its answer.
func ask(conn *websocket.Conn, id int) (page string, err error) {
	if err := conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, question, id)); err != nil {
		return "", err
	}
	if err := conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return "", err
	}
	for {
		var a answer
		if err := conn.ReadJSON(&a); err != nil {
			return "", err
		}
		if a.ID == id {
			return a.page(), nil
		}
	}
}

// errMoves says that a client has left by itself.
var errMoves = errors.New("it moves to the next replica")

// errOver says that there is nothing to come back to.
var errOver = errors.New("it is refused for good")

func dial(ctx context.Context, host, pathAndQuery string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, resp, err := websocket.DefaultDialer.DialContext(ctx, "ws://"+host+pathAndQuery, nil)
	if resp != nil {
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusGone || resp.StatusCode == http.StatusNotFound {
			return nil, fmt.Errorf("%w: %s", errOver, resp.Status)
		}
	}
	return conn, err
}

// queryOf is the part of a connect URL that is alike at all replicas.
func queryOf(connectURL string) (string, error) {
	u, err := url.Parse(connectURL)
	if err != nil {
		return "", err
	}
	return u.RequestURI(), nil
}

// crowd is all traffic.
type crowd struct {
	clients []*client
	visits  atomic.Int64 // sessions that were created, used and released
	missed  atomic.Int64 // visits that went wrong, as they may during a fault
}

// visit creates a session, uses it and releases it, again and again.
func (c *crowd) visit(ctx context.Context, w *world) {
	for ctx.Err() == nil {
		err := w.visitOnce(ctx)
		switch {
		case err == nil:
			c.visits.Add(1)
		case ctx.Err() == nil:
			c.missed.Add(1)
			w.note(fmt.Errorf("a visit: %w", err))
		}
		_ = stage.Pause(ctx, 200*time.Millisecond)
	}
}

func (w *world) visitOnce(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	api := w.anyAPI()
	s, err := api.Create(bounded)
	if err != nil {
		return err
	}
	query, err := queryOf(s.ConnectURL)
	if err != nil {
		return err
	}
	conn, err := dial(bounded, w.anyHost(), query)
	if err == nil {
		_, err = ask(conn, 1)
		_ = conn.Close()
	}
	return errors.Join(err, api.Release(bounded, s.ID))
}

// snapshot is where traffic stands.
type snapshot struct {
	clients []clientState
	visits  int64
}

func (c *crowd) snapshot() snapshot {
	s := snapshot{visits: c.visits.Load()}
	for _, x := range c.clients {
		s.clients = append(s.clients, x.state())
	}
	return s
}
