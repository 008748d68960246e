//go:build linux

package stage

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

// Fakes are containers without browsers: they register, hold a link and obey at once, so that
// what is measured is the service alone.
type Fakes struct {
	Sockets http.HandlerFunc // serves sessions' sockets; nil: nobody does. Set before Run.

	mu      sync.Mutex
	created map[string]chan time.Time // by session: gets the time of CREATE_SESSION
	ended   map[string]chan time.Time // by session: gets the time of DESTROY_SESSION
	told    map[string]int64          // by session: the binding that a container was told of last
	again   int                       // sessions that were created under two bindings
	said    error                     // the last thing that went wrong

	Active atomic.Bool // reports say that a client is there and bytes move
}

// NewFakes returns Fakes without containers.
func NewFakes() *Fakes {
	return &Fakes{created: map[string]chan time.Time{}, ended: map[string]chan time.Time{}, told: map[string]int64{}}
}

// Expect tells when a container gets the orders of a session. It must be called before the session is written.
func (f *Fakes) Expect(id string) (created, ended <-chan time.Time) {
	c, e := make(chan time.Time, 1), make(chan time.Time, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.created[id], f.ended[id] = c, e
	return c, e
}

// saw tells of an order, once.
func (f *Fakes) saw(o wire.Order, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if before, told := f.told[o.SessionID]; o.Type == wire.CreateSession {
		if told && before != o.BindRev {
			f.again++
		}
		f.told[o.SessionID] = o.BindRev
	}
	of := f.created
	if o.Type == wire.DestroySession {
		of = f.ended
	}
	if c := of[o.SessionID]; c != nil {
		c <- at
		delete(of, o.SessionID)
	}
}

// ToldTwice is how many sessions were created under two bindings.
func (f *Fakes) ToldTwice() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.again
}

func (f *Fakes) complain(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = err
}

// LastError is the last thing that went wrong.
func (f *Fakes) LastError() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.said
}

// Run is one container, for as long as its task lives.
func (f *Fakes) Run(ctx context.Context, env ecslocal.TaskEnv) int {
	l, err := net.Listen("tcp", net.JoinHostPort(env.Addr, strconv.Itoa(env.Port)))
	if err != nil {
		f.complain(err)
		return 1
	}
	c := &fake{Fakes: f, bootID: rand.Text(), sessions: map[string]held{}}
	server := &http.Server{Handler: http.HandlerFunc(c.serve), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	serving := make(chan struct{})
	go func() { // waited for below
		defer close(serving)
		_ = server.Serve(l)
	}()
	if err := c.register(ctx, env); err != nil && ctx.Err() == nil {
		f.complain(err)
	}
	<-ctx.Done()
	_ = server.Close()
	<-serving
	c.links.Wait()
	return 0
}

// fake is one container.
type fake struct {
	*Fakes
	bootID string
	links  sync.WaitGroup

	own      sync.Mutex // guards the fields below
	sessions map[string]held
	draining bool
	drainSeq int64
}

// held is a session that a container holds.
type held struct {
	bindRev int64
	since   time.Time
}

func (c *fake) register(ctx context.Context, env ecslocal.TaskEnv) error {
	slots, err := strconv.Atoi(env.Env["MAX_SESSIONS"])
	if err != nil {
		return err
	}
	body, err := json.Marshal(wire.Registration{ContainerID: env.Env["CONTAINER_ID"], IP: env.Addr, Port: env.Port, TaskARN: env.ARN,
		Protocol: wire.Protocol, BootID: c.bootID, MaxSessions: slots, Version: "stage"})
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 5 * time.Second}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, env.Env["PROXY_ENDPOINT"]+wire.RegisterPath, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(wire.TokenHeader, env.Env["CONTAINER_TOKEN"])
		resp, err := client.Do(req)
		if err == nil {
			text, _ := io.ReadAll(resp.Body) // for people
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("registering: %s: %s", resp.Status, text)
		}
		c.complain(err)
		if err := Pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func (c *fake) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != wire.LinkPath {
		if c.Sockets != nil && strings.HasPrefix(r.URL.Path, wire.SessionsPath) {
			c.Sockets(w, r)
			return
		}
		http.NotFound(w, r)
		return
	}
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		c.complain(err)
		return
	}
	c.links.Add(1)
	defer c.links.Done()
	ctx, cancel := context.WithCancel(r.Context())
	writer := make(chan struct{})
	notices, changed := make(chan wire.Notice, 4096), make(chan struct{}, 1)
	orders := &orders{}
	go func() { // waited for below
		defer close(writer)
		defer conn.Close() // the reader then ends, too
		c.write(ctx, conn, orders, notices, changed)
	}()
	if err := c.read(ctx, conn, orders, notices, changed); err != nil && ctx.Err() == nil {
		c.complain(err)
	}
	cancel()
	<-writer
}

