package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// replica is one of several processes of a service.
type replica struct {
	name string // REPLICA_ID
	port int
	*process
}

// startReplica starts a replica of the service; s itself has no process then.
func startReplica(t *testing.T, s *service, name string, port int) *replica {
	t.Helper()
	return startReplicaOf(t, suite.binary, s, name, port)
}

// startReplicaOf starts one of another build of the program.
func startReplicaOf(t *testing.T, binary string, s *service, name string, port int) *replica {
	t.Helper()
	env := maps.Clone(s.env)
	env["PORT"], env["REPLICA_ID"] = strconv.Itoa(port), name
	env["REPLICA_ADDR"] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	r := &replica{name: name, port: port}
	r.process = start(t, program{name: "replica " + name, path: binary, args: []string{"serve"}, env: environ(env)})
	t.Cleanup(func() { s.wantNone(t, "what replica "+name+" prints", r.stdout.String()+r.stderr.String()) })
	return r
}

func (r *replica) url() string { return "http://127.0.0.1:" + strconv.Itoa(r.port) }

func (r *replica) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, 60*time.Second, "replica "+r.name+" is ready", func() error {
		a, err := try(t, http.MethodGet, r.url()+"/ready", nil)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("status %d: %s", a.status, a.body)
		}
		return err
	})
}

// balancer spreads connections over the replicas that take them, as a load balancer does.
type balancer struct {
	listener net.Listener
	ports    []int
	next     atomic.Int64
	work     sync.WaitGroup
}

func startBalancer(t *testing.T, ports []int) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{listener: l, ports: ports}
	b.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.work.Go(func() { b.pass(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); b.work.Wait() })
	return b
}

func (b *balancer) pass(conn net.Conn) {
	defer conn.Close()
	up := b.dial()
	if up == nil {
		return
	}
	defer func() { _ = up.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = copyAll(up, conn)
		_ = up.CloseWrite()
	}()
	_, _ = copyAll(conn, up)
	_ = conn.Close()
	<-done
}

// dial reaches the next replica that takes connections; nil: none does.
func (b *balancer) dial() *net.TCPConn {
	for range b.ports {
		port := b.ports[int(b.next.Add(1))%len(b.ports)]
		conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
		if up, ok := conn.(*net.TCPConn); ok && err == nil {
			return up
		}
	}
	return nil
}

func copyAll(dst, src net.Conn) (int64, error) { return dst.(*net.TCPConn).ReadFrom(src) }

// window is how many commands a driver has out at a time.
const window = 4

// driver is a program that drives a v1 session without a pause, and comes back when it is cut.
type driver struct {
	session, token string
	ports          []int
	container      string

	mu     sync.Mutex // guards the following
	at     int        // index of the port that it is joined at
	page   string     // of the first answer
	asked  int        // the last command's id
	got    int        // answers, in all
	breaks int        // connections that were cut
	why    error      // the last cut
	fault  error      // what must never be
}

// state is what a driver has come to.
type driverState struct {
	at, got, breaks int
	why, fault      error
}

func (d *driver) state() driverState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return driverState{d.at, d.got, d.breaks, d.why, d.fault}
}

func (d *driver) wrong(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault == nil {
		d.fault = fmt.Errorf("session %s: %w", d.session, err)
	}
}

// run drives until ctx ends.
func (d *driver) run(ctx context.Context, first int) {
	at := first
	for ctx.Err() == nil {
		conn, err := d.dial(ctx, at)
		if err != nil {
			if over := (*goneError)(nil); errors.As(err, &over) {
				d.wrong(err)
				return
			}
			at = (at + 1) % len(d.ports)
			waitFor(ctx, 50*time.Millisecond)
			continue
		}
		d.mu.Lock()
		d.at = at
		d.mu.Unlock()
		err = d.drive(ctx, conn)
		_ = conn.Close()
		if ctx.Err() != nil {
			return
		}
		d.mu.Lock()
		d.breaks++
		d.why = err
		d.mu.Unlock()
		at = (at + 1) % len(d.ports)
	}
}

// goneError says that there is nothing to come back to.
type goneError struct{ text string }

// Error implements error.
func (e *goneError) Error() string { return e.text }

func (d *driver) dial(ctx context.Context, at int) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	u := "ws://127.0.0.1:" + strconv.Itoa(d.ports[at]) + "/sessions/" + d.session + "/ws?token=" + url.QueryEscape(d.token)
	conn, resp, err := websocket.DefaultDialer.DialContext(ctx, u, nil)
	if resp != nil {
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusGone || resp.StatusCode == http.StatusNotFound {
			return nil, &goneError{"it is refused with " + resp.Status}
		}
	}
	return conn, err
}

