package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
)

// wipe loses everything that Redis holds.
func (r *redisServer) wipe(t *testing.T) {
	t.Helper()
	if err := r.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

// counted runs tasks and counts how often each was started and has ended.
type counted struct {
	run func(ctx context.Context, env ecslocal.TaskEnv) int

	mu     sync.Mutex // guards the following
	starts map[string]int
	ends   int
}

func (c *counted) Run(ctx context.Context, env ecslocal.TaskEnv) int {
	c.mu.Lock()
	c.starts[env.Env["CONTAINER_ID"]]++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.ends++
		c.mu.Unlock()
	}()
	return c.run(ctx, env)
}

// want demands that n tasks were started, each once, and none has ended.
func (c *counted) want(t *testing.T, n int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, times := range c.starts {
		if times != 1 {
			t.Errorf("task %s was started %d times", id, times)
		}
	}
	if len(c.starts) != n || c.ends > 0 {
		t.Errorf("%d tasks were started and %d ended, where %d should run", len(c.starts), c.ends, n)
	}
}

// creates makes a session as soon as the service takes any.
func (s *service) creates(t *testing.T) session {
	t.Helper()
	var made session
	eventually(t, 60*time.Second, "sessions are created again", func() error {
		a := s.alice.do(t, http.MethodPost, "/v1/sessions", map[string]any{"keepAlive": true})
		if a.status != http.StatusOK {
			return errors.New(string(a.body))
		}
		return json.Unmarshal(a.body, &made)
	})
	return made
}

// TestRedisWiped loses everything under browsers of our own agents.
func TestRedisWiped(t *testing.T) {
	s := startService(t, serviceOptions{env: map[string]string{"MAX_CONTAINERS": "2"}})
	created := s.alice.create(t, map[string]any{"keepAlive": true})
	client := dialCDP(t, created.ConnectURL)
	client.alive(t)
	before := s.alice.get(t, created.ID)
	tasks := len(s.containers(t))
	for range 2 {
		s.redis.wipe(t)
		client.alive(t)
		eventually(t, 60*time.Second, "the session's document is written again", func() error {
			client.alive(t)
			return s.redis.client.Get(t.Context(), "session:"+created.ID).Err()
		})
		fresh := s.creates(t)
		dialCDP(t, fresh.ConnectURL).alive(t)
		client.alive(t)
		s.awaitReady(t)
		now := s.alice.get(t, created.ID)
		if now.Phase != "ready" || now.ContainerID != before.ContainerID {
			t.Errorf("the session is %s in %s, it was in %s", now.Phase, now.ContainerID, before.ContainerID)
		}
		if again := dialCDP(t, created.ConnectURL); again.browserPid(t) != client.browserPid(t) {
			t.Error("who comes back gets another browser")
		}
		var all []session
		s.alice.want(t, http.MethodGet, "/v1/sessions", nil, &all)
		listed := map[string]bool{}
		for _, x := range all {
			listed[x.ID] = true
		}
		if !listed[created.ID] || !listed[fresh.ID] {
			t.Errorf("the list lacks a session: %+v", all)
		}
	}
	for _, c := range s.containers(t) {
		if c.Phase != "ready" {
			t.Errorf("container %s is %s", c.ID, c.Phase)
		}
	}
	if n := len(s.containers(t)); n != tasks {
		t.Errorf("there are %d containers, there were %d", n, tasks)
	}
	s.alice.release(t, created.ID)
	client.wantClose(t, 20*time.Second, 1000, "released")
}

// TestRedisWipedUnderV1Containers loses everything under three replicas and containers that
// register once in their lives, while programs drive their sessions.
func TestRedisWipedUnderV1Containers(t *testing.T) {
	const clients, containers = 30, 3
	redis := startRedis(t, "")
	fleet := newV1Fleet(redis.client)
	tasks := &counted{run: fleet.run, starts: map[string]int{}}
	ports := []int{freePort(t), freePort(t), freePort(t)}
	balancer := startBalancer(t, ports)
	s := newService(t, serviceOptions{redis: redis, run: tasks.Run, env: map[string]string{
		"REGISTER_URL": "http://" + balancer.listener.Addr().String(), "POOL_PROTOCOL": "v1", "PLACEMENT": "spread",
		"MIN_CONTAINERS": strconv.Itoa(containers), "MAX_CONTAINERS": strconv.Itoa(containers + 1), "MAX_SESSIONS_PER_CONTAINER": "20",
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
	for i := range all {
		created := s.alice.create(t, map[string]any{"timeout": 3600})
		all[i] = &driver{session: created.ID, token: created.Token, ports: ports}
	}
	ctx, stop := context.WithCancel(t.Context())
	var driving sync.WaitGroup
	defer func() { stop(); driving.Wait() }()
	for i, d := range all {
		driving.Go(func() { d.run(ctx, i%len(ports)) })
	}
	all.goOn(t, make([]driverState, clients), 20, nobody)

	before := all.states()
	redis.wipe(t)
	all.goOn(t, before, 20, nobody)
	fresh := s.creates(t)
	for _, r := range replicas {
		r.awaitReady(t)
	}
	all.goOn(t, before, 50, nobody)
	for _, d := range all {
		if now := s.alice.get(t, d.session); now.Phase != "ready" {
			t.Errorf("session %s is %s: %s", d.session, now.Phase, now.EndReason)
		}
	}
	eventually(t, 30*time.Second, "the new session is ready", func() error {
		if now := s.alice.get(t, fresh.ID); now.Phase != "ready" {
			return errors.New(now.Phase)
		}
		return nil
	})
	stop()
	driving.Wait()
	all.faults(t)
	for _, fault := range fleet.faults() {
		t.Error(fault)
	}
	tasks.want(t, containers)
}
