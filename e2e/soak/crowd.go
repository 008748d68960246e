//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// crowd are the clients: each of them has a session and a habit.
type crowd struct {
	service *stage.Service
	clients []*client
	opening time.Duration // how long it took

	messages atomic.Int64
	comings  atomic.Int64 // connections after the first
	sessions atomic.Int64 // that have come and gone

	cancel context.CancelFunc
	habits sync.WaitGroup

	mu    sync.Mutex
	wrong []error // guarded by mu
}

// habit is what a client does.
type habit int

const (
	idle   habit = iota // it is there, and answers pings
	busy                // it asks something every few seconds
	coming              // it asks, leaves in one way or another, and comes again
)

// habitOf spreads habits: six of ten are idle, three busy, one comes and goes.
func habitOf(i int) habit {
	switch i % 10 {
	case 0, 1, 2, 3, 4, 5:
		return idle
	case 6, 7, 8:
		return busy
	default:
		return coming
	}
}

// client is one of the crowd.
type client struct {
	crowd *crowd
	n     int
	url   string
	conn  *connection // owned by its habit
}

const (
	connectTimeout = 2 * time.Minute
	answerTimeout  = time.Minute
	together       = 16 // clients that connect at the same time
)

// gather creates the sessions and connects a client to each.
func gather(ctx context.Context, s *stage.Service, n int, length time.Duration) (*crowd, error) {
	c := &crowd{service: s, clients: make([]*client, n)}
	begin := time.Now()
	errs := inTurn(n, func(i int) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		created, err := c.create(ctx, length+time.Hour)
		if err == nil {
			c.clients[i] = &client{crowd: c, n: i, url: created.ConnectURL}
			c.clients[i].conn, err = c.connect(ctx, created.ConnectURL)
		}
		return err
	})
	c.opening = time.Since(begin)
	return c, firstOf(errs)
}

// inTurn does something for each of n, some at the same time, and returns what failed.
func inTurn(n int, do func(i int) error) (errs []error) {
	var group sync.WaitGroup
	var next atomic.Int64
	var mu sync.Mutex // guards errs
	for range together {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("client %d: %w", i, err))
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	return errs
}

// firstOf makes one error of many; nil of none.
func firstOf(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d times: %w", len(errs), errors.Join(errs[:min(len(errs), 5)]...))
}

func (c *crowd) create(ctx context.Context, life time.Duration) (created stage.Session, err error) {
	err = c.service.API.Do(ctx, http.MethodPost, "/v1/sessions", map[string]any{"keepAlive": true, "timeout": int(life.Seconds())}, &created)
	return created, err
}

// start gives every client its habit.
func (c *crowd) start(ctx context.Context) {
	ctx, c.cancel = context.WithCancel(ctx)
	for _, one := range c.clients {
		c.habits.Go(func() { one.live(ctx) })
	}
	c.habits.Go(func() { c.passers(ctx) })
}

// stop ends the habits, but what was asked is answered.
func (c *crowd) stop() {
	c.cancel()
	c.habits.Wait()
}

// rollCall asks every client's browser something, and tells whose does not answer. Those that are
// away come for it.
func (c *crowd) rollCall(ctx context.Context) error {
	return firstOf(inTurn(len(c.clients), func(i int) (err error) {
		one := c.clients[i]
		if one.conn == nil {
			if one.conn, err = c.connect(ctx, one.url); err != nil {
				return err
			}
		}
		return one.conn.exchange(200, byte(i))
	}))
}

// leave has all leave, in one way or another.
func (c *crowd) leave(ctx context.Context) {
	inTurn(len(c.clients), func(i int) error {
		if one := c.clients[i]; one.conn != nil {
			return one.conn.leave(ctx, ending(i%3))
		}
		return nil
	})
}

// blame notes what went wrong, unless it is because the end has come.
func (c *crowd) blame(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, err)
}

// trouble is what went wrong.
func (c *crowd) trouble() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return firstOf(c.wrong)
}

// moved tells whether enough went on in all that time for slopes to mean something: a quarter of
// what the habits make on a machine that keeps up.
func (c *crowd) moved(length time.Duration) error {
	seconds, clients := length.Seconds(), float64(len(c.clients))
	for _, one := range []struct {
		what string
		got  int64
		want float64
	}{
		{"messages", c.messages.Load(), clients * seconds / 48},          // three of ten ask every 4 s
		{"connections", c.comings.Load(), clients * seconds / 400},       // one of ten comes every 10 s
		{"sessions that passed", c.sessions.Load(), seconds / (4 * 1.2)}, // one after another
	} {
		if float64(one.got) < one.want {
			return fmt.Errorf("%d %s, and %.0f are the least: the machine has too much else to do, or the service has", one.got, one.what, one.want)
		}
	}
	return nil
}

func (c *crowd) told() string {
	return fmt.Sprintf("%d messages were answered, %d connections and %d sessions came and went", c.messages.Load(), c.comings.Load(), c.sessions.Load())
}