// drive sends commands and reads answers until the connection ends. What was asked on a
// connection that was cut is not asked again: no later answer may be one of those.
func (d *driver) drive(ctx context.Context, conn *websocket.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, text, err := conn.ReadMessage(); err != nil {
		return err
	} else if want := `{"type":"session_ready","sessionId":"` + d.session + `"}`; string(text) != want {
		d.wrong(fmt.Errorf("the first message is %s", text))
	}
	expected := d.asked + 1
	for {
		for d.asked < expected+window-1 {
			d.asked++
			if err := conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":%d,"method":"Runtime.evaluate","params":{"big":9007199254740993}}`, d.asked)); err != nil {
				return err
			}
		}
		_, text, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		if err := d.check(text, expected); err != nil {
			d.wrong(err)
		}
		expected++
		waitFor(ctx, 5*time.Millisecond)
	}
}

func (d *driver) check(text []byte, id int) error {
	var m struct {
		ID     int
		Result struct{ Page string }
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	if m.ID != id || !strings.Contains(string(text), fmt.Sprintf(`"echo":{"id":%d,"method":"Runtime.evaluate","params":{"big":9007199254740993}}`, id)) {
		return fmt.Errorf("answer %d was expected, and this came: %.300s", id, text)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.page == "" {
		d.page = m.Result.Page
	}
	d.got++
	if m.Result.Page != d.page {
		return fmt.Errorf("its page was %s and is %s", d.page, m.Result.Page)
	}
	return nil
}

func waitFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// crowd is many drivers.
type crowd []*driver

// faults fails the test at what no driver may see.
func (c crowd) faults(t *testing.T) {
	t.Helper()
	for _, d := range c {
		if s := d.state(); s.fault != nil {
			t.Errorf("%v (it was cut %d times, last: %v)", s.fault, s.breaks, s.why)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// goOn waits until each driver has n more answers than it had; those that must not be cut
// have not been.
func (c crowd) goOn(t *testing.T, before []driverState, n int, mayBeCut func(i int) bool) {
	t.Helper()
	eventually(t, 150*time.Second, "every client goes on", func() error {
		c.faults(t)
		behind := 0
		var example string
		for i, d := range c {
			s := d.state()
			if s.breaks != before[i].breaks && !mayBeCut(i) {
				t.Fatalf("session %s was joined at a replica that was left alone and was cut: %v", d.session, s.why)
			}
			if s.got < before[i].got+n || mayBeCut(i) && s.breaks == before[i].breaks {
				behind++
				example = fmt.Sprintf("session %s has %d answers after %d, was cut %d times (%v)", d.session, s.got-before[i].got, n, s.breaks-before[i].breaks, s.why)
			}
		}
		if behind > 0 {
			return fmt.Errorf("%d of %d do not: %s", behind, len(c), example)
		}
		return nil
	})
}

func (c crowd) states() []driverState {
	states := make([]driverState, len(c))
	for i, d := range c {
		states[i] = d.state()
	}
	return states
}

func nobody(int) bool { return false }

// Three replicas, six v1 containers and a hundred clients that never pause: Redis restarts, the
// leader is killed, another replica is stopped in order. Whoever is joined at a replica that
// lives, to a container whose link that or another living replica has, sees nothing of it:
// every command is answered, once, in order. The others find their page again.
func TestThreeReplicas(t *testing.T) {
	const clients, containers = 100, 6
	redis := startRedis(t, "")
	fleet := newV1Fleet(redis.client)
	ports := []int{freePort(t), freePort(t), freePort(t)}
	balancer := startBalancer(t, ports)
	s := newService(t, serviceOptions{redis: redis, run: fleet.run, env: map[string]string{
		"REGISTER_URL": "http://" + balancer.listener.Addr().String(), "POOL_PROTOCOL": "v1", "PLACEMENT": "spread",
		"MIN_CONTAINERS": strconv.Itoa(containers), "MAX_CONTAINERS": strconv.Itoa(containers), "MAX_SESSIONS_PER_CONTAINER": "20",
		"WARM_SLOTS": "0", "DISCONNECT_GRACE": "1m", "LOG_LEVEL": "info",
	}})
	replicas := make([]*replica, len(ports))
	for i, port := range ports {
		replicas[i] = startReplica(t, s, "r"+strconv.Itoa(i), port)
	}
	for _, r := range replicas {
		r.awaitReady(t)
	}
	s.url, s.alice.url = replicas[0].url(), replicas[0].url()
	eventually(t, 60*time.Second, "the containers are ready", func() error {
		ready := 0
		for _, c := range s.containers(t) {
			if c.Phase == "ready" {
				ready++
			}
		}
		if ready != containers {
			return fmt.Errorf("%d are", ready)
		}
		return nil
	})

	all := make(crowd, clients)
	var group sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range all {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			created := s.alice.create(t, map[string]any{"timeout": 3600})
			all[i] = &driver{session: created.ID, token: created.Token, ports: ports}
		})
	}
	group.Wait()
	ctx, stop := context.WithCancel(t.Context())
	var driving sync.WaitGroup
	defer func() { stop(); driving.Wait() }()
	for i, d := range all {
		driving.Go(func() { d.run(ctx, i%len(ports)) })
	}
	all.goOn(t, make([]driverState, clients), 20, nobody)
	for i, d := range all {
		if s := d.state(); s.at != i%len(ports) {
			t.Errorf("session %s was not let in at replica %d, but at %d: any replica serves any session", d.session, i%len(ports), s.at)
		}
		d.container = redis.client.HGet(t.Context(), "wallcrawler:{default}:session:"+d.session, "container").Val()
	}

	t.Log("Redis restarts")
	before := all.states()
	redis.kill(t)
	all.goOn(t, before, 20, nobody)
	redis.start(t)
	for _, r := range replicas {
		r.awaitReady(t)
	}
	all.goOn(t, all.states(), 20, nobody)

	leader := leaderOf(t, redis)
	if leader < 0 {
		t.Fatal("nobody leads")
	}
	t.Logf("the leader, %s, is killed", replicas[leader].name)
	before = all.states()
	hit := touching(t, redis, all, replicas[leader].name, leader)
	replicas[leader].signal(t, syscall.SIGKILL)
	all.goOn(t, before, 50, hit)
	replicas[leader] = startReplica(t, s, replicas[leader].name+"b", ports[leader])
	replicas[leader].awaitReady(t)

	next := (leader + 1) % len(replicas)
	t.Logf("%s is stopped", replicas[next].name)
	before = all.states()
	hit = touching(t, redis, all, replicas[next].name, next)
	replicas[next].signal(t, syscall.SIGTERM)
	if code := replicas[next].awaitExit(t, 60*time.Second); code != 0 {
		t.Errorf("a replica that was stopped ended with status %d", code)
	}
	all.goOn(t, before, 50, hit)

	stop()
	driving.Wait()
	all.faults(t)
	for _, fault := range fleet.faults() {
		t.Error(fault)
	}
	if n := len(fleet.starts); n != containers {
		t.Errorf("%d tasks were started for %d containers", n, containers)
	}
	answers, cuts := 0, 0
	for _, d := range all {
		answers, cuts = answers+d.got, cuts+d.breaks
	}
	t.Logf("%d answers, %d connections cut and found again", answers, cuts)
}

// leaderOf gives the index of the replica that leads.
func leaderOf(t *testing.T, r *redisServer) int {
	t.Helper()
	leader := -1
	eventually(t, 30*time.Second, "somebody leads", func() error {
		value, err := r.client.Get(t.Context(), "wallcrawler:{default}:leader").Result()
		if err != nil {
			return err
		}
		_, name, _ := strings.Cut(value, " ")
		leader, err = strconv.Atoi(strings.TrimPrefix(name, "r"))
		return err
	})
	return leader
}

// touching tells which drivers a replica's end concerns: those that are joined at it, and
// those whose container's link it has.
func touching(t *testing.T, r *redisServer, all crowd, name string, index int) func(int) bool {
	t.Helper()
	touched := make([]bool, len(all))
	n := 0
	for i, d := range all {
		owner := r.client.HGet(t.Context(), "wallcrawler:{default}:container:"+d.container, "owner").Val()
		touched[i] = d.state().at == index || owner == name
		if touched[i] {
			n++
		}
	}
	if n == 0 || n == len(all) {
		t.Fatalf("the end of %s concerns %d of %d clients: that shows nothing", name, n, len(all))
	}
	t.Logf("that concerns %d of %d clients", n, len(all))
	return func(i int) bool { return touched[i] }
}
