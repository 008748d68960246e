package ecs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wallcrawler/wallcrawler/controller/ecs"
	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
	"github.com/wallcrawler/wallcrawler/state"
)

func TestATaskFromLaunchToStop(t *testing.T) {
	out := filepath.Join(t.TempDir(), "env")
	s := clusterOf(t, ecslocal.Definition{Command: []string{"/bin/sh", "-c", `env > "$OUT.part"; mv "$OUT.part" "$OUT"; exec sleep 1000`}})
	f := fleet(client(t, s), func(c *ecs.Config) { c.Environment = map[string]string{"OUT": out} })
	task := run(t, f, "cnt_1")
	if task.ContainerID != "cnt_1" || task.LastStatus != "PROVISIONING" || task.CreatedAt.IsZero() {
		t.Errorf("Run gave %+v", task)
	}
	until(t, "RUNNING with an address", func() bool {
		now := list(t, f)[task.ARN]
		return now.LastStatus == "RUNNING" && strings.HasPrefix(now.Addr, "127.0.0.") && !now.StartedAt.IsZero() &&
			strings.HasSuffix(now.Definition, "task-definition/browser:1")
	})
	var env []byte
	until(t, "the container's environment", func() (met bool) {
		env, _ = os.ReadFile(out)
		return len(env) > 0
	})
	for _, want := range []string{"CONTAINER_ID=cnt_1", "CONTAINER_MODE=MULTI_SESSION", "MAX_SESSIONS=4", "CONTAINER_TOKEN=token-of-cnt_1", "PROXY_ENDPOINT=http://127.0.0.1:1/internal/register"} {
		if !strings.Contains("\n"+string(env), "\n"+want+"\n") {
			t.Errorf("the container's environment lacks %s:\n%s", want, env)
		}
	}

	if err := f.Stop(t.Context(), task.ARN, "empty for 5m"); err != nil {
		t.Fatal(err)
	}
	if listed := list(t, f); len(listed) != 0 {
		t.Errorf("a task that is to stop is listed: %v", listed)
	}
	until(t, "STOPPED", func() bool { now := list(t, f, task.ARN)[task.ARN]; return now.Stopped() })
	over := list(t, f, task.ARN)[task.ARN]
	if over.StopCode != state.StopCodeUser || over.StoppedReason != "empty for 5m" || over.StoppedAt.IsZero() || over.ContainerID != "cnt_1" {
		t.Errorf("after the stop it is %+v", over)
	}
	for _, arn := range []string{task.ARN, strings.TrimRight(task.ARN, "0123456789abcdef") + strings.Repeat("0", 32)} {
		if err := f.Stop(t.Context(), arn, "again"); err != nil {
			t.Errorf("stopping a task that is stopped or unknown: %v", err)
		}
	}
}

func TestATaskThatEndsByItselfSaysWhy(t *testing.T) {
	f := fleet(client(t, clusterOf(t, ecslocal.Definition{Command: []string{"false"}})))
	task := run(t, f, "cnt_1")
	until(t, "STOPPED", func() bool {
		now := list(t, f, task.ARN)[task.ARN]
		return now.Stopped() && now.StopCode == "EssentialContainerExited"
	})
}

func TestListGoesThroughAllPages(t *testing.T) {
	s := cluster(t)
	f := fleet(client(t, s))
	theirs := fleet(client(t, s), func(c *ecs.Config) { c.Deployment = "other" })
	foreign := run(t, theirs, "foreign")
	if listed := list(t, f); len(listed) != 0 || s.Calls("DescribeTasks") != 0 {
		t.Errorf("with no task of ours, %d are listed after %d DescribeTasks", len(listed), s.Calls("DescribeTasks"))
	}
	want := map[string]string{}
	for i := range 230 {
		id := fmt.Sprintf("cnt_%d", i)
		want[run(t, f, id).ARN] = id
	}
	got := list(t, f, foreign.ARN)
	for arn, id := range want {
		if got[arn].ContainerID != id {
			t.Errorf("task %s of %s is missing", arn, id)
		}
	}
	if len(got) != len(want) {
		t.Errorf("listed %d tasks, want %d, and no other deployment's", len(got), len(want))
	}
	if tasks, err := f.Describe(t.Context(), foreign.ARN); err != nil || len(tasks) != 0 {
		t.Errorf("another deployment's task is described: %v, %v", tasks, err)
	}
	if lists, describes := s.Calls("ListTasks"), s.Calls("DescribeTasks"); lists != 1+3 || describes != 3+1 {
		t.Errorf("made %d ListTasks and %d DescribeTasks, want 4 and 4", lists, describes)
	}
	calls := s.Calls("DescribeTasks")
	if tasks, err := f.Describe(t.Context()); err != nil || len(tasks) != 0 || s.Calls("DescribeTasks") != calls {
		t.Errorf("describing nothing: %v, %v, %d calls", tasks, err, s.Calls("DescribeTasks"))
	}

	for _, op := range []string{"ListTasks", "DescribeTasks"} {
		// The first page is good, the second is not: half a list is none.
		s.Fail(op, 1, ecslocal.Fault{Hang: ecslocal.Duration(time.Nanosecond)})
		s.Fail(op, 1, ecslocal.Fault{Status: 500})
		if tasks, err := f.List(t.Context()); err == nil {
			t.Errorf("with a %s that failed, List gave %d tasks", op, len(tasks))
		}
	}
}

