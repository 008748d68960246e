//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// The size of the world.
const (
	replicaCount  = 3
	minContainers = 4
	maxContainers = 12
	slots         = 8
	clientCount   = 24
	visitors      = 2
	startDeadline = 20 * time.Second
	hungAfter     = 45 * time.Second // beyond every fault that passes
)

const apiKey = "chaos-key-of-one-run"

// world is a whole deployment on this machine.
type world struct {
	stage    *stage.Stage
	redis    redis.UniversalClient // past the proxy
	nodes    []*node
	link     *proxy // between the replicas and a single Redis; nil: a cluster
	balancer *proxy
	cloud    *ecslocal.Server
	mute     string // while this file is there, tasks start that never register
	env      []string

	mu       sync.Mutex // guards the fields below
	replicas []*replica
	last     error // what went wrong last, for people

	starts  atomic.Int64
	turn    atomic.Int64
	crowd   crowd
	closers []func()
}

// replica is one process of the service.
type replica struct {
	*stage.Process
	name, host string
	stopped    bool // by us
}

func (w *world) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = err
}

func (w *world) lastError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// close ends everything, in the opposite order.
func (w *world) close() {
	for i := range w.closers {
		w.closers[len(w.closers)-1-i]()
	}
	w.closers = nil
}

func (w *world) onClose(f func()) { w.closers = append(w.closers, f) }

// build starts it all and waits until every client has its page.
func build(ctx context.Context, g *stage.Stage, s setting) (w *world, err error) {
	w = &world{stage: g, mute: filepath.Join(g.Tmp, muteFile)}
	defer func() {
		if err != nil {
			w.close()
			w = nil
		}
	}()
	endpoint, err := w.startRedis(ctx, s.clustered)
	if err != nil {
		return w, err
	}
	hosts := make([]string, replicaCount)
	for i := range hosts {
		port, err := stage.FreePort()
		if err != nil {
			return w, err
		}
		hosts[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	if w.balancer, err = startProxy(hosts...); err != nil {
		return w, err
	}
	w.onClose(w.balancer.close)
	if err := w.startCloud(ctx, s); err != nil {
		return w, err
	}
	w.env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + g.Tmp, "TMPDIR=" + g.Tmp,
		"LISTEN_HOST=127.0.0.1", "REGISTER_URL=http://" + w.balancer.addr(),
		"JWT_SECRET=a-secret-of-one-run-of-chaos", "API_KEYS=chaos:" + apiKey,
		"AWS_ENDPOINT_URL=" + w.cloud.URL(), "ECS_CLUSTER_NAME=chaos", "CONTAINER_TASK_DEF=browser", "CONTAINER_SUBNETS=subnet-local",
		"CONTAINER_PORT=" + strconv.Itoa(containerPort), "WARM_SLOTS=0",
		"MIN_CONTAINERS=" + strconv.Itoa(minContainers), "MAX_CONTAINERS=" + strconv.Itoa(maxContainers),
		"MAX_SESSIONS_PER_CONTAINER=" + strconv.Itoa(slots), "SCALE_DOWN_HOLD=3s", "START_DEADLINE=" + startDeadline.String(), "HUNG_AFTER=" + hungAfter.String(),
		"FIRST_CONNECT_TIMEOUT=20s", "DISCONNECT_GRACE=5s", "LOST_GRACE=20s", "DRAIN_UNREADY=1s", "MAX_CONTAINER_LOAD=200", "DRAIN_TIMEOUT=2s", "LOG_LEVEL=info",
	}, endpoint...)
	w.onClose(func() {
		for _, r := range w.all() {
			_ = r.signal(syscall.SIGCONT)
			r.Stop(syscall.SIGTERM)
		}
	})
	for i, host := range hosts {
		if err := w.startReplica(i, host); err != nil {
			return w, err
		}
	}
	if err := w.until(ctx, 60*time.Second, "all is quiet at the start", func() error { return w.compare(ctx, minContainers) }); err != nil {
		return w, err
	}
	return w, w.startCrowd(ctx, hosts)
}

// containerPort is where agents listen, each on an address of its own.
const containerPort = 18080

func (w *world) startCloud(ctx context.Context, s setting) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pid := os.Getpid()
	network := netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(130 + pid%60), byte(pid / 60 % 250), 0}), 24)
	w.cloud, err = ecslocal.Start(ecslocal.Config{
		Cluster: "chaos", Network: network,
		Definitions: map[string]ecslocal.Definition{"browser": {
			Command: []string{self, agentFlag + w.stage.Binary + "," + w.mute}, Port: containerPort, StopTimeout: 3 * time.Second,
			Env: []string{"PORT=" + strconv.Itoa(containerPort), "BROWSER_PATH=" + self, "BROWSER_ARGS=" + browserFlag + s.chromium,
				"WARM_BROWSERS=0", "EXIT_ON_STDIN_EOF=true", "LOG_LEVEL=warn", "AGENT_DRAIN_TIMEOUT=1s"},
		}},
	})
	if err != nil {
		return err
	}
	w.onClose(func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		_ = w.cloud.Close(bounded)
	})
	return nil
}

