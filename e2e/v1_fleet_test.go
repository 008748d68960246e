package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
	"github.com/wallcrawler/wallcrawler/e2e/v1container"
)

// v1Fleet runs the tasks of an ECS endpoint as containers of the original dialect. As the
// original's do, they note their sessions in Redis, register once, and exit if that is refused.
type v1Fleet struct {
	redis     *redis.Client
	configure func(*v1container.Config) // nil: as they come

	mu         sync.Mutex // guards the following
	containers map[string]*v1container.Container
	starts     map[string]int               // tasks started, by the id that they were given
	envs       map[string]map[string]string // what the tasks were told
	troubles   []string
}

func newV1Fleet(client *redis.Client) *v1Fleet {
	return &v1Fleet{
		redis: client, containers: map[string]*v1container.Container{},
		starts: map[string]int{}, envs: map[string]map[string]string{},
	}
}

// run is a task.
func (f *v1Fleet) run(ctx context.Context, task ecslocal.TaskEnv) int {
	id := task.Env["CONTAINER_ID"]
	f.mu.Lock()
	f.starts[id]++
	f.envs[id] = task.Env
	f.mu.Unlock()
	sessions, _ := strconv.Atoi(task.Env["MAX_SESSIONS"])
	var c *v1container.Container
	cfg := v1container.Config{
		ID: id, MaxSessions: sessions, Listen: net.JoinHostPort(task.Addr, strconv.Itoa(task.Port)),
		Note: func(session, value string) {
			if err := f.redis.HSet(context.WithoutCancel(ctx), "container:"+id+":sessions", session, value).Err(); err != nil {
				f.trouble("container %s could not note session %s: %v", id, session, err)
			}
		},
		Erase: func(session string) {
			_ = f.redis.HDel(context.WithoutCancel(ctx), "container:"+id+":sessions", session).Err() // what is left behind is the service's to remove
		},
		Answer: func(session string, command json.RawMessage) json.RawMessage {
			return fmt.Appendf(nil, `{"page":"%s/%d","echo":%s}`, id, c.Page(session), command)
		},
	}
	if f.configure != nil {
		f.configure(&cfg)
	}
	c, err := v1container.Start(cfg)
	if err != nil {
		f.trouble("container %s did not start: %v", id, err)
		return 1
	}
	defer c.Kill()
	f.mu.Lock()
	f.containers[id] = c
	f.mu.Unlock()
	if err := c.Register(ctx, task.Env["PROXY_ENDPOINT"], task.Env["CONTAINER_TOKEN"], task.Addr); err != nil {
		f.trouble("container %s: %v", id, err)
		return 1
	}
	select {
	case <-ctx.Done():
	case <-task.Killed:
	case <-c.Ended():
		return 1
	}
	return 0
}

func (f *v1Fleet) trouble(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.troubles = append(f.troubles, fmt.Sprintf(format, args...))
}

// faults lists what no service may cause: a task that was started twice, a second link to a
// living container, a container that was turned away.
func (f *v1Fleet) faults() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	faults := append([]string(nil), f.troubles...)
	for id, n := range f.starts {
		if n != 1 {
			faults = append(faults, fmt.Sprintf("the task of %s was started %d times", id, n))
		}
	}
	for id, c := range f.containers {
		if _, atOnce := c.Opened(); atOnce > 1 {
			faults = append(faults, fmt.Sprintf("container %s had %d links at one time", id, atOnce))
		}
	}
	return faults
}
