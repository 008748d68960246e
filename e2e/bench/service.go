//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
)

// service is one `wallcrawler serve` with a real Redis, whose containers are fakes.
type service struct {
	*process
	addr  netip.AddrPort
	api   caller
	redis *redis.Client
	fakes *fakes
	close func()
}

// serviceOptions say how large it is.
type serviceOptions struct {
	containers, slots int
	notifications     bool
	secret            string           // of session tokens; empty: drawn
	sockets           http.HandlerFunc // serves sessions' sockets in the containers; nil: they have none
	core              string           // the only one that the service may use; empty: any
	env               []string         // more of it
	// run is a container; nil: one of the fakes.
	run func(ctx context.Context, task ecslocal.TaskEnv) int
}

// startService starts one and waits until all its containers are ready.
func (b *bench) startService(ctx context.Context, o serviceOptions) (s *service, err error) {
	s = &service{fakes: newFakes()}
	s.fakes.sockets = o.sockets
	if o.secret == "" {
		o.secret = rand.Text()
	}
	var closers []func()
	s.close = func() {
		for i := range closers {
			closers[len(closers)-1-i]()
		}
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()

	var ports [3]int
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	store, err := b.start(program{name: "redis-server", path: "redis-server", env: []string{"PATH=/usr/bin:/bin"},
		args: []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(ports[0]), "--dir", b.tmp, "--save", "", "--appendonly", "no"}})
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() { store.stop(syscall.SIGTERM) })
	addr := "127.0.0.1:" + strconv.Itoa(ports[0])
	s.redis = redis.NewClient(&redis.Options{Addr: addr, DialTimeout: time.Second, MaxRetries: -1})
	closers = append(closers, func() { _ = s.redis.Close() })
	if err := store.until(ctx, 10*time.Second, "redis answers", func() error { return s.redis.Ping(ctx).Err() }); err != nil {
		return nil, err
	}

	if o.run == nil {
		o.run = s.fakes.run
	}
	pid := os.Getpid()
	cloud, err := ecslocal.Start(ecslocal.Config{
		Cluster: "bench", Network: netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(192 + pid%60), byte(pid / 60 % 250), 0}), 24),
		Definitions: map[string]ecslocal.Definition{"browser": {Run: o.run, Port: ports[2], StopTimeout: 2 * time.Second}},
	})
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = cloud.Close(bounded)
	})

	url, key := "http://127.0.0.1:"+strconv.Itoa(ports[1]), "bench-key-of-one-run"
	s.api = newCaller(url, key)
	s.addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(ports[1]))
	command, more := []string{b.binary, "serve"}, []string(nil)
	if o.core != "" {
		command, more = pinned(o.core, command), []string{"GOMAXPROCS=1"}
	}
	s.process, err = b.start(program{name: "wallcrawler serve", path: command[0], args: command[1:], env: append(append(more,
		"PATH="+os.Getenv("PATH"), "HOME="+b.tmp, "TMPDIR="+b.tmp,
		"LISTEN_HOST=127.0.0.1", "PORT="+strconv.Itoa(ports[1]), "REGISTER_URL="+url,
		"REDIS_ENDPOINT="+addr, "REDIS_ENABLE_KEYSPACE_EVENTS="+strconv.FormatBool(o.notifications),
		"JWT_SECRET="+o.secret, "API_KEYS=bench:"+key,
		"AWS_ENDPOINT_URL="+cloud.URL(), "ECS_CLUSTER_NAME=bench", "CONTAINER_TASK_DEF=browser", "CONTAINER_SUBNETS=subnet-local",
		"CONTAINER_PORT="+strconv.Itoa(ports[2]), "WARM_SLOTS=0",
		"MIN_CONTAINERS="+strconv.Itoa(o.containers), "MAX_CONTAINERS="+strconv.Itoa(o.containers),
		"MAX_SESSIONS_PER_CONTAINER="+strconv.Itoa(o.slots),
		"DRAIN_UNREADY=1ms", "DRAIN_TIMEOUT=1ms", "LOG_LEVEL=error",
	), o.env...)})
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() { s.stop(syscall.SIGTERM) })
	err = s.until(ctx, 60*time.Second, "all containers are ready", func() error {
		var all []container
		if err := s.api.do(ctx, "GET", "/v1/containers", nil, &all); err != nil {
			return errors.Join(err, s.fakes.lastError())
		}
		ready := 0
		for _, c := range all {
			if c.Phase == "ready" {
				ready++
			}
		}
		if ready < o.containers {
			return fmt.Errorf("%d of %d are: %w", ready, o.containers, errors.Join(errNotYet, s.fakes.lastError()))
		}
		return nil
	})
	return s, err
}

// The document as a Lambda writes it.
const documentLife = time.Hour

func documentOf(id, user, status string) string {
	text, err := json.Marshal(map[string]any{
		"sessionId": id, "userId": user, "status": status, "createdAt": time.Now().UTC().Format(time.RFC3339Nano),
		"timeout": documentLife.Milliseconds(), "browserSettings": map[string]any{"viewport": map[string]int{"width": 1280, "height": 720}},
	})
	if err != nil {
		panic(err) // it holds nothing that JSON cannot
	}
	return string(text)
}

// write writes a document as the Lambdas do: a plain SETEX.
func (s *service) write(ctx context.Context, id, user, status string) error {
	life := documentLife
	if status == "terminated" {
		life = 5 * time.Minute
	}
	return s.redis.Do(ctx, "SETEX", "session:"+id, int(life.Seconds()), documentOf(id, user, status)).Err()
}

// commands are Redis's counts of calls by command. Those that a script makes count, too.
func (s *service) commands(ctx context.Context) (map[string]int64, error) {
	text, err := s.redis.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		number, _, _ := strings.Cut(rest, ",")
		if n, err := strconv.ParseInt(number, 10, 64); ok && err == nil {
			counts[name] = n
		}
	}
	return counts, nil
}

// usedMemory is Redis's.
func (s *service) usedMemory(ctx context.Context) (int64, error) {
	text, err := s.redis.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if number, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
			return strconv.ParseInt(number, 10, 64)
		}
	}
	return 0, errors.New("redis does not tell its memory")
}

// await waits for a time from a container.
func (s *service) await(ctx context.Context, from <-chan time.Time, within time.Duration) (time.Time, error) {
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case at := <-from:
		return at, nil
	case <-limit.C:
		return time.Time{}, fmt.Errorf("no order within %s: %w: serve printed: %s", within, errNotYet, s.output.text())
	case <-s.done:
		return time.Time{}, fmt.Errorf("serve has ended: %s", s.output.text())
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}