// startReplica starts one, in place of an earlier one of that number.
func (w *world) startReplica(i int, host string) error {
	name := fmt.Sprintf("r%d-%d", i, w.starts.Add(1))
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		return err
	}
	p, err := w.stage.Start(stage.Program{Name: name, Path: w.stage.Binary, Args: []string{"serve"},
		Env: append([]string{"PORT=" + port, "REPLICA_ID=" + name, "REPLICA_ADDR=" + host}, w.env...)})
	if err != nil {
		return err
	}
	r := &replica{Process: p, name: name, host: host}
	w.mu.Lock()
	defer w.mu.Unlock()
	if i < len(w.replicas) {
		w.replicas[i] = r
	} else {
		w.replicas = append(w.replicas, r)
	}
	return nil
}

// revive starts every replica anew that has ended.
func (w *world) revive(ctx context.Context) error {
	for i, r := range w.all() {
		select {
		case <-r.Done:
		default:
			if !r.stopped {
				continue
			}
			<-r.Done
		}
		if err := w.startReplica(i, r.host); err != nil {
			return err
		}
	}
	return w.until(ctx, 60*time.Second, "all replicas are ready", func() error {
		for _, r := range w.all() {
			var body string
			if err := stage.NewCaller("http://"+r.host, "").Do(ctx, "GET", "/ready", nil, &body); err != nil {
				return fmt.Errorf("replica %s: %w", r.name, err)
			}
		}
		return nil
	})
}

func (w *world) all() []*replica {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*replica(nil), w.replicas...)
}

func (r *replica) signal(s syscall.Signal) error { return syscall.Kill(r.Pid(), s) }

// alive are the replicas that run.
func (w *world) alive() []*replica {
	var alive []*replica
	for _, r := range w.all() {
		select {
		case <-r.Done:
		default:
			if !r.stopped {
				alive = append(alive, r)
			}
		}
	}
	return alive
}

func (w *world) anyHost() string {
	alive := w.alive()
	if len(alive) == 0 {
		return w.all()[0].host
	}
	return alive[int(w.turn.Add(1))%len(alive)].host
}

func (w *world) anyAPI() stage.Caller { return stage.NewCaller("http://"+w.anyHost(), apiKey) }

// leader is the replica that leads, according to Redis.
func (w *world) leader(ctx context.Context) (*replica, error) {
	value, err := w.redis.Get(ctx, "wallcrawler:{default}:leader").Result()
	if err != nil {
		return nil, fmt.Errorf("asking who leads: %w", err)
	}
	_, name, _ := strings.Cut(value, " ")
	for _, r := range w.alive() {
		if r.name == name {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%q leads, which does not run", value)
}

// awaitLeader waits until one leads that runs.
func (w *world) awaitLeader(ctx context.Context) (r *replica, err error) {
	err = w.until(ctx, 30*time.Second, "somebody leads", func() error {
		r, err = w.leader(ctx)
		return err
	})
	return r, err
}

// until asks again and again until the answer is nil.
func (w *world) until(ctx context.Context, within time.Duration, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if stage.Pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("waiting %s until %s: %w", within, what, err)
		}
	}
}

// want changes how many containers there are to be.
func (w *world) want(ctx context.Context, n int) error {
	return w.redis.Set(ctx, "pool:desired", fmt.Sprintf(`{"min":%d}`, n), 0).Err()
}

// startCrowd creates the sessions and lets the traffic begin.
func (w *world) startCrowd(ctx context.Context, hosts []string) error {
	for i := range clientCount {
		api := w.anyAPI()
		var s stage.Session
		if err := api.Do(ctx, "POST", "/v1/sessions", map[string]any{"timeout": 3600, "keepAlive": true}, &s); err != nil {
			return fmt.Errorf("creating session %d: %w", i, err)
		}
		query, err := queryOf(s.ConnectURL)
		if err != nil {
			return err
		}
		w.crowd.clients = append(w.crowd.clients, &client{session: s.ID, query: query, hosts: hosts, at: i})
	}
	ctx, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	for _, c := range w.crowd.clients {
		work.Go(func() { c.run(ctx) })
	}
	for range visitors {
		work.Go(func() { w.crowd.visit(ctx, w) })
	}
	w.onClose(func() { stop(); work.Wait() })
	err := w.until(ctx, 90*time.Second, "every client has its page", func() error {
		for _, s := range w.crowd.snapshot().clients {
			if s.answers < 3 {
				return errors.New("some have not")
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, w.lastError())
	}
	for _, c := range w.crowd.clients {
		c.container = w.redis.HGet(ctx, "wallcrawler:{default}:session:"+c.session, "container").Val()
	}
	return nil
}

// silence lets tasks start that never register, or no longer.
func (w *world) silence(on bool) error {
	if on {
		return os.WriteFile(w.mute, nil, 0o600)
	}
	return os.Remove(w.mute)
}