func TestWhatCannotBeATaskDoesNotBlindUs(t *testing.T) {
	f := fleet(client(t, cluster(t)))
	task := run(t, f, "cnt_1")
	got := list(t, f, "local", "", "arn:aws:ecs:us-east-1:000000000000:task/other/"+strings.Repeat("0", 32),
		"arn:aws:s3:::bucket", "arn:aws:ecs:us-east-1:000000000000:task/default/"+strings.Repeat("0", 32), task.ARN)
	if len(got) != 1 || got[task.ARN].ContainerID != "cnt_1" {
		t.Errorf("got %v", got)
	}
}

func TestTheSameLaunchIsTheSameTask(t *testing.T) {
	s := cluster(t)
	f := fleet(client(t, s))
	l := launch(t, f, "cnt_1")
	task, err := f.Run(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*ecs.Config){
		"the same again":        func(*ecs.Config) {},
		"another configuration": func(c *ecs.Config) { c.TaskDefinition, c.Subnets, c.ContainerName = "new", []string{"subnet-2"}, "New" },
		"another token": func(c *ecs.Config) {
			c.Token = func(string) string { return "new" }
		},
	} {
		again, err := fleet(client(t, s), change).Run(t.Context(), l)
		if err != nil || again.ARN != task.ARN {
			t.Errorf("%s: got the task %s (%v), want %s", name, again.ARN, err, task.ARN)
		}
	}
	if n := len(list(t, f)); n != 1 {
		t.Errorf("%d tasks run, want one", n)
	}
}

func TestALostAnswerIsNoSecondTask(t *testing.T) {
	s := cluster(t)
	f := fleet(client(t, s), func(c *ecs.Config) { c.CallTimeout = 400 * time.Millisecond })
	l := launch(t, f, "cnt_1")
	s.Fail("RunTask", 1, ecslocal.Fault{Hang: ecslocal.Duration(time.Hour)})
	_, err := f.Run(t.Context(), l)
	var refused *state.LaunchRefused
	if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &refused) {
		t.Fatalf("a call without an answer gave %v", err)
	}
	f = fleet(client(t, s))
	task, err := f.Run(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	if listed := list(t, f); len(listed) != 1 || listed[task.ARN].ContainerID != "cnt_1" {
		t.Errorf("got %v, want the one task", listed)
	}

	// The same within one call: the SDK tries again by itself.
	s.Fail("RunTask", 1, ecslocal.Fault{Hang: ecslocal.Duration(time.Hour)})
	s.Fail("RunTask", 1, ecslocal.Fault{Exception: "ThrottlingException"})
	retrying := fleet(client(t, s, func(o *ecs.ClientOptions) { o.MaxAttempts, o.AttemptTimeout = 3, 400*time.Millisecond }))
	run(t, retrying, "cnt_2")
	if n := len(list(t, f)); n != 2 {
		t.Errorf("%d tasks run, want two", n)
	}
}

func TestAFailureRefusesTheLaunch(t *testing.T) {
	s := cluster(t)
	f := fleet(client(t, s))
	for i, tc := range []struct {
		reason, detail string
		want           string
		capacity       bool
	}{
		{"RESOURCE:MEMORY", "", "RESOURCE:MEMORY", true},
		{"RESOURCE:ENI", "", "RESOURCE:ENI", true},
		{"Capacity is unavailable at this time. Please try again later or in a different availability zone", "", "Capacity is unavailable", true},
		{"LIMIT", "You've reached the limit on the number of vCPUs you can run concurrently", "LIMIT: You've reached", true},
		{"AGENT", "", "AGENT", false},
		{"TASK_NOT_VALID", "something", "TASK_NOT_VALID: something", false},
	} {
		s.Fail("RunTask", 1, ecslocal.Fault{FailureReason: tc.reason, FailureDetail: tc.detail})
		l := launch(t, f, fmt.Sprintf("cnt_%d", i))
		for range 2 { // ECS replays its answer, so the launch stays refused
			_, err := f.Run(t.Context(), l)
			var refused *state.LaunchRefused
			if !errors.As(err, &refused) || !strings.HasPrefix(refused.Reason, tc.want) || refused.Capacity != tc.capacity {
				t.Errorf("%s: got %v, want a refusal with capacity %v", tc.reason, err, tc.capacity)
			}
		}
	}
}

