package ecs_test

import (
	"context"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/wallcrawler/wallcrawler/controller/ecs"
	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	family  = "browser"
	patient = 20 * time.Second // how long a test waits for what must happen
)

// cluster starts an endpoint whose tasks need no process.
func cluster(t *testing.T) *ecslocal.Server {
	t.Helper()
	return clusterOf(t, ecslocal.Definition{Run: func(ctx context.Context, _ ecslocal.TaskEnv) int {
		<-ctx.Done()
		return 0
	}})
}

func clusterOf(t *testing.T, d ecslocal.Definition) *ecslocal.Server {
	t.Helper()
	s, err := ecslocal.Start(ecslocal.Config{Definitions: map[string]ecslocal.Definition{family: d}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client reaches the endpoint as the service would, with one attempt unless said otherwise.
func client(t *testing.T, s *ecslocal.Server, change ...func(*ecs.ClientOptions)) *sdk.Client {
	t.Helper()
	o := ecs.ClientOptions{Endpoint: s.URL(), MaxAttempts: 1}
	for _, c := range change {
		c(&o)
	}
	c, err := ecs.NewClient(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func config(c ecs.Client) ecs.Config {
	return ecs.Config{
		Client:         c,
		Cluster:        "default",
		Deployment:     "test",
		TaskDefinition: family,
		Subnets:        []string{"subnet-1"},
		RegisterURL:    "http://127.0.0.1:1/internal/register",
		Token:          func(launch string) string { return "token-of-" + launch },
	}
}

// fleet is a fleet of that configuration, after the changes.
func fleet(c ecs.Client, change ...func(*ecs.Config)) *ecs.Fleet {
	cfg := config(c)
	for _, f := range change {
		f(&cfg)
	}
	return ecs.New(cfg)
}

// launch makes a launch as the controller would store it.
func launch(t *testing.T, f *ecs.Fleet, id string) *state.Launch {
	t.Helper()
	input, port, err := f.Prepare(id, 4)
	if err != nil {
		t.Fatal(err)
	}
	return &state.Launch{ID: id, Input: input, Port: port}
}

func run(t *testing.T, f *ecs.Fleet, id string) state.Task {
	t.Helper()
	task, err := f.Run(t.Context(), launch(t, f, id))
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// list gives the fleet's tasks by ARN.
func list(t *testing.T, f *ecs.Fleet, known ...string) map[string]state.Task {
	t.Helper()
	tasks, err := f.List(t.Context(), known...)
	if err != nil {
		t.Fatal(err)
	}
	byARN := make(map[string]state.Task)
	for _, task := range tasks {
		if _, twice := byARN[task.ARN]; twice {
			t.Errorf("task %s is listed twice", task.ARN)
		}
		byARN[task.ARN] = task
	}
	return byARN
}

// until waits for the condition.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patient)
	for !met() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v in vain for: %s", patient, what)
		}
	}
}
