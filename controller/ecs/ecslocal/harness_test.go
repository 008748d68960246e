package ecslocal_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
)

const (
	family  = "browser"
	patient = 20 * time.Second // how long a test waits for what must happen
)

// local starts an endpoint and a client of it that does not retry.
func local(t *testing.T, cfg ecslocal.Config) (*ecslocal.Server, *ecs.Client) {
	t.Helper()
	s, err := ecslocal.Start(cfg)
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
	return s, clientOf(s.URL())
}

func clientOf(url string) *ecs.Client {
	return ecs.New(ecs.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(url),
		Credentials:  credentials.NewStaticCredentialsProvider("any", "any", ""),
		Retryer:      aws.NopRetryer{},
		HTTPClient:   plainBodies{},
	})
}

// plainBodies is an HTTP client that reads requests' bodies by Read alone: the SDK's bodies
// break the connection by their WriteTo if an answer comes too quickly.
type plainBodies struct{}

func (plainBodies) Do(r *http.Request) (*http.Response, error) {
	r.Body = struct{ io.ReadCloser }{r.Body}
	return http.DefaultClient.Do(r)
}

// of makes a configuration with one definition.
func of(d ecslocal.Definition) ecslocal.Config {
	return ecslocal.Config{Definitions: map[string]ecslocal.Definition{family: d}}
}

// shell is a definition that runs a script.
func shell(script string, env ...string) ecslocal.Definition {
	return ecslocal.Definition{Command: []string{"/bin/sh", "-c", script}, Env: env, StopTimeout: 5 * time.Second}
}

// idle is a definition whose tasks need no process and end when told to.
func idle() ecslocal.Definition {
	return ecslocal.Definition{Run: func(ctx context.Context, _ ecslocal.TaskEnv) int {
		<-ctx.Done()
		return 0
	}}
}

func request() *ecs.RunTaskInput {
	return &ecs.RunTaskInput{
		TaskDefinition: aws.String(family),
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{
			Subnets: []string{"subnet-1"},
		}},
	}
}

// run starts one task.
func run(t *testing.T, c *ecs.Client, in *ecs.RunTaskInput) types.Task {
	t.Helper()
	out, err := c.RunTask(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Tasks) != 1 {
		t.Fatalf("RunTask gave %d tasks and the failures %v, want one task", len(out.Tasks), out.Failures)
	}
	return out.Tasks[0]
}

// describe gives one task, or nil if it is missing.
func describe(t *testing.T, c *ecs.Client, arn *string) *types.Task {
	t.Helper()
	out, err := c.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*arn}, Include: []types.TaskField{types.TaskFieldTags}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Tasks) == 0 {
		return nil
	}
	return &out.Tasks[0]
}

// reach waits until the task has the status.
func reach(t *testing.T, c *ecs.Client, arn *string, status string) types.Task {
	t.Helper()
	var last types.Task
	until(t, "task "+status, func() bool {
		last = *describe(t, c, arn)
		return *last.LastStatus == status
	})
	return last
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

// content waits for a file that holds a whole line, and gives it.
func content(t *testing.T, path string) string {
	t.Helper()
	var text []byte
	until(t, "content of "+filepath.Base(path), func() bool {
		text, _ = os.ReadFile(path)
		return strings.HasSuffix(string(text), "\n")
	})
	return strings.TrimSpace(string(text))
}

// alive tells whether the process exists and is no zombie.
func alive(t *testing.T, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	return !strings.Contains(string(stat), ") Z ")
}

// apiError gives the error's name in the API.
func apiError(err error) string {
	var api interface{ ErrorCode() string }
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}