func TestAnExceptionIsNoRefusal(t *testing.T) {
	s := cluster(t)
	f := fleet(client(t, s))
	for _, tc := range []struct{ exception, hint string }{
		{"ThrottlingException", "Rate exceeded"},
		{"ServerException", ""},
		{"ClusterNotFoundException", "check the cluster's name (default)"},
		{"AccessDeniedException", "iam:PassRole"},
		{"InvalidParameterException", "check that the task definition browser"},
		{"ClientException", "quotas"},
		{"UnrecognizedClientException", "credentials"},
		{"SomethingNewException", "SomethingNewException"},
	} {
		s.Fail("RunTask", 1, ecslocal.Fault{Exception: tc.exception, Message: "Rate exceeded"})
		l := launch(t, f, "cnt-"+tc.exception)
		_, err := f.Run(t.Context(), l)
		var refused *state.LaunchRefused
		if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), tc.hint) {
			t.Errorf("%s: got %v", tc.exception, err)
		}
		if err != nil && strings.Contains(err.Error(), "token-of-") {
			t.Errorf("%s: the token is in the error: %v", tc.exception, err)
		}
		if _, err := f.Run(t.Context(), l); err != nil {
			t.Errorf("%s: called again: %v", tc.exception, err)
		}
	}
	if err := ecs.New(config(client(t, s))).Stop(t.Context(), "local", "x"); err == nil {
		t.Error("stopping what is no task gave no error")
	}
}

