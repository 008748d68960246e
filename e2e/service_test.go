package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
)

// service is one `wallcrawler serve` with a Redis and an ECS endpoint of its own, whose tasks
// are `wallcrawler agent`.
type service struct {
	process    *process
	url        string
	port       int
	alice, bob caller // two users
	cloud      *ecslocal.Server
	network    netip.Prefix // of its containers
	redis      *redisServer
	tasks      *buffer // what the agents print
	env        map[string]string
	secrets    map[string]string // what must never show
}

// serviceOptions say what differs from the usual.
type serviceOptions struct {
	env      map[string]string                                   // over the usual settings of serve
	agent    []string                                            // what tasks run, instead of the agent
	run      func(ctx context.Context, env ecslocal.TaskEnv) int // the same, within this process
	agentEnv []string                                            // after the usual environment of the agent
	redis    *redisServer                                        // nil: one of its own, running
}

// networks counts the services of this run: each gives its tasks addresses of its own.
var networks atomic.Int32

// network is a part of loopback that no other service of this run has, and most likely none
// of a run beside this one.
func network() netip.Prefix {
	n := networks.Add(1)
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(64 + os.Getpid()%128), byte(n), 0}), 24)
}

// newService prepares everything but the service's process.
func newService(t *testing.T, o serviceOptions) *service {
	t.Helper()
	s := &service{port: freePort(t), network: network(), redis: o.redis, tasks: &buffer{}, secrets: map[string]string{}}
	for _, name := range []string{"JWT_SECRET", "key of alice", "key of bob"} {
		s.secrets[name] = "canary" + rand.Text()
	}
	if s.redis == nil {
		s.redis = startRedis(t, "canary"+rand.Text())
	}
	if s.redis.password != "" {
		s.secrets["REDIS_PASSWORD"] = s.redis.password
	}
	s.url = "http://127.0.0.1:" + strconv.Itoa(s.port)
	s.alice = caller{s.url, s.secrets["key of alice"]}
	s.bob = caller{s.url, s.secrets["key of bob"]}

	containerPort := freePort(t)
	command := o.agent
	if command == nil && o.run == nil {
		command = []string{suite.binary, "agent"}
	}
	cloud, err := ecslocal.Start(ecslocal.Config{
		Cluster: "e2e", Network: s.network,
		Definitions: map[string]ecslocal.Definition{"browser": {
			Command: command, Run: o.run,
			Env: append([]string{"PORT=" + strconv.Itoa(containerPort), "WARM_BROWSERS=1", "BROWSER_PATH=" + suite.browser,
				"AGENT_DRAIN_TIMEOUT=1ms", "EXIT_ON_STDIN_EOF=true", "LOG_LEVEL=debug"}, o.agentEnv...),
			Port: containerPort, StopTimeout: 5 * time.Second, Stdout: s.tasks, Stderr: s.tasks,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.cloud = cloud
	t.Cleanup(func() {
		if err := cloud.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if s.tasks.contains("DATA RACE") {
			t.Error("an agent has a data race")
		}
		if t.Failed() {
			t.Logf("the tasks printed:\n%s", s.tasks.tail())
		}
	})

	s.env = map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": t.TempDir(), "TMPDIR": t.TempDir(),
		"LISTEN_HOST": "127.0.0.1", "PORT": strconv.Itoa(s.port), "REGISTER_URL": s.url,
		"REDIS_ENDPOINT": s.redis.addr, "REDIS_PASSWORD": s.redis.password, "REDIS_ENABLE_KEYSPACE_EVENTS": "true",
		"JWT_SECRET": s.secrets["JWT_SECRET"], "API_KEYS": "alice:" + s.alice.key + ",bob:" + s.bob.key,
		"AWS_ENDPOINT_URL": cloud.URL(), "ECS_CLUSTER_NAME": "e2e", "CONTAINER_TASK_DEF": "browser",
		"CONTAINER_PORT": strconv.Itoa(containerPort), "CONTAINER_SUBNETS": "subnet-local",
		"MIN_CONTAINERS": "1", "MAX_CONTAINERS": "3", "MAX_SESSIONS_PER_CONTAINER": "4",
		// They share this machine with the compilers of other tests: when it is busy, none of them is better.
		"MAX_CONTAINER_LOAD": "200",
		"START_DEADLINE":     "30s", "DISCONNECT_GRACE": "3s", "CONNECT_HOLD": "15s",
		"DRAIN_UNREADY": "200ms", "DRAIN_TIMEOUT": "1s", "LOG_LEVEL": "debug",
	}
	maps.Copy(s.env, o.env)
	return s
}

// start starts the service's process. Its end is waited for before its tasks and its Redis go.
func (s *service) start(t *testing.T) {
	t.Helper()
	s.process = start(t, program{name: "wallcrawler serve", path: suite.binary, args: []string{"serve"}, env: environ(s.env)})
	t.Cleanup(func() {
		defer func() {
			s.wantNone(t, "what serve prints", s.process.stdout.String()+s.process.stderr.String())
			s.wantNone(t, "what the agents print", s.tasks.String())
		}()
		if s.process.ended() {
			return
		}
		s.process.signal(t, syscall.SIGTERM)
		if code := s.process.awaitExit(t, 60*time.Second); code != 0 {
			t.Errorf("serve has ended with status %d", code)
		}
	})
}

// awaitReady waits until the service takes work.
func (s *service) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, 20*time.Second, "the service is ready", func() error {
		if s.process.ended() {
			t.Fatal("the service has ended")
		}
		a, err := try(t, http.MethodGet, s.url+"/ready", nil)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("status %d: %s", a.status, a.body)
		}
		return err
	})
}

// awaitContainer waits until a container takes sessions.
func (s *service) awaitContainer(t *testing.T) container {
	t.Helper()
	var found container
	eventually(t, 40*time.Second, "a container is ready", func() error {
		for _, c := range s.containers(t) {
			if c.Phase == "ready" {
				found = c
				return nil
			}
		}
		return fmt.Errorf("there are %+v", s.containers(t))
	})
	return found
}

// startService starts a service and waits for its first container.
func startService(t *testing.T, o serviceOptions) *service {
	t.Helper()
	s := newService(t, o)
	s.start(t)
	s.awaitReady(t)
	s.awaitContainer(t)
	return s
}

// container is what operators see of one.
type container struct {
	ID, Phase, TaskARN, Addr, BootID string
	Used, Warm, MaxSessions          int
}

func (s *service) containers(t *testing.T) []container {
	t.Helper()
	var all []container
	s.alice.want(t, http.MethodGet, "/v1/containers", nil, &all)
	return all
}

// containerOf is the one that has the session.
func (s *service) containerOf(t *testing.T, session string) container {
	t.Helper()
	id := s.alice.get(t, session).ContainerID
	for _, c := range s.containers(t) {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("session %s is in no container", session)
	return container{}
}

// logged waits until the service has logged the text.
func (s *service) logged(t *testing.T, within time.Duration, text string) {
	t.Helper()
	eventually(t, within, "the log says "+strconv.Quote(text), func() error {
		if !s.process.stderr.contains(text) {
			return fmt.Errorf("it has %d lines", strings.Count(s.process.stderr.String(), "\n"))
		}
		return nil
	})
}