// orders remembers the last one that was obeyed.
type orders struct {
	mu   sync.Mutex
	last uint64
}

// read obeys orders until the link ends.
func (c *fake) read(ctx context.Context, conn *websocket.Conn, done *orders, notices chan<- wire.Notice, changed chan<- struct{}) error {
	for {
		_, text, err := conn.ReadMessage()
		at := time.Now()
		if err != nil {
			if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		var o wire.Order
		if err := json.Unmarshal(text, &o); err != nil {
			return err
		}
		n, answers := c.obey(o)
		if answers {
			c.saw(o, at)
			select {
			case notices <- n:
			case <-ctx.Done():
				return nil
			}
		}
		done.mu.Lock()
		done.last = o.N
		done.mu.Unlock()
		select {
		case changed <- struct{}{}:
		default: // a report is due anyway
		}
	}
}

// obey does what an order says.
func (c *fake) obey(o wire.Order) (n wire.Notice, answers bool) {
	c.own.Lock()
	defer c.own.Unlock()
	switch o.Type {
	case wire.CreateSession:
		c.sessions[o.SessionID] = held{o.BindRev, time.Now()}
		return wire.Notice{Type: wire.SessionReady, SessionID: o.SessionID, BindRev: o.BindRev}, true
	case wire.DestroySession:
		delete(c.sessions, o.SessionID)
		return wire.Notice{Type: wire.SessionEnded, SessionID: o.SessionID, BindRev: o.BindRev, Reason: o.Reason}, true
	case wire.Drain:
		c.draining, c.drainSeq = true, o.DrainSeq
	case wire.Undrain:
		c.draining = false
	}
	return n, false
}

// write sends notices as they come and reports as the protocol wants them.
func (c *fake) write(ctx context.Context, conn *websocket.Conn, done *orders, notices <-chan wire.Notice, changed <-chan struct{}) {
	every := time.NewTicker(5 * time.Second)
	defer every.Stop()
	soon := time.NewTimer(0) // a report at once
	defer soon.Stop()
	due := true
	for {
		var n wire.Notice
		select {
		case n = <-notices:
		case <-changed:
			if !due {
				soon.Reset(15 * time.Millisecond)
				due = true
			}
			continue
		case <-soon.C:
			due = false
			n = c.report(done)
		case <-every.C:
			n = c.report(done)
		case <-ctx.Done():
			return
		}
		if err := conn.WriteJSON(n); err != nil {
			return
		}
	}
}

func (c *fake) report(done *orders) wire.Notice {
	done.mu.Lock()
	ack := done.last
	done.mu.Unlock()
	c.own.Lock()
	defer c.own.Unlock()
	r := &wire.Report{BootID: c.bootID, Ack: ack, Draining: c.draining, CPU: 0.1, Memory: 0.1, Warm: 1, Sessions: make([]wire.SessionReport, 0, len(c.sessions))}
	if c.draining && len(c.sessions) == 0 {
		r.DrainAck = c.drainSeq
	}
	active := c.Active.Load()
	for id, h := range c.sessions {
		s := wire.SessionReport{SessionID: id, BindRev: h.bindRev, Phase: wire.Serving, GraceLeft: -1}
		if active {
			s.Attached, s.Connected = 1, true
		} else {
			s.Idle = time.Since(h.since).Milliseconds()
		}
		r.Sessions = append(r.Sessions, s)
	}
	return wire.Notice{Type: wire.ReportState, Report: r}
}