func TestCallsAreCounted(t *testing.T) {
	s := cluster(t)
	reg := prometheus.NewRegistry()
	f := fleet(client(t, s), func(c *ecs.Config) { c.Registerer = reg })
	run(t, f, "cnt_1")
	s.Fail("RunTask", 1, ecslocal.Fault{FailureReason: "RESOURCE:CPU"})
	s.Fail("RunTask", 1, ecslocal.Fault{Exception: "ThrottlingException"})
	s.Fail("RunTask", 1, ecslocal.Fault{Exception: "ConflictException"})
	s.Fail("RunTask", 1, ecslocal.Fault{Status: 503})
	for i := range 4 {
		if _, err := f.Run(t.Context(), launch(t, f, fmt.Sprintf("faulty_%d", i))); err == nil {
			t.Error("a fault had no effect")
		}
	}
	want := `
# HELP wallcrawler_ecs_calls_total Calls of the ECS API by operation and result, each with its retries.
# TYPE wallcrawler_ecs_calls_total counter
wallcrawler_ecs_calls_total{op="DescribeTasks",result="error"} 0
wallcrawler_ecs_calls_total{op="DescribeTasks",result="ok"} 0
wallcrawler_ecs_calls_total{op="DescribeTasks",result="throttled"} 0
wallcrawler_ecs_calls_total{op="ListTasks",result="error"} 0
wallcrawler_ecs_calls_total{op="ListTasks",result="ok"} 0
wallcrawler_ecs_calls_total{op="ListTasks",result="throttled"} 0
wallcrawler_ecs_calls_total{op="StopTask",result="error"} 0
wallcrawler_ecs_calls_total{op="StopTask",result="ok"} 0
wallcrawler_ecs_calls_total{op="StopTask",result="throttled"} 0
wallcrawler_ecs_calls_total{op="RunTask",result="conflict"} 1
wallcrawler_ecs_calls_total{op="RunTask",result="error"} 1
wallcrawler_ecs_calls_total{op="RunTask",result="ok"} 1
wallcrawler_ecs_calls_total{op="RunTask",result="refused"} 1
wallcrawler_ecs_calls_total{op="RunTask",result="throttled"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "wallcrawler_ecs_calls_total"); err != nil {
		t.Error(err)
	}
}

func TestThrottlingIsToldToTheCaller(t *testing.T) {
	server := cluster(t)
	f := fleet(client(t, server))
	for op, do := range map[string]func() error{
		"RunTask":       func() error { _, err := f.Run(t.Context(), launch(t, f, "cnt_1")); return err },
		"StopTask":      func() error { return f.Stop(t.Context(), anARN, "why") },
		"ListTasks":     func() error { _, err := f.List(t.Context()); return err },
		"DescribeTasks": func() error { _, err := f.Describe(t.Context(), anARN); return err },
	} {
		server.Fail(op, 10, ecslocal.Fault{Exception: "ThrottlingException", Message: "Rate exceeded"})
		if err := do(); !errors.Is(err, state.ErrThrottled) {
			t.Errorf("%s: got %v, want one that says throttled", op, err)
		}
	}
}

// scripted answers as told, for what the endpoint cannot be brought to say.
type scripted struct {
	ecs.Client
	run       func(*sdk.RunTaskInput) (*sdk.RunTaskOutput, error)
	describes types.Task
}

func (s scripted) RunTask(_ context.Context, in *sdk.RunTaskInput, _ ...func(*sdk.Options)) (*sdk.RunTaskOutput, error) {
	return s.run(in)
}

func (s scripted) DescribeTasks(_ context.Context, in *sdk.DescribeTasksInput, _ ...func(*sdk.Options)) (*sdk.DescribeTasksOutput, error) {
	task := s.describes
	task.TaskArn = aws.String(in.Tasks[0])
	return &sdk.DescribeTasksOutput{Tasks: []types.Task{task}}, nil
}

const anARN = "arn:aws:ecs:us-east-1:000000000000:task/default/0123456789abcdef0123456789abcdef"

func TestWhatECSMaySayTomorrowPassesThrough(t *testing.T) {
	f := fleet(scripted{describes: types.Task{
		StartedBy: aws.String("test"), LastStatus: aws.String("HIBERNATING"), DesiredStatus: aws.String("HIBERNATED"), StopCode: "SolarFlare",
		Containers: []types.Container{{NetworkInterfaces: []types.NetworkInterface{{PrivateIpv4Address: aws.String("10.0.0.7")}}}},
	}})
	tasks, err := f.Describe(t.Context(), anARN)
	if err != nil || len(tasks) != 1 {
		t.Fatalf("got %v, %v", tasks, err)
	}
	got := tasks[0]
	if got.LastStatus != "HIBERNATING" || got.DesiredStatus != "HIBERNATED" || got.StopCode != "SolarFlare" || got.Stopped() {
		t.Errorf("got %+v", got)
	}
	if got.Addr != "10.0.0.7" || got.ContainerID != "" {
		t.Errorf("without attachments and overrides got the address %q and the container %q", got.Addr, got.ContainerID)
	}
}

func TestAConflictWithAnotherLaunchsTaskIsFinal(t *testing.T) {
	client := scripted{
		run: func(*sdk.RunTaskInput) (*sdk.RunTaskOutput, error) {
			return nil, &types.ConflictException{ResourceIds: []string{anARN}}
		},
		describes: types.Task{StartedBy: aws.String("test")},
	}
	f := fleet(client)
	_, err := f.Run(t.Context(), launch(t, f, "cnt_1"))
	var refused *state.LaunchRefused
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, anARN) || refused.Capacity {
		t.Errorf("got %v, want a refusal that names the task", err)
	}

	client.describes.StartedBy = aws.String("other") // not ours: as if it were not there
	f = fleet(client)
	if _, err = f.Run(t.Context(), launch(t, f, "cnt_1")); err == nil || errors.As(err, &refused) {
		t.Errorf("got %v, want an error that is not final", err)
	}
}

func TestACallThatAsksForCapacityProvidersNamesNoLaunchType(t *testing.T) {
	var got *sdk.RunTaskInput
	f := fleet(scripted{run: func(in *sdk.RunTaskInput) (*sdk.RunTaskOutput, error) {
		got = in
		return &sdk.RunTaskOutput{}, nil
	}}, func(c *ecs.Config) {
		c.CapacityProviders = []ecs.CapacityProvider{{Name: "FARGATE_SPOT", Weight: 3}, {Name: "FARGATE", Weight: 1, Base: 2}}
	})
	if _, err := f.Run(t.Context(), launch(t, f, "cnt_1")); err == nil {
		t.Error("neither a task nor a failure, and no error")
	}
	if got.LaunchType != "" || len(got.CapacityProviderStrategy) != 2 || *got.CapacityProviderStrategy[0].CapacityProvider != "FARGATE_SPOT" || got.CapacityProviderStrategy[1].Base != 2 {
		t.Errorf("got %+v", got.CapacityProviderStrategy)
	}
	if *got.ClientToken != "cnt_1" || *got.StartedBy != "test" || got.ReferenceId != nil || *got.Count != 1 || got.PropagateTags != "" {
		t.Errorf("got %+v", got)
	}
}
