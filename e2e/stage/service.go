//go:build linux

package stage

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

// Service is one `wallcrawler serve` with a real Redis, whose containers are fakes.
type Service struct {
	*Process
	Addr          netip.AddrPort
	URL           string
	ContainerPort int
	API           Caller
	Redis         *redis.Client
	Fakes         *Fakes
	Close         func()
}

// Options say how large it is.
type Options struct {
	Containers, Slots int
	Notifications     bool
	Secret            string           // of session tokens; empty: drawn
	Sockets           http.HandlerFunc // serves sessions' sockets in the containers; nil: they have none
	Core              string           // the only one that the service may use; empty: any
	Env               []string         // more of it
	// Run is a container; nil: one of the fakes.
	Run func(ctx context.Context, task ecslocal.TaskEnv) int
}

// StartService starts one and waits until all its containers are ready.
func (g *Stage) StartService(ctx context.Context, o Options) (s *Service, err error) {
	s = &Service{Fakes: NewFakes()}
	s.Fakes.Sockets = o.Sockets
	if o.Secret == "" {
		o.Secret = rand.Text()
	}
	var closers []func()
	s.Close = func() {
		for i := range closers {
			closers[len(closers)-1-i]()
		}
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()

	var ports [3]int
	for i := range ports {
		if ports[i], err = FreePort(); err != nil {
			return nil, err
		}
	}
	store, err := g.Start(Program{Name: "redis-server", Path: "redis-server", Env: []string{"PATH=/usr/bin:/bin"},
		Args: []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(ports[0]), "--dir", g.Tmp, "--save", "", "--appendonly", "no"}})
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() { store.Stop(syscall.SIGTERM) })
	addr := "127.0.0.1:" + strconv.Itoa(ports[0])
	s.Redis = redis.NewClient(&redis.Options{Addr: addr, DialTimeout: time.Second, MaxRetries: -1})
	closers = append(closers, func() { _ = s.Redis.Close() })
	if err := store.Until(ctx, 10*time.Second, "redis answers", func() error { return s.Redis.Ping(ctx).Err() }); err != nil {
		return nil, err
	}

	if o.Run == nil {
		o.Run = s.Fakes.Run
	}
	pid := os.Getpid()
	cloud, err := ecslocal.Start(ecslocal.Config{
		Cluster: "stage", Network: netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(192 + pid%60), byte(pid / 60 % 250), 0}), 24),
		Definitions: map[string]ecslocal.Definition{"browser": {Run: o.Run, Port: ports[2], StopTimeout: 2 * time.Second}},
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
	s.API, s.URL, s.ContainerPort = NewCaller(url, key), url, ports[2]
	s.Addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(ports[1]))
	command, more := []string{g.Binary, "serve"}, []string(nil)
	if o.Core != "" {
		command, more = Pinned(o.Core, command), []string{"GOMAXPROCS=1"}
	}
	s.Process, err = g.Start(Program{Name: "wallcrawler serve", Path: command[0], Args: command[1:], Env: append(append(more,
		"PATH="+os.Getenv("PATH"), "HOME="+g.Tmp, "TMPDIR="+g.Tmp,
		"LISTEN_HOST=127.0.0.1", "PORT="+strconv.Itoa(ports[1]), "REGISTER_URL="+url,
		"REDIS_ENDPOINT="+addr, "REDIS_ENABLE_KEYSPACE_EVENTS="+strconv.FormatBool(o.Notifications),
		"JWT_SECRET="+o.Secret, "API_KEYS=bench:"+key,
		"AWS_ENDPOINT_URL="+cloud.URL(), "ECS_CLUSTER_NAME=stage", "CONTAINER_TASK_DEF=browser", "CONTAINER_SUBNETS=subnet-local",
		"CONTAINER_PORT="+strconv.Itoa(ports[2]), "WARM_SLOTS=0",
		"MIN_CONTAINERS="+strconv.Itoa(o.Containers), "MAX_CONTAINERS="+strconv.Itoa(o.Containers),
		"MAX_SESSIONS_PER_CONTAINER="+strconv.Itoa(o.Slots),
		"DRAIN_UNREADY=1ms", "DRAIN_TIMEOUT=1ms", "LOG_LEVEL=error", "MAX_CONTAINER_LOAD=200",
	), o.Env...)})
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() { s.Stop(syscall.SIGTERM) })
	err = s.Until(ctx, 60*time.Second, "all containers are ready", func() error {
		var all []Container
		if err := s.API.Do(ctx, "GET", "/v1/containers", nil, &all); err != nil {
			return errors.Join(err, s.Fakes.LastError())
		}
		ready := 0
		for _, c := range all {
			if c.Phase == "ready" {
				ready++
			}
		}
		if ready < o.Containers {
			return fmt.Errorf("%d of %d are: %w", ready, o.Containers, errors.Join(ErrNotYet, s.Fakes.LastError()))
		}
		return nil
	})
	return s, err
}

// DocumentLife is the timeout of DocumentOf.
const DocumentLife = time.Hour

// DocumentOf is the document of a session as a Lambda writes it.
func DocumentOf(id, user, status string) string {
	text, err := json.Marshal(map[string]any{
		"sessionId": id, "userId": user, "status": status, "createdAt": time.Now().UTC().Format(time.RFC3339Nano),
		"timeout": DocumentLife.Milliseconds(), "browserSettings": map[string]any{"viewport": map[string]int{"width": 1280, "height": 720}},
	})
	if err != nil {
		panic(err) // it holds nothing that JSON cannot
	}
	return string(text)
}

// Write writes a document as the Lambdas do: a plain SETEX.
func (s *Service) Write(ctx context.Context, id, user, status string) error {
	life := DocumentLife
	if status == "terminated" {
		life = 5 * time.Minute
	}
	return s.Redis.Do(ctx, "SETEX", "session:"+id, int(life.Seconds()), DocumentOf(id, user, status)).Err()
}

// Commands are Redis's counts of calls by command. Those that a script makes count, too.
func (s *Service) Commands(ctx context.Context) (map[string]int64, error) {
	text, err := s.Redis.Info(ctx, "commandstats").Result()
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

// UsedMemory is Redis's.
func (s *Service) UsedMemory(ctx context.Context) (int64, error) {
	text, err := s.Redis.Info(ctx, "memory").Result()
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

// Await waits for a time from a container.
func (s *Service) Await(ctx context.Context, from <-chan time.Time, within time.Duration) (time.Time, error) {
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case at := <-from:
		return at, nil
	case <-limit.C:
		return time.Time{}, fmt.Errorf("no order within %s: %w: serve printed: %s", within, ErrNotYet, s.Output.Text())
	case <-s.Done:
		return time.Time{}, fmt.Errorf("serve has ended: %s", s.Output.Text())
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// Pinned puts a command on one core. The generator and all else has the first one, proxies the second.
func Pinned(core string, args []string) []string {
	return append([]string{"taskset", "-c", core}, args...)
}