// passers are sessions that are created, used and released, one after another.
func (c *crowd) passers(ctx context.Context) {
	for n := 0; stage.Pause(ctx, 500*time.Millisecond+rand.N(time.Second)) == nil; n++ {
		c.blame(ctx, c.pass(ctx, byte(n)))
	}
}

func (c *crowd) pass(ctx context.Context, mark byte) error {
	created, err := c.create(ctx, time.Hour)
	if err != nil {
		return fmt.Errorf("a session that passes: %w", err)
	}
	conn, err := c.connect(ctx, created.ConnectURL)
	if err == nil {
		err = errors.Join(conn.exchange(2000, mark), conn.leave(ctx, byGoodbye))
	}
	if err := errors.Join(err, c.service.API.Release(ctx, created.ID)); err != nil {
		return fmt.Errorf("session %s, which passes: %w", created.ID, err)
	}
	c.sessions.Add(1)
	return nil
}

// live does what the client's habit is until the end.
func (k *client) live(ctx context.Context) { k.crowd.blame(ctx, k.follow(ctx)) }

func (k *client) follow(ctx context.Context) error {
	for {
		var pause time.Duration
		switch habitOf(k.n) {
		case idle:
			select {
			case <-k.conn.done:
				return fmt.Errorf("idle client %d was cut: %w", k.n, k.conn.err)
			case <-ctx.Done():
				return nil
			}
		case busy:
			pause = time.Second + rand.N(6*time.Second)
		case coming:
			pause = rand.N(10 * time.Second)
		}
		if stage.Pause(ctx, pause) != nil {
			return nil
		}
		if err := k.conn.exchange(sizes()[rand.IntN(len(sizes()))], byte(k.n+1)); err != nil {
			return fmt.Errorf("client %d: %w", k.n, err)
		}
		if habitOf(k.n) != coming {
			continue
		}
		if err := k.conn.leave(ctx, ending(rand.IntN(3))); err != nil {
			return fmt.Errorf("client %d, leaving: %w", k.n, err)
		}
		k.conn = nil
		if stage.Pause(ctx, rand.N(10*time.Second)) != nil {
			return nil
		}
		var err error
		if k.conn, err = k.crowd.connect(ctx, k.url); err != nil {
			return fmt.Errorf("client %d, coming again: %w", k.n, err)
		}
		k.crowd.comings.Add(1)
	}
}

// sizes are how long answers are.
func sizes() []int { return []int{20, 200, 200, 200, 2000, 20_000, 60_000} }

// ending is a way to leave.
type ending int

const (
	byGoodbye ending = iota // with the closing handshake
	byEnd                   // the stream just ends
	byReset
)

// connection is a client's, read by a goroutine of its own.
type connection struct {
	crowd   *crowd
	ws      *websocket.Conn
	answers chan []byte
	done    chan struct{} // closed when it has ended
	err     error         // why; valid then
}

func (c *crowd) connect(ctx context.Context, url string) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	dialer := websocket.Dialer{HandshakeTimeout: connectTimeout, ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10}
	ws, resp, err := dialer.DialContext(ctx, url, nil) //nolint:bodyclose // the body is in memory
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("connecting: %w: %s", err, resp.Status)
		}
		return nil, fmt.Errorf("connecting: %w", err)
	}
	k := &connection{crowd: c, ws: ws, answers: make(chan []byte, 1), done: make(chan struct{})}
	go func() { // leave waits for it
		defer close(k.done)
		for {
			_, answer, err := ws.ReadMessage()
			if err != nil {
				k.err = err
				return
			}
			k.answers <- answer
		}
	}()
	return k, nil
}

// exchange asks and checks the answer. Nothing but time ends it before, so that none is left over.
func (k *connection) exchange(size int, mark byte) error {
	question := ask(size, mark)
	if err := k.ws.WriteMessage(websocket.BinaryMessage, question); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	limit := time.NewTimer(answerTimeout)
	defer limit.Stop()
	select {
	case answer := <-k.answers:
		if !bytes.Equal(answer, answerTo(question)) {
			return fmt.Errorf("the answer to %d bytes is %d bytes of something else", size, len(answer))
		}
		k.crowd.messages.Add(1)
		return nil
	case <-k.done:
		return fmt.Errorf("cut: %w", k.err)
	case <-limit.C:
		return fmt.Errorf("no answer within %s", answerTimeout)
	}
}

// leave ends the connection and waits for its reader.
func (k *connection) leave(ctx context.Context, how ending) error {
	switch how {
	case byGoodbye:
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		if err := k.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(answerTimeout)); err == nil {
			select {
			case <-k.done: // the answer to it ends the reader
			case <-time.After(answerTimeout):
			case <-ctx.Done():
			}
		}
	case byReset:
		if tcp, ok := k.ws.NetConn().(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	case byEnd:
	}
	err := k.ws.Close()
	for {
		select {
		case <-k.answers:
		case <-k.done:
			if how == byGoodbye && !websocket.IsCloseError(k.err, websocket.CloseNormalClosure) && ctx.Err() == nil {
				err = errors.Join(err, fmt.Errorf("the goodbye was answered with: %w", k.err))
			}
			return err
		}
	}
}
